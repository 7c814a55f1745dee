"""Thresholds from held-back records, with the edits of all of them in force at once.

A question out of scope counts with the largest s that it has with any edit whose picture agrees, a
question in scope with that of its own edit if no other edit comes before it.

Shapes: Q questions, N edits, Z width of a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.records import INSIDE
from .scope import SelfScope, U

FALSE = 0.005  # of edits: the share that may supersede one of another meaning
_PICTURE = tuple(i / 100 for i in range(30, 100, 5))


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and the share of questions that they route right, by kind.

    Attributes:
        scope, picture, same: the thresholds.
        balanced: mean of what is in scope and what is not, each kind counting alike.
        right: by kind.
        edits: N, the edits in force.
    """

    scope: float
    picture: float
    same: float
    balanced: float
    right: dict[str, float]
    edits: int


@torch.no_grad()
def calibrate(
    scope: SelfScope, edits: Tensor, asked: Tensor, own: Tensor, kinds: Sequence[str]
) -> Calibration:
    """The best pair of thresholds, of equally good ones the middle; the caller sets them.

    Args:
        edits: keys ``[N, Z]`` of the edits in force.
        asked: keys ``[Q, Z]`` of the questions.
        own: ``[Q]``, the edit of each question's record.
        kinds: of the questions.
    """
    agreement = scope.agreement(asked, edits)
    score = scope.probability(asked[:, :U] @ edits[:, :U].T)
    rows = torch.arange(len(own), device=own.device)
    steps = torch.arange(1, 100, device=score.device) / 100
    places = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}
    tried = []
    for picture in _PICTURE if scope.config.binding == "picture" else (0.5,):
        agrees = agreement >= picture
        worth = (score * agreement).masked_fill(~agrees, -1.0)
        first = worth[rows, own] >= worth.max(1).values
        inside = torch.where(first & agrees[rows, own], score[rows, own], -1.0)
        outside = score.masked_fill(~agrees, -1.0).max(1).values
        right = {
            kind: (inside[at, None] >= steps if kind in INSIDE else outside[at, None] < steps)
            .float()
            .mean(0)
            for kind, at in places.items()
        }
        sides = [
            torch.stack([r for kind, r in right.items() if (kind in INSIDE) == side])
            for side in (True, False)
            if any((kind in INSIDE) == side for kind in right)
        ]
        balanced = torch.stack([side.mean(0) for side in sides]).mean(0)
        tried += [(round(float(b), 6), picture, i, right) for i, b in enumerate(balanced)]
    most = max(row[0] for row in tried)
    best = [row for row in tried if row[0] == most]
    pictures = sorted({row[1] for row in best})
    best = [row for row in best if row[1] == pictures[len(pictures) // 2]]
    share, picture, at, right = best[len(best) // 2]
    shares = {kind: float(r[at]) for kind, r in right.items()}
    threshold = (at + 1) / 100
    same = _same(scope, edits, score, own, kinds, threshold, picture)
    return Calibration(threshold, picture, same, share, shares, len(edits))


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
    agrees = scope.agreement(edits, edits) >= picture
    pairs = pairs.masked_fill(~agrees, 0.0).fill_diagonal_(0.0)
    least = threshold
    out = torch.tensor([kind == "out_scope" for kind in kinds], device=score.device)
    rows = torch.arange(len(own), device=own.device)[out]
    for found in (pairs.max(1).values, score[rows, own[out]]):
        if len(found):
            worst = found.sort(descending=True).values
            least = max(least, float(worst[min(int(FALSE * len(worst)), len(worst) - 1)]))
    return min(1.0, float(torch.nextafter(torch.tensor(least), torch.tensor(2.0))))
