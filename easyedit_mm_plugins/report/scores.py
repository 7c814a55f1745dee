"""The distribution of scope scores, for questions in scope of an edit and out of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.records import INSIDE, OUTSIDE
from .sources import Entry

BINS = 40


def score_histogram(entry: Entry) -> dict[str, Any] | None:
    """How the scores of a method's scope classifier or gate are distributed.

    Returns:
        ``None`` for a method without scores; else ``edges`` (low, high), ``threshold`` (or
        ``None``), and for "in" and "out" the counts per bin, their number ``n`` and the share
        ``at`` or above the threshold, in percent.
    """
    sides = {side: _scores(entry, kinds) for side, kinds in _SIDES.items()}
    every = np.concatenate(list(sides.values()))
    if not len(every):
        return None
    threshold = (entry.row.get("settings") or {}).get("threshold")
    threshold = float(threshold) if isinstance(threshold, (int, float)) else None
    low, high = min(0.0, float(every.min())), max(1.0, float(every.max()))
    found: dict[str, Any] = {"edges": [low, high], "threshold": threshold}
    for side, values in sides.items():
        counts, _ = np.histogram(values, bins=BINS, range=(low, high))
        share = None
        if threshold is not None and len(values):
            share = float(100 * np.mean(values >= threshold))
        found[side] = {"counts": counts.tolist(), "n": len(values), "at": share}
    return found


_SIDES = {"in": INSIDE, "out": OUTSIDE}


def _scores(entry: Entry, kinds: Iterable[str]) -> np.ndarray:
    wanted = set(kinds)
    scores = [
        question.score
        for case in entry.cases.values()
        for question in case.questions
        if question.kind in wanted and question.score is not None
    ]
    return np.array(scores, dtype=float)
