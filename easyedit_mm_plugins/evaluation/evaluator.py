"""One evaluator for every method: edit, ask, compare, undo."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import ConfigError, DataError
from ..data import EditRecord, Question
from ..methods.targets import check_targets
from .answers import BaseAnswers, ask_in_batches
from .memory import PeakMemory, release
from .metrics import Suite, case_values, suite_named
from .protocol import Protocol, Reply
from .results import BASE, CaseResult, QuestionResult, Row, image_name, make_row
from .run_files import plain
from .scope_metrics import with_scopes

if TYPE_CHECKING:
    from ..methods.base import Editor
    from .runs import RunFolder

Progress = Callable[[int, int], None]


@dataclass
class Evaluation:
    """The outcome: a table row, and every case behind it."""

    row: Row
    cases: list[CaseResult]

    @property
    def metrics(self) -> dict[str, float | None]:
        """The row's metrics in percent."""
        return self.row.metrics


def evaluate(
    editor: Editor,
    records: Sequence[EditRecord],
    protocol: str | Protocol = "generated",
    *,
    batch_size: int = 32,
    run: RunFolder | None = None,
    base_answers: BaseAnswers | None = None,
    progress: Progress | None = None,
    dataset: str = "",
    suite: str | Suite = "fgvedit",
) -> Evaluation:
    """Measure ``editor`` on ``records``: each case is edited alone, asked, and undone.

    Editors that can restrict each row of a batch to its own edits (``isolates_rows``) are given
    ``batch_size`` cases at once, and their questions share forward passes of ``batch_size`` rows;
    the others are edited case by case. The figures are the same. Afterwards, also after an error,
    the editor holds none of the evaluation's edits.

    Args:
        editor: the method on its backbone.
        records: the cases; their ``case_id`` must be unique.
        protocol: a name or a :class:`Protocol`.
        batch_size: rows per forward pass, and cases per round.
        run: a run folder; cases finished there are not evaluated again, new ones are written as
            they finish.
        base_answers: answers of the unedited model to share between methods; by default those of
            ``run``, else a fresh cache.
        progress: called with (finished, total) after every round.
        dataset: the name that results carry.
        suite: which metrics, "fgvedit" or "evqa".

    Raises:
        DataError: no records, a case id twice, an answer that the metrics need is empty, or no
            edit's target can be said. (Of single ones that cannot, a warning tells.)
        ConfigError: a batch size below 1, or an editor that already holds edits it cannot hide.
        RunError: the run folder belongs to another configuration, or cannot be written.
    """
    protocol = Protocol.of(protocol)
    suite = suite if isinstance(suite, Suite) else suite_named(suite)
    _check(editor, records, batch_size, suite, protocol)
    settings = dict(editor.describe())
    key = (editor.name, editor.backbone.name, dataset, protocol.name)
    finished: dict[str, CaseResult] = {}
    if run is not None:
        run.begin(editor, settings)
        wanted = {record.case_id for record in records}
        finished = {name: case for name, case in run.finished(key).items() if name in wanted}
    before = base_answers
    if before is None:
        before = run.base_answers(editor, protocol) if run else fresh_answers(editor, protocol)
    todo = [record for record in records if record.case_id not in finished]
    if progress is not None:
        progress(len(finished), len(records))
    per_round = batch_size if editor.isolates_rows else 1
    rounds = _Rounds(editor, protocol, suite, before, batch_size, key)
    if todo:
        release()
    with _seeded(protocol.seed):
        for start in range(0, len(todo), per_round):
            for case in rounds.evaluate(todo[start : start + per_round]):
                finished[case.case] = case
                if run is not None:
                    run.append(case)
            if progress is not None:
                progress(len(finished), len(records))
    cases = [finished[record.case_id] for record in records]
    row = make_row(
        cases, suite, seed=protocol.seed, samples=protocol.bootstrap, settings=plain(settings)
    )
    return Evaluation(row, cases)


def fresh_answers(editor: Editor, protocol: str | Protocol) -> BaseAnswers:
    """An empty in-memory cache of the unedited model below ``editor``."""
    from ..methods.base import Unedited

    return BaseAnswers(Unedited(editor.backbone), Protocol.of(protocol))


