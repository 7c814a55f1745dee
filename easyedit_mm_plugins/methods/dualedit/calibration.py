"""A threshold for the gate from edits that were held back from training.

The rule: an edit, its rephrasing and its image redrawn must open the gate; questions without an
image and questions on another image must not. No harm comes first: only thresholds that let at most
one in 200 of either kind of the latter through (of fewer than 400, one) are looked at. Among them,
the threshold is the middle of the widest interval on which the balanced accuracy (the mean of the
share opened rightly and the share left closed rightly, every kind of question counting alike) is
highest. Test records play no part.

The kinds are looked at one by one because questions without an image, which nearly any threshold
keeps out, would otherwise make up for questions on another image that are let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from torch import Tensor

from ...core.errors import DataError
from ...data import EditRecord
from .losses import GEN, LOC, REL
from .model import DualEdit

_AT_ONCE = 64  # questions per forward pass
MAX_LEAK = 0.005  # share of the questions of any kind that may pass and must not


@dataclass(frozen=True)
class Calibration:
    """A calibrated gate.

    Attributes:
        threshold: the rule's.
        balanced_accuracy: at ``threshold``, on the records it was chosen by.
        auc: area under the ROC curve, whatever the threshold.
        cosines: by kind of question, each question's cosine with its own record's edit.
    """

    threshold: float
    balanced_accuracy: float
    auc: float
    cosines: dict[str, list[float]]


@torch.no_grad()
def calibrate(
    editor: DualEdit,
    records: Sequence[EditRecord],
    *,
    others: int = 0,
    max_leak: float = MAX_LEAK,
) -> Calibration:
    """Choose ``editor.threshold`` by the rule above; the caller sets it.

    Args:
        max_leak: the share of each kind of question that may pass and must not.
        others: so many other records' edits are in the memory too; what must stay closed then
            counts with its highest cosine to any of them.

    Raises:
        DataError: the records have no question on one side of the gate.
    """
    edits = _keys(editor, [r.edit for r in records], with_answers=True)
    cosines: dict[str, list[float]] = {}
    for kind in REL + GEN + LOC:
        pairs = [(i, q) for i, r in enumerate(records) for q in r.questions()[kind]]
        if pairs:
            asked = _keys(editor, [q for _, q in pairs])
            rows = torch.tensor([i for i, _ in pairs])[:, None]
            with_others = others if kind in LOC else 0
            seen = edits[(rows + torch.arange(with_others + 1)) % len(records)]
            found = torch.nn.functional.cosine_similarity(asked[:, None], seen, dim=-1)
            cosines[kind] = found.amax(1).tolist()
    inside, outside = ([cosines[k] for k in kinds if k in cosines] for kinds in (REL + GEN, LOC))
    if not inside or not outside:
        raise DataError(
            "there is no question that must open the gate, or none that must leave it closed",
            field="rephrase, image_rephrase, text_loc, image_loc",
            remedy="calibrate on records that have both",
        )
    threshold, accuracy = best_threshold(inside, outside, max_leak)
    area = roc_area(*(list(chain.from_iterable(side)) for side in (inside, outside)))
    return Calibration(threshold, accuracy, area, cosines)


def best_threshold(
    inside: Sequence[Sequence[float]],
    outside: Sequence[Sequence[float]],
    max_leak: float = MAX_LEAK,
) -> tuple[float, float]:
    """The threshold of the rule above and its balanced accuracy; a list of cosines a kind."""
    opened, closed = ([torch.tensor(kind) for kind in side] for side in (inside, outside))
    best = (-1.0, 0.0, 1.0)
    ends = sorted({-1.0, 1.0, *(c for side in (inside, outside) for kind in side for c in kind)})
    for low, high in pairwise(ends):
        middle = (low + high) / 2
        passing = [int((kind >= middle).sum()) for kind in closed]
        # A single question never decides alone, unless none at all may pass.
        allowed = [max(int(max_leak * len(kind)), max_leak > 0) for kind in closed]
        if any(n > most for n, most in zip(passing, allowed, strict=True)):
            continue
        leaks = [n / len(kind) for n, kind in zip(passing, closed, strict=True)]
        right = sum(float((kind >= middle).double().mean()) for kind in opened) / len(opened)
        accuracy = (right + 1 - sum(leaks) / len(leaks)) / 2
        # Rounded: accuracies that differ in the last bits are the same.
        best = max(best, (round(accuracy, 9), high - low, middle))
    return best[2], best[0]


def roc_area(inside: Sequence[float], outside: Sequence[float]) -> float:
    """How often a cosine from inside beats one from outside; ties count half."""
    higher, lower = torch.tensor(inside)[:, None], torch.tensor(outside)[None]
    return float(((higher > lower).double() + (higher == lower).double() / 2).mean())


def _keys(editor: DualEdit, questions: Sequence, *, with_answers: bool = False) -> Tensor:
    parts = [
        editor.gate_keys(questions[i : i + _AT_ONCE], with_answers=with_answers)
        for i in range(0, len(questions), _AT_ONCE)
    ]
    return torch.cat(parts).float()
