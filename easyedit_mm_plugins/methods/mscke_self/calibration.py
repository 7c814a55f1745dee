"""The pair of thresholds that routes most questions right, by the rule of :mod:`..calibration`.

A question out of scope counts with the largest s that it has with any edit whose picture agrees, a
question in scope with that of its own edit if no other edit comes before it.

Shapes: Q questions, N edits in force, R records, Z width of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import EditRecord, Question
from ...data.records import INSIDE
from ..calibration import Calibration, check_many, check_share, choose
from .scope import SelfScope, U

FALSE = 0.005  # of edits: the share that may supersede one of another meaning
_PICTURE = tuple(i / 100 for i in range(30, 100, 5))


@dataclass(frozen=True, kw_only=True)
class SelfCalibration(Calibration):
    """With the picture's threshold, and the one at which two edits mean the same."""

    picture: float
    same: float

    def apply(self, scope: SelfScope) -> None:
        """Set the heads' own thresholds."""
        scope.picture_threshold, scope.same_threshold = self.picture, self.same


def of_records(
    scope: SelfScope,
    records: Sequence[EditRecord],
    keys: Callable[[Sequence[Question]], Tensor],
    *,
    edits: int | None = None,
    at_most: float = 1.0,
    more: Sequence[Question] = (),
) -> SelfCalibration:
    """:func:`calibrate` on the questions of ``records``.

    Args:
        keys: gives the keys of questions.
        edits: N; None: all there are.
        more: edits that are in force beside those of ``records``.

    Raises:
        DataError, ConfigError: see :func:`calibration.calibrate`.
    """
    check_share(at_most)
    check_many(edits or 1, records, more)
    asked = [
        (i, kind, question)
        for i, record in enumerate(records)
        for kind, questions in record.questions().items()
        for question in questions
    ]
    found = keys([question for _, _, question in asked])
    return calibrate(
        scope,
        keys([*(record.edit for record in records), *more]),
        found,
        torch.tensor([i for i, _, _ in asked], device=found.device),
        [kind for _, kind, _ in asked],
        at_most=at_most,
        together=edits,
    )


@torch.no_grad()
def calibrate(
    scope: SelfScope,
    edits: Tensor,
    asked: Tensor,
    own: Tensor,
    kinds: Sequence[str],
    *,
    at_most: float = 1.0,
    together: int | None = None,
) -> SelfCalibration:
    """The best pair of thresholds, of equally good pictures' the middle one; the caller sets them.

    Args:
        edits: keys ``[R, Z]`` of the records' edits; there may be more than the records whose
            questions are asked.
        asked: keys ``[Q, Z]`` of the questions.
        own: ``[Q]``, the edit of each question's record.
        kinds: of the questions.
        at_most: share of each kind of question out of scope that may find an edit.
        together: N; a question meets its own edit and those that come after it. None: all.
    """
    count = len(edits) if together is None else min(together, len(edits))
    rows = torch.arange(len(own), device=own.device)
    agreement = scope.agreement(asked[:, U:], edits[:, U:])
    score = scope.probability(asked[:, :U] @ edits[:, :U].T)
    seen = (torch.arange(len(edits), device=own.device) - own[:, None]) % len(edits) < count
    places = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}
    tried = []
    for picture in _PICTURE if scope.config.binding == "picture" else (0.5,):
        agrees = (agreement >= picture) & seen
        worth = (score * agreement).masked_fill(~agrees, -1.0)
        first = worth[rows, own] >= worth.max(1).values
        none = torch.tensor(float("-inf"), device=own.device)
        inside = torch.where(first & agrees[rows, own], score[rows, own], none)
        outside = score.masked_fill(~agrees, float("-inf")).max(1).values
        scores = {
            kind: (inside if kind in INSIDE else outside)[at].tolist()
            for kind, at in places.items()
        }
        tried.append((choose(scores, at_most), picture, scores))
    most = max(accuracy for (_, accuracy), _, _ in tried)
    best = [row for row in tried if row[0][1] == most]
    (threshold, accuracy), picture, scores = best[len(best) // 2]
    return SelfCalibration(
        threshold=threshold,
        balanced_accuracy=accuracy,
        edits=count,
        scores=scores,
        picture=picture,
        same=_same(scope, edits, score, own, kinds, threshold, picture),
    )


def _same(
    scope: SelfScope,
    edits: Tensor,
    score: Tensor,
    own: Tensor,
    kinds: Sequence[str],
    threshold: float,
    picture: float,
) -> float:
    """The least s at which at most :data:`FALSE` of the edits mean another one's question.

    Of questions out of scope, as if each were made an edit, no more may either.
    """
    pairs = scope.probability(edits[:, :U] @ edits[:, :U].T)
    agrees = scope.agreement(edits[:, U:], edits[:, U:]) >= picture
    pairs = pairs.masked_fill(~agrees, 0.0).fill_diagonal_(0.0)
    least = threshold
    out = torch.tensor([kind == "out_scope" for kind in kinds], device=score.device)
    rows = torch.arange(len(own), device=own.device)[out]
    for found in (pairs.max(1).values, score[rows, own[out]]):
        if len(found):
            worst = found.sort(descending=True).values
            least = max(least, float(worst[min(int(FALSE * len(worst)), len(worst) - 1)]))
    return min(1.0, float(torch.nextafter(torch.tensor(least), torch.tensor(2.0))))
