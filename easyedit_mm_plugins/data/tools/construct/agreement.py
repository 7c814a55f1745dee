"""How well a judge's scope labels agree with the true ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any


def agreement(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Precision, recall and F1 of labels against the truth.

    Args:
        pairs: (label, truth), each "in", "out" or "none" (undecided).

    Returns:
        ``n``, ``accuracy``, ``in`` and ``out`` with ``precision``, ``recall``, ``f1`` (None where
        there is nothing to divide by), and ``confusion`` as {"truth->label": count}.
    """
    counts = Counter(pairs)
    total = sum(counts.values())
    result: dict[str, Any] = {
        "n": total,
        "accuracy": _share(sum(n for (a, b), n in counts.items() if a == b), total),
    }
    for scope in ("in", "out"):
        right = counts[(scope, scope)]
        precision = _share(right, sum(n for (label, _), n in counts.items() if label == scope))
        recall = _share(right, sum(n for (_, truth), n in counts.items() if truth == scope))
        f1 = None
        if precision is not None and recall is not None and precision + recall > 0:
            f1 = 2 * precision * recall / (precision + recall)
        result[scope] = {"precision": precision, "recall": recall, "f1": f1}
    result["confusion"] = {f"{truth}->{label}": n for (label, truth), n in sorted(counts.items())}
    return result


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