class _Rounds:
    """Evaluates cases, some at a time, with one editor, protocol and suite."""

    def __init__(
        self,
        editor: Editor,
        protocol: Protocol,
        suite: Suite,
        before: BaseAnswers,
        batch_size: int,
        key: tuple[str, str, str, str],
    ) -> None:
        self.editor, self.protocol, self.suite = editor, protocol, suite
        self.before, self.batch_size, self.key = before, batch_size, key
        self.peak = PeakMemory(getattr(editor.backbone, "device", None))

    def evaluate(self, records: Sequence[EditRecord]) -> list[CaseResult]:
        """Evaluate ``records`` together; several only if the editor isolates rows."""
        kinds = self.suite.kinds
        rows: list[tuple[int, str, Question]] = [
            (case, kind, question)
            for case, record in enumerate(records)
            for kind in dict.fromkeys(("edit", *kinds))
            for question in record.questions()[kind]
        ]
        questions = [question for _, _, question in rows]
        before = self.before.get(questions, self.batch_size)
        self.peak.start()
        start = time.perf_counter()
        with self.editor.edited([record.edit for record in records]) as ids:
            own = [frozenset([i]) for i in ids]
            visible = [own[case] for case, _, _ in rows] if self.editor.isolates_rows else None
            after = ask_in_batches(self.editor, self.protocol, questions, visible, self.batch_size)
        seconds = (time.perf_counter() - start) / len(records)
        memory = self.peak.megabytes()
        owner = {i: record.case_id for i, record in zip(ids, records, strict=True)}
        results = []
        for case, record in enumerate(records):
            mine = [
                (kind, question, before[at], after[at])
                for at, (index, kind, question) in enumerate(rows)
                if index == case
            ]
            results.append(self._case(record, mine, owner, seconds, memory))
        return results

    def _case(
        self,
        record: EditRecord,
        rows: list[tuple[str, Question, Reply, Reply]],
        owner: dict[str, str],
        seconds: float,
        memory: float | None,
    ) -> CaseResult:
        edit_reply = rows[0][3]
        counted = {metric.kind: metric.against for metric in reversed(self.suite.metrics)}
        questions = []
        for kind, question, before, after in rows:
            judged = self.protocol.judge(kind, question, before, after, edit_reply)
            route = BASE if after.route is None else owner.get(after.route, after.route)
            questions.append(
                QuestionResult(
                    kind=kind,
                    text=question.text,
                    image=image_name(question.image),
                    target=question.answer,
                    before=before.text,
                    after=after.text,
                    correct=getattr(judged, counted.get(kind, "target")),
                    is_target=judged.target,
                    is_before=judged.before,
                    is_edit=judged.edit,
                    route=route,
                    score=_score(after),
                    hard=question.hard,
                    sort=question.sort,
                    routed=self._routed(kind, route, record.case_id),
                )
            )
        judged_all = [q.judged() for q in questions]
        return CaseResult(
            record.case_id,
            *self.key,
            suite=self.suite.name,
            edit={
                "text": record.edit.text,
                "image": image_name(record.edit.image),
                "target": record.edit.answer,
            },
            metrics=case_values(with_scopes(self.suite, judged_all), judged_all),
            questions=questions,
            seconds=round(seconds, 6),
            memory_mb=memory,
        )

    def _routed(self, kind: str, route: str, case: str) -> bool | None:
        """See :class:`metrics.Judged`."""
        if not callable(getattr(self.editor, "route", None)):
            return None
        return route == case if kind == "in_scope" else route != BASE


def _check(
    editor: Editor,
    records: Sequence[EditRecord],
    batch_size: int,
    suite: Suite,
    protocol: Protocol,
) -> None:
    if not len(records):
        raise DataError("there is no record to evaluate", remedy="check the file and the limit")
    if batch_size < 1:
        raise ConfigError(f"batch size is {batch_size}, but must be 1 or more")
    twice = [name for name, n in Counter(r.case_id for r in records).items() if n > 1]
    if twice:
        raise DataError("the case id appears twice", record=twice[0], field="case_id")
    if editor.edits and not editor.isolates_rows:
        raise ConfigError(
            f"the {editor.name} editor already holds {len(editor.edits)} edits, which would show "
            "in every answer",
            remedy="call clear() first",
        )
    against_target = {m.kind for m in suite.metrics if m.against == "target"} | {"edit"}
    for record in records:
        for kind, questions in record.questions().items():
            needed = kind in against_target or (protocol.forced and kind in suite.kinds)
            if needed and any(not question.answer.strip() for question in questions):
                raise DataError(
                    f"a question of kind {kind} has an empty answer",
                    record=record.case_id,
                    field=kind,
                    remedy="give it an answer, or leave the record out (--skip-bad)",
                )
    check_targets(
        editor.backbone,
        records,
        against_target,
        read={"edit", *(suite.kinds if protocol.forced else ())},
        room=None if protocol.forced else protocol.max_new_tokens,
    )


def _score(reply: Reply) -> float | None:
    """The reply's scope score as JSON can hold it: ``None`` if it is not finite."""
    score = reply.score
    return None if score is None or not math.isfinite(score) else round(float(score), 6)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers inside the block; restore their state after it."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
