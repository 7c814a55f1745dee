"""Paired significance tests of two methods over the cases that both were measured on.

The test is a sign-flip permutation test. If two methods are equally good, their results could be
exchanged in every case. So the signs of the cases' differences are flipped at random, and the
observed mean difference is compared with the means after flipping. All questions of a case flip
together, and a derived metric (Specificity: the mean of two parts) is recomputed from its flipped
parts.

p is (1 + flips at least as far from zero) / (1 + flips), so it is never smaller than
1 / (1 + flips). Where several methods are compared with one, :func:`holm` corrects for their
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.metrics import Derived, Suite

SAMPLES = 10_000
_BLOCK = 1_000_000  # signs at a time, so that memory stays small


@dataclass(frozen=True)
class Paired:
    """The first method minus the second, in percentage points, over ``n`` common cases.

    Attributes:
        interval: 95 % percentile interval of a paired bootstrap.
        p: two-sided, uncorrected.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    n: int

    def swapped(self) -> Paired:
        """The second minus the first."""
        low, high = self.interval
        return Paired(-self.difference, (-high, -low), self.p, self.n)


Cases = Mapping[str, Mapping[str, float | None]]  # metrics by case id, in percent


def paired_tests(
    suite: Suite,
    methods: Sequence[Cases],
    pairs: Sequence[tuple[int, int]],
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    bootstrap: int = 1000,
) -> dict[tuple[int, int], dict[str, Paired]]:
    """Test pairs of methods on every metric of ``suite``.

    Args:
        methods: the cases of each method.
        pairs: indices into ``methods``.
        seed, samples, bootstrap: of the permutations and the interval.

    Returns:
        For each pair the metrics that both have in at least one common case.
    """
    ids = sorted(set().union(*methods)) if methods else []
    if not ids or not pairs:
        return {pair: {} for pair in pairs}
    basic = [metric.name for metric in suite.metrics]
    values = np.array(
        [[[_number(cases, i, name) for name in basic] for i in ids] for cases in methods]
    )  # [methods, cases, metrics], NaN where there is none
    first, second = (list(side) for side in zip(*pairs, strict=True))
    differences = values[first] - values[second]  # [pairs, cases, metrics]
    present = ~np.isnan(differences)
    flat = np.moveaxis(np.where(present, differences, 0.0), 0, 1).reshape(len(ids), -1)
    there = np.moveaxis(present, 0, 1).reshape(len(ids), -1).astype(float)
    shape = (-1, len(pairs), len(basic))
    observed = _with_derived(suite, _ratio(flat.sum(0), there.sum(0)).reshape(shape))[0]
    beyond = np.zeros_like(observed)
    rng = np.random.default_rng(seed)
    for size in _blocks(samples, len(ids)):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(size, len(ids)))
        flipped = _with_derived(suite, _ratio(signs @ flat, there.sum(0)).reshape(shape))
        beyond += (np.abs(flipped) >= np.abs(observed) - 1e-9).sum(0)
    spread = []
    for size in _blocks(bootstrap, len(ids)):
        weights = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=size)
        drawn = _ratio(weights @ flat, weights @ there).reshape(shape)
        spread.append(_with_derived(suite, drawn))
    names = [*basic, *(derived.name for derived in suite.derived)]
    drawn = np.concatenate(spread)
    common = present.any(2).sum(1)
    tests: dict[tuple[int, int], dict[str, Paired]] = {}
    for at, pair in enumerate(pairs):
        tests[pair] = {}
        for place, name in enumerate(names):
            known = drawn[:, at, place][~np.isnan(drawn[:, at, place])]
            if np.isnan(observed[at, place]) or not len(known):
                continue
            low, high = np.percentile(known, [2.5, 97.5])
            p = (1 + beyond[at, place]) / (1 + samples)
            tests[pair][name] = Paired(
                float(observed[at, place]), (float(low), float(high)), float(p), int(common[at])
            )
    return tests


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be read together, in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def _number(cases: Cases, case: str, metric: str) -> float:
    value = cases.get(case, {}).get(metric)
    return float("nan") if value is None else float(value)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    count = np.broadcast_to(count, total.shape).astype(float)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _with_derived(suite: Suite, basic: np.ndarray) -> np.ndarray:
    """Means ``[..., M]`` of the basic metrics with those of the derived ones behind them."""
    names = [metric.name for metric in suite.metrics]

    def column(derived: Derived) -> np.ndarray:
        return np.mean([basic[..., names.index(part)] for part in derived.parts], axis=0)

    extra = [column(derived)[..., None] for derived in suite.derived]
    return np.concatenate([basic, *extra], axis=-1)


def _blocks(samples: int, cases: int) -> list[int]:
    """Sizes that add up to ``samples``, each with at most so many signs."""
    size = max(1, min(samples, _BLOCK // cases))
    whole, rest = divmod(samples, size)
    return [size] * whole + ([rest] if rest else [])
