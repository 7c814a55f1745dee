"""Metrics of scope: hard and easy questions apart, each sort of question, and the routes.

The *hard* questions (:attr:`Question.hard`) are those whose texts do not tell the scope.
Specificity is counted over them, over the others, and over each sort of question that the data set
names (:attr:`Question.sort`). *Routing accuracy* (``scope_hard`` and so on) is about no answer: a
question in scope must be routed to the case's own edit, one out of scope to no edit. It is the mean
of both shares, so that routing everything, or nothing, gets 50 %. Methods that do not route have
none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from .metrics import Derived, Judged, Metric, Suite

SHOWN = ("scope_hard", "specificity_hard")  # beside a suite's own columns, where they were measured
_Against: TypeAlias = Literal["target", "before", "edit"]
_SPECIFICITY: tuple[tuple[str, str, _Against, str], ...] = (
    ("in", "in_scope", "target", "MSCKE eq. 13"),
    ("out", "out_scope", "before", "MSCKE eq. 14"),
)


@dataclass(frozen=True)
class ScopeMetric(Metric):
    """The mean over some of the questions of one side.

    Attributes:
        label: "hard", "easy", or a sort of questions.
        routes: it is about routes and not about answers.
    """

    label: str = ""
    routes: bool = False

    def of(self, judged: Iterable[Judged]) -> float | None:
        """The value for one case in [0, 1], or ``None`` if it has no such question."""
        mine = [j for j in judged if j.kind == self.kind and self.label in _labels(j)]
        if not self.routes:
            return super().of(mine)
        right = [j.routed is (self.kind == "in_scope") for j in mine if j.routed is not None]
        return float(np.mean(right)) if right else None


def with_scopes(suite: Suite, judged: Iterable[Judged]) -> Suite:
    """``suite``, and its further metrics and those of scope for what there is among ``judged``.

    For each label ("hard", "easy", a sort of questions): ``specificity_hard_in``,
    ``specificity_hard_out`` and their mean ``specificity_hard``; where the method routes, also
    ``scope_hard_in``, ``scope_hard_out`` and ``scope_hard``.
    """
    judged = list(judged)
    kinds = {j.kind for j in judged}
    sides = {kind for _, kind, *_ in _SPECIFICITY} & set(suite.kinds)
    mine = [j for j in judged if j.kind in sides]
    labels = {label for j in mine for label in _labels(j)}
    routed = {label for j in mine if j.routed is not None for label in _labels(j)}
    metrics = [*suite.metrics, *(m for m in suite.further if m.kind in kinds)]
    derived, taken = list(suite.derived), set(suite.names)
    for label in sorted(labels, key=lambda x: (x != "hard", x != "easy", x)):
        for name, routes in (("specificity", False), ("scope", True)):
            whole = f"{name}_{label}"
            parts = [
                ScopeMetric(f"{whole}_{side}", kind, against, source, label, routes)
                for side, kind, against, source in _SPECIFICITY
            ]
            names = {whole, *(part.name for part in parts)}
            if (routes and label not in routed) or names & taken:
                continue
            metrics += parts
            derived.append(Derived(whole, (parts[0].name, parts[1].name), "MSCKE eq. 12"))
            taken |= names
    return replace(suite, metrics=tuple(metrics), derived=tuple(derived))


def _labels(judged: Judged) -> tuple[str, ...]:
    hard = () if judged.hard is None else ("hard" if judged.hard else "easy",)
    sort = "_".join(judged.sort.lower().split())
    return (*hard, sort) if sort and sort not in hard else hard
