"""Exact references for sampled statistics."""

from __future__ import annotations

from math import comb


def binomial_interval(n: int, share: float, level: float) -> tuple[float, float]:
    """The central ``level`` of the mean of ``n`` draws that hit with ``share``, in percent.

    A bootstrap of ``n`` cases of which ``share`` are hits has just this distribution.
    """
    tail, below, quantiles = (1 - level) / 2, 0.0, []
    for hits in range(n + 1):
        below += comb(n, hits) * share**hits * (1 - share) ** (n - hits)
        if len(quantiles) < 2 and below >= (tail, 1 - tail)[len(quantiles)]:
            quantiles.append(100 * hits / n)
    return quantiles[0], quantiles[1]
