"""The numbers that both papers print, as data: ``published.json`` and how to look one up.

Names are this package's: methods "ft-llm", "mscke-mend" ..., backbones "blip2-opt", "minigpt4" and
"llava-1.5", data sets "fgvedit", "e-vqa" and "e-ic", metrics as in ``evaluation.metrics``. Rows of
an ablation differ in their ``variant``, such as ``{"fusion": "concatenation"}``. Where a paper
contradicts itself, the table's notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..core.errors import UnknownNameError
from ..core.files import read_json
from ..core.registry import did_you_mean

_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
        paper: "mscke" or "dualedit".
        table: "mscke-table1" ... "mscke-table4", "dualedit-table1" ... "dualedit-figure5".
        printed: the row's label in the paper, where it is not the method's name here.
        variant: what tells rows of one method apart; empty in the main tables.
        unit: "%", "ms" or "GB".
    """

    paper: str
    table: str
    backbone: str
    dataset: str
    method: str
    metric: str
    value: float
    printed: str
    unit: str = "%"
    variant: Mapping[str, Any] = field(default_factory=dict, hash=False)


@lru_cache(maxsize=1)
def content() -> dict[str, Any]:
    """The whole of ``published.json``: papers, backbones, data sets and tables with their notes."""
    return read_json(_FILE)


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """Every number, table by table in the order of print."""
    return tuple(
        Published(
            table["paper"],
            table["id"],
            row["backbone"],
            row["dataset"],
            row["method"],
            metric,
            float(value),
            row.get("printed", row["method"]),
            table.get("units", {}).get(metric, "%"),
            row.get("variant", {}),
        )
        for table in content()["tables"]
        for row in table["rows"]
        for metric, value in zip(table["metrics"], row["values"], strict=True)
    )


def find(
    table: str | None = None,
    *,
    backbone: str | None = None,
    dataset: str | None = None,
    method: str | None = None,
    metric: str | None = None,
    **variant: Any,
) -> list[Published]:
    """All numbers that have these properties. Methods may be written with ``_``.

    Raises:
        UnknownNameError: a name that neither paper prints; offers the nearest.
    """
    wanted = {
        "table": table,
        "backbone": backbone,
        "dataset": dataset,
        "method": method and method.lower().replace("_", "-"),
        "metric": metric,
    }
    numbers = list(published())
    for name, value in wanted.items():
        if value is None:
            continue
        known = list(dict.fromkeys(getattr(number, name) for number in numbers))
        if value not in known:
            everywhere = list(dict.fromkeys(getattr(number, name) for number in published()))
            if value in everywhere:
                return []
            raise UnknownNameError(
                f"no published {name} {value!r}; {did_you_mean(str(value), everywhere)}"
            )
        numbers = [number for number in numbers if getattr(number, name) == value]
    missing = object()
    return [
        number
        for number in numbers
        if all(number.variant.get(key, missing) == value for key, value in variant.items())
    ]


def printed(table: str, *, backbone: str | None, **which: Any) -> dict[str, float | None]:
    """A row of ``table``: its numbers by metric; empty where the paper has no such row.

    Raises:
        UnknownNameError: as :func:`find`.
    """
    if backbone is None or which.get("method") == "unedited":
        return {}
    return {n.metric: n.value for n in find(table, backbone=backbone, **which)}


def value(
    table: str,
    backbone: str,
    method: str,
    metric: str,
    *,
    dataset: str | None = None,
    **variant: Any,
) -> float | None:
    """The one number of ``table`` that fits, or ``None`` if it prints none.

    Raises:
        UnknownNameError: a name that neither paper prints, or several rows fit; the message says
            how they differ.
    """
    found = find(table, backbone=backbone, method=method, metric=metric, dataset=dataset, **variant)
    if len(found) > 1:
        rows = "; ".join(f"{n.dataset} {dict(n.variant) or ''}".strip() for n in found)
        raise UnknownNameError(
            f"{table} has {len(found)} rows of {method} on {backbone}: {rows}",
            remedy="give dataset=, or a keyword of its variant",
        )
    return found[0].value if found else None


def notes(table: str) -> list[str]:
    """What is odd about a table: contradictions inside the paper, what it leaves unsaid.

    Raises:
        UnknownNameError: no such table; offers the nearest.
    """
    known = {entry["id"]: entry for entry in content()["tables"]}
    if table not in known:
        raise UnknownNameError(f"no published table {table!r}; {did_you_mean(table, list(known))}")
    return list(known[table]["notes"])
