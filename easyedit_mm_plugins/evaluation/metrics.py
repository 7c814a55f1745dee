"""The papers' metrics, one place per equation.

Every question of a case is judged once (:class:`Judged`): how far the edited model's answer equals
the target, the unedited model's answer, and the edited model's own answer to the edit, each in
[0, 1]. A metric reads one of these three from the questions of one kind. The value of a case is
the mean over its questions, the value of a run the mean over its cases, so that a case with many
questions weighs no more than another.

A case without a question of a kind has no value for that metric (``None``); it counts neither as
right nor as wrong. A derived metric, such as Specificity (MSCKE eq. 12), is the mean of its parts'
values: over a run these are the parts' means, each over the cases that have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.errors import UnknownNameError
from ..core.registry import did_you_mean


@dataclass(frozen=True)
class Judged:
    """One answered question of kind ``kind``; each agreement lies in [0, 1].

    Attributes:
        target: the edited model's answer against the question's target, I[f_e(x) = y].
        before: against the unedited model's answer to the same question, I[f_e(x) = f(x)].
        edit: against the edited model's answer to the edit itself, I[f_e(x) = f_e(x_e)].
        hard, sort: of a scope question, see :class:`Question`; ``hard`` is ``None`` where nobody
            says.
        routed: whether it was routed to an edit (in scope: to the case's own); ``None``: the method
            does not route.
    """

    kind: str
    target: float
    before: float
    edit: float
    hard: bool | None = None
    sort: str = ""
    routed: bool | None = None


@dataclass(frozen=True)
class Metric:
    """The mean of one agreement over the questions of one kind."""

    name: str
    kind: str
    against: Literal["target", "before", "edit"]
    source: str

    def of(self, judged: Iterable[Judged]) -> float | None:
        """The value for one case in [0, 1], or ``None`` if it has no such question."""
        values = [getattr(j, self.against) for j in judged if j.kind == self.kind]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True)
class Derived:
    """The mean of other metrics; missing as soon as one part is missing."""

    name: str
    parts: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Suite:
    """The metrics that belong together, in the order in which tables show them."""

    name: str
    metrics: tuple[Metric, ...]
    derived: tuple[Derived, ...] = ()
    columns: tuple[str, ...] = ()
    further: tuple[Metric, ...] = ()  # measured where the records have such questions

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of questions that must be asked, without repetition."""
        return tuple(dict.fromkeys(metric.kind for metric in (*self.metrics, *self.further)))

    @property
    def names(self) -> list[str]:
        """All metric names: first the table's columns, then the rest."""
        known = [m.name for m in self.metrics] + [d.name for d in self.derived]
        return list(dict.fromkeys([*self.columns, *known]))


RELIABILITY = Metric("reliability", "edit", "target", "MSCKE eq. 15")

FGVEDIT = Suite(
    "fgvedit",
    (
        RELIABILITY,
        Metric("generality", "rephrase", "edit", "MSCKE eq. 17"),
        Metric("generality_target", "rephrase", "target", "the release's form of eq. 17"),
        Metric("locality", "text_loc", "before", "MSCKE eq. 16"),
        Metric("specificity_in", "in_scope", "target", "MSCKE eq. 13"),
        Metric("specificity_out", "out_scope", "before", "MSCKE eq. 14"),
    ),
    (Derived("specificity", ("specificity_in", "specificity_out"), "MSCKE eq. 12"),),
    (
        "reliability",
        "generality",
        "locality",
        "specificity",
        "specificity_in",
        "specificity_out",
        "generality_target",
    ),
)

EVQA = Suite(
    "evqa",
    (
        RELIABILITY,
        Metric("t_gen", "rephrase", "target", "DualEdit section 3.1"),
        Metric("v_gen", "image_rephrase", "target", "DualEdit section 3.1"),
        Metric("t_loc", "text_loc", "before", "DualEdit section 3.1"),
        Metric("m_loc", "image_loc", "before", "DualEdit section 3.1"),
    ),
    (Derived("average", ("reliability", "t_gen", "v_gen", "t_loc", "m_loc"), "DualEdit table 2"),),
    ("reliability", "t_gen", "v_gen", "t_loc", "m_loc", "average"),
    (
        Metric("v_gen_far", "image_far", "target", "ours: V-Gen on pictures that differ more"),
        Metric("m_loc_near", "image_near", "before", "ours: M-Loc where one thing differs"),
    ),
)

# Of one edit among many in force; asked by ``easyedit-mm reproduce lifelong``.
LIFELONG = Suite(
    "lifelong",
    (
        *FGVEDIT.metrics,
        Metric("redrawn", "image_rephrase", "target", "ours: reworded and redrawn at once"),
        Metric("other_picture", "image_loc", "before", "ours: the edit's question elsewhere"),
    ),
    FGVEDIT.derived,
    (
        "reliability",
        "generality",
        "locality",
        "specificity_in",
        "specificity_out",
        "redrawn",
        "other_picture",
    ),
)

SUITES = {suite.name: suite for suite in (FGVEDIT, EVQA, LIFELONG)}


def suite_named(name: str) -> Suite:
    """The suite called ``name``; raises :class:`UnknownNameError` with the nearest names."""
    if name not in SUITES:
        raise UnknownNameError(f"unknown metric suite {name!r}; {did_you_mean(name, [*SUITES])}")
    return SUITES[name]


def case_values(suite: Suite, judged: Sequence[Judged]) -> dict[str, float | None]:
    """The metrics of one case in percent; ``None`` where the case has no question for one."""
    values: dict[str, float | None] = {}
    for metric in suite.metrics:
        value = metric.of(judged)
        values[metric.name] = None if value is None else 100.0 * value
    for derived in suite.derived:
        parts = [value for part in derived.parts if (value := values[part]) is not None]
        whole = len(parts) == len(derived.parts)
        values[derived.name] = float(np.mean(parts)) if whole else None
    return {name: values[name] for name in suite.names}


def summarise(
    suite: Suite,
    cases: Sequence[Mapping[str, float | None]],
    *,
    seed: int = 0,
    samples: int = 1000,
    level: float = 0.95,
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Means over cases, in percent, and their percentile bootstrap intervals.

    Cases are drawn with replacement, the same draws for every metric, so a derived metric's
    interval reflects how its parts vary together.

    Args:
        cases: per case the values of :func:`case_values`.
        seed, samples, level: of the bootstrap.

    Returns:
        ``(metrics, intervals)``; both hold ``None`` for a metric that no case has.
    """
    basic = [metric.name for metric in suite.metrics]
    table = np.array([[case.get(name) for name in basic] for case in cases], dtype=float)
    table = table.reshape(len(cases), len(basic))
    draws = _bootstrap_means(table, seed, samples)
    means = dict(zip(basic, _means(np.ones((1, len(cases))), table)[0], strict=True))
    spread = dict(zip(basic, draws.T, strict=True))
    for derived in suite.derived:
        means[derived.name] = np.mean([means[part] for part in derived.parts])
        spread[derived.name] = np.mean([spread[part] for part in derived.parts], axis=0)
    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float] | None] = {}
    tail = 50 * (1 - level)
    for name in suite.names:
        known = spread[name][~np.isnan(spread[name])]
        missing = np.isnan(means[name]) or not len(known)
        metrics[name] = None if missing else float(means[name])
        intervals[name] = (
            None if missing else [float(x) for x in np.percentile(known, [tail, 100 - tail])]
        )
    return metrics, intervals


def _means(weights: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Weighted column means [S, M] of ``table`` [N, M] under ``weights`` [S, N], skipping NaN."""
    present = ~np.isnan(table)
    total = weights @ np.where(present, table, 0.0)
    count = weights @ present.astype(float)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _bootstrap_means(table: np.ndarray, seed: int, samples: int) -> np.ndarray:
    """Column means [samples, M] of resampled rows; blocks keep the memory small."""
    cases = len(table)
    if not cases:
        return np.full((samples, table.shape[1]), np.nan)
    rng = np.random.default_rng(seed)
    block = max(1, min(samples, 4_000_000 // cases))
    means = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        weights = rng.multinomial(cases, np.full(cases, 1 / cases), size=size).astype(float)
        means.append(_means(weights, table))
    return np.concatenate(means)
