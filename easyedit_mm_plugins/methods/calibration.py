"""A threshold from edits that were held back from training, any number of them in force at once.

A question in scope of its record's edit must be routed to that edit, and one out of scope to none:
with N edits in force the latter counts with the highest score that it has with any of them. No harm
comes first: only thresholds are looked at that let at most a given share of *each* kind of question
out of scope through. Among them it is the middle of the widest interval on which the balanced
accuracy is highest: the mean of both sides, half of each what is asked about the edited picture (in
and out of scope), half its other kinds of question, alike. Test records play no part.

Kinds are looked at one by one because those that nearly any threshold keeps out, such as questions
without an image, would otherwise make up for others that are let through.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DataError
from ..data.records import INSIDE, OUTSIDE, EditRecord, Question
from .newest import newest

_AT_ONCE = 64  # questions per call
_SCOPE = ("in_scope", "out_scope")
_OTHER = float("-inf")  # the score of a question that another edit than its own answers
Scores = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A threshold, and what it does on the records that it was chosen by.

    Attributes:
        threshold: a score at or above it is in scope.
        balanced_accuracy: of the records' questions at ``threshold``.
        edits: N, the edits in force.
        scores: by kind of question, each question's score; see the module's docstring.
        inside: the kinds that are in scope.
    """

    threshold: float
    balanced_accuracy: float
    edits: int
    scores: dict[str, list[float]] = field(repr=False)
    inside: Collection[str] = INSIDE

    @property
    def fires(self) -> dict[str, float]:
        """By kind the share of its questions that an edit answers; in scope, the right one."""
        return {
            kind: sum(score >= self.threshold for score in own) / len(own)
            for kind, own in self.scores.items()
        }

    @property
    def right(self) -> dict[str, float]:
        """By kind the share of its questions that are routed right."""
        return {k: share if k in self.inside else 1 - share for k, share in self.fires.items()}

    @property
    def auc(self) -> float:
        """Area under the ROC curve, whatever the threshold."""
        sides = ([s for k, s in self.scores.items() if (k in self.inside) == i] for i in (1, 0))
        return roc_area(*(list(chain.from_iterable(side)) for side in sides))


def calibrate(
    editor: Any,
    records: Sequence[EditRecord],
    *,
    edits: int = 1,
    at_most: float = 1.0,
    more: Sequence[Question] = (),
    kinds: Collection[str] = INSIDE + OUTSIDE,
) -> Calibration:
    """Choose the threshold of ``editor`` by the rule above; the caller sets it.

    Args:
        editor: has a ``threshold`` and says by ``route`` which edit a question is nearest to.
        records: whose questions are asked, and whose edits are in force.
        edits: so many edits are in force at once: those of the question's record, of the ones
            after it, and then ``more``.
        at_most: share of each kind of question out of scope that may be let through; of a few
            questions always one, unless it is 0.
        kinds: those that count.

    Raises:
        DataError: no question of ``records`` is on one of the two sides.
        ConfigError: there are not so many edits, or the share is none.
    """
    check_share(at_most)
    check_many(edits, records, more)
    of_records = [record.edit for record in records]
    scores: dict[str, list[float]] = {kind: [] for kind in kinds}
    for start in range(0, len(records), edits):
        block = records[start : start + edits]
        in_force = [*of_records[start:], *of_records[:start], *more][:edits]
        asked = [
            (i, kind, question)
            for i, record in enumerate(block)
            for kind, questions in record.questions().items()
            for question in questions
            if kind in scores
        ]
        with editor.edited(in_force) as ids:
            newer = editor.store.now.newer
            for first in range(0, len(asked), _AT_ONCE):
                some = asked[first : first + _AT_ONCE]
                hits = editor.route([question for _, _, question in some])
                for (i, kind, _), hit in zip(some, hits, strict=True):
                    other = hit.id is None or newest(newer, hit.id) != newest(newer, ids[i])
                    lost = other if kind in INSIDE else hit.id is None
                    scores[kind].append(_OTHER if lost else hit.score)
    known = {kind: own for kind, own in scores.items() if own}
    threshold, accuracy = choose(known, at_most)
    return Calibration(threshold=threshold, balanced_accuracy=accuracy, edits=edits, scores=known)


def choose(
    scores: Scores, at_most: float = 1.0, inside: Collection[str] = INSIDE
) -> tuple[float, float]:
    """The threshold of the rule above and its balanced accuracy, from scores by kind.

    Where none is allowed it is 1, and the accuracy 0.

    Raises:
        DataError: there is no kind on one of the two sides.
    """
    sides = [[kind for kind in scores if (kind in inside) == side] for side in (True, False)]
    if not all(sides):
        raise DataError(
            "there is no question that is in scope, or none that is not",
            field="rephrase, in_scope, out_scope, text_loc, image_loc",
            remedy="calibrate on records that have both",
        )
    opened, closed = ([scores[kind] for kind in side] for side in sides)
    # What a side's scope questions weigh, all others weigh together.
    weights = [
        [len(side) - 1 if kind in _SCOPE and len(side) > 1 else 1 for kind in side]
        for side in sides
    ]
    return best_threshold(opened, closed, at_most, (weights[0], weights[1]))


def best_threshold(
    opened: Sequence[Sequence[float]],
    closed: Sequence[Sequence[float]],
    at_most: float = 1.0,
    weights: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
) -> tuple[float, float]:
    """As :func:`choose`, a list of scores a kind; ``weights`` are those of each side's kinds."""
    every = np.array([s for side in (opened, closed) for kind in side for s in kind])
    every = every[np.isfinite(every)]
    lowest = 0.0 if (every >= 0).all() else -1.0
    ends = np.unique(np.concatenate([[lowest, 1.0], every]))
    middles, widths = (ends[1:] + ends[:-1]) / 2, np.diff(ends)

    def passing(kind: Sequence[float]) -> np.ndarray:
        return len(kind) - np.searchsorted(np.sort(np.array(kind)), middles)

    leaks = [(passing(kind), len(kind)) for kind in closed]
    # A single question never decides alone, unless none at all may pass.
    allowed = np.all([n <= max(int(at_most * size), at_most > 0) for n, size in leaks], axis=0)
    if not allowed.any():
        return 1.0, 0.0
    right = np.average([passing(kind) / len(kind) for kind in opened], 0, weights[0])
    leak = np.average([n / size for n, size in leaks], 0, weights[1])
    accuracy = (right + 1 - leak) / 2
    # Rounded: accuracies that differ in the last bits are the same.
    order = np.lexsort([middles, widths, np.round(accuracy, 9)])
    best = next(i for i in order[::-1] if allowed[i])
    return float(middles[best]), float(np.round(accuracy[best], 9))


def roc_area(inside: Sequence[float], outside: Sequence[float]) -> float:
    """How often a score from inside beats one from outside; ties count half."""
    lower = np.sort(np.array(outside))
    sides = (np.searchsorted(lower, np.array(inside), side) for side in ("left", "right"))
    return float(np.mean([place / len(lower) for place in sides]))


def check_share(at_most: float) -> None:
    """Raise :class:`ConfigError` if ``at_most`` is no share."""
    if not 0 <= at_most <= 1:
        raise ConfigError(f"at_most is {at_most}, but is a share, from 0 to 1")


def check_many(edits: int, records: Sequence[EditRecord], more: Sequence[Question]) -> None:
    """Raise :class:`ConfigError` if there are not so many edits to put in force."""
    if edits > (found := len(records) + len(more)):
        raise ConfigError(
            f"{edits} edits are to be in force, but there are {found}",
            remedy="give more records, or fewer edits",
        )
