"""The accuracy of a scope classifier: scores of every question, a line for each case.

Accuracies are in percent over the questions of one side (in scope or out of scope), averaged over
cases; ``balanced`` is the mean of both sides. Intervals come from the bootstrap over cases; two
classifiers are compared case by case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..core import jsonl
from ..data import EditRecord, Question
from ..evaluation.metrics import Derived, Metric, Suite, summarise
from ..methods.routed import RoutedEditor

INSIDE, OUTSIDE = "in", "out"
SCOPE = Suite(
    "scope",
    (Metric("in", INSIDE, "target", "MSCKE eq. 9"), Metric("out", OUTSIDE, "target", "eq. 10")),
    (Derived("balanced", ("in", "out"), "mean of both sides"),),
    ("balanced", "in", "out"),
)
# The edit to put in force, and what to ask about it: questions in its scope and out of it.
Task = tuple[Question, Sequence[Question], Sequence[Question]]


@dataclass
class ScoredCase:
    """One case's scores: rho of each question with the case's own edit.

    Attributes:
        classifier: whose scores, by a name that is unique in its file.
        inside, outside: scores of the questions in scope and out of it.
    """

    case: str
    classifier: str
    inside: list[float]
    outside: list[float]
    threshold: float

    def right(self) -> dict[str, float | None]:
        """Share of right decisions on each side, in percent; ``None`` without a question."""
        sides = (
            (INSIDE, [s >= self.threshold for s in self.inside]),
            (OUTSIDE, [s < self.threshold for s in self.outside]),
        )
        return {side: 100 * sum(v) / len(v) if v else None for side, v in sides}


def visual_task(record: EditRecord) -> Task:
    """In and out of visual scope, on the edit's picture."""
    return record.edit, record.in_scope, record.out_scope


class ScoreFile:
    """``scores.jsonl``: cases as they were scored; a started one goes on.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines, self.note = jsonl.load(path)
        self.cases = [ScoredCase(**line) for line in lines]

    def of(self, classifier: str) -> list[ScoredCase]:
        """What is known of one classifier."""
        return [case for case in self.cases if case.classifier == classifier]

    def score(
        self,
        classifier: str,
        editor: RoutedEditor,
        records: Sequence[EditRecord],
        task: Callable[[EditRecord], Task] = visual_task,
        *,
        batch: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[ScoredCase]:
        """The scores of ``editor``'s classifier on ``records``; those in the file are kept.

        Raises:
            RunError: the file cannot be written.
        """
        known = {case.case: case for case in self.of(classifier)}
        todo = [record for record in records if record.case_id not in known]
        for start in range(0, len(todo), batch):
            group = todo[start : start + batch]
            fresh = _score(classifier, editor, group, [task(record) for record in group])
            jsonl.append(self.path, [asdict(case) for case in fresh])
            self.cases += fresh
            known |= {case.case: case for case in fresh}
            if progress:
                progress(len(records) - len(todo) + start + len(group), len(records))
        return [known[record.case_id] for record in records]


def _score(
    classifier: str, editor: RoutedEditor, records: Sequence[EditRecord], tasks: Sequence[Task]
) -> list[ScoredCase]:
    with editor.edited([edit for edit, _, _ in tasks]) as ids:
        asked, visible = [], []
        for own, (_, inside, outside) in zip(ids, tasks, strict=True):
            questions = [*inside, *outside]
            asked += questions
            visible += [frozenset([own])] * len(questions)
        scores = iter([hit.score for hit in editor.route(asked, visible=visible)])
    return [
        ScoredCase(
            record.case_id,
            classifier,
            [round(next(scores), 6) for _ in inside],
            [round(next(scores), 6) for _ in outside],
            editor.threshold,
        )
        for record, (_, inside, outside) in zip(records, tasks, strict=True)
    ]


def accuracy(
    cases: Sequence[ScoredCase], seed: int = 0, samples: int = 1000
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Values and 95 % intervals of ``balanced``, ``in`` and ``out``."""
    return summarise(SCOPE, [case.right() for case in cases], seed=seed, samples=samples)


def difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    seed: int = 0,
    samples: int = 2000,
) -> tuple[float, list[float]]:
    """Mean of ``first - second`` over cases that both have, and its 95 % interval.

    Args:
        first, second: one value a case, of the same cases in the same order.
    """
    pairs = zip(first, second, strict=True)
    gaps = np.array([a - b for a, b in pairs if a is not None and b is not None])
    rng = np.random.default_rng(seed)
    means = [rng.choice(gaps, len(gaps)).mean() for _ in range(samples)]
    return float(gaps.mean()), [float(x) for x in np.percentile(means, [2.5, 97.5])]


def balanced(cases: Sequence[ScoredCase]) -> list[float | None]:
    """Each case's mean of both sides."""
    sides = [(right[INSIDE], right[OUTSIDE]) for right in (case.right() for case in cases)]
    return [None if a is None or b is None else (a + b) / 2 for a, b in sides]
