"""Result tables, as Markdown for files and as a rich table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..core.environment import hardware_line
from .metrics import SUITES
from .scope_metrics import SHOWN

if TYPE_CHECKING:
    from rich.console import Console

RowLike = Mapping[str, Any]

SHORT = {  # for narrow terminals
    "reliability": "reliab.",
    "generality": "general.",
    "specificity": "specific.",
    "specificity_in": "spec. in",
    "specificity_out": "spec. out",
    "specificity_hard": "sp. hard",
    "scope_hard": "scope",
}
_SIDES = ("specificity_in", "specificity_out")

PROTOCOL_TEXT = {
    "generated": "greedy answers, exact match after normalisation",
    "teacher-forced": "token accuracy at the answer's positions, top-1",
    "released": "token accuracy; image locality over the top-10 ids rank by rank; "
    "generality against the target",
}


def columns(row: RowLike) -> list[str]:
    """The metrics that a table shows for this row, in the papers' order."""
    suite = SUITES.get(row.get("suite", "fgvedit"))
    return list(suite.columns) if suite else list(row["metrics"])


def shown(rows: Sequence[RowLike]) -> list[str]:
    """The columns of a table of ``rows``: with those of scope that were measured for one of them.

    Where all scope questions are hard, Specificity is that of the hard ones and stands once.
    """
    known = {name for row in rows for name, value in row["metrics"].items() if value is not None}
    further = [n for n in SHOWN if n in known and (n != SHOWN[1] or "specificity_easy" in known)]
    return [*columns(rows[0]), *further]


def cell(row: RowLike, metric: str, *, interval: bool = True) -> str:
    """A value with its interval, or a dash for what was not measured."""
    value = row["metrics"].get(metric)
    if value is None:
        return "-"
    bounds = (row.get("intervals") or {}).get(metric) if interval else None
    return f"{value:.1f} ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else f"{value:.1f}"


def groups(rows: Iterable[RowLike]) -> list[tuple[tuple[str, str, str, str], list[RowLike]]]:
    """Rows that may stand in one table: same backbone, dataset, protocol and suite."""

    def key(row: RowLike) -> tuple[str, str, str, str]:
        suite = row.get("suite", "fgvedit")
        return (row["backbone"], row["dataset"], row["protocol"], suite)

    order = list(dict.fromkeys(key(row) for row in rows))
    ranked = sorted(rows, key=lambda row: order.index(key(row)))
    return [(name, list(group)) for name, group in groupby(ranked, key=key)]


def title(key: Sequence[str], rows: Sequence[RowLike]) -> str:
    """The title of a table: backbone, data set, number of cases and protocol."""
    counts = sorted({row["n"] for row in rows})
    cases = " to ".join(str(n) for n in (counts[0], counts[-1])[: len(counts)])
    return f"{key[0]} on {key[1] or 'records'}, {cases} cases, {key[2]}"


def markdown(
    rows: Sequence[RowLike],
    env: Mapping[str, Any] | None = None,
    missing: Sequence[RowLike] = (),
) -> str:
    """All rows as Markdown tables; below them missing rows, the protocol and the hardware."""
    parts = []
    for key, members in groups(rows):
        names = shown(members)
        lines = [
            f"### {title(key, members)}",
            "",
            "| method | " + " | ".join(name.replace("_", " ") for name in names) + " | s |",
            "|---|" + "---|" * (len(names) + 1),
        ]
        for row in members:
            cells = [cell(row, name) for name in names]
            lines.append(f"| {row['method']} | {' | '.join(cells)} | {row['seconds']:.0f} |")
        parts.append("\n".join(lines))
    if missing:
        lines = ["Not completely measured:", "", "| method | backbone | data | | why |"]
        lines.append("|---|---|---|---|---|")
        for row in missing:
            why = " ".join(str(row["reason"]).split()).replace("|", "\\|")
            place = f"{row['method']} | {row['backbone']} | {row['dataset']}"
            lines.append(f"| {place} | {row['status']} | {why} |")
        parts.append("\n".join(lines))
    parts.append(footer(rows, env))
    return "\n\n".join(parts) + "\n"


def footer(
    rows: Sequence[RowLike], env: Mapping[str, Any] | None = None, *, intervals: bool = True
) -> str:
    """The notes below a table: units, protocol, hardware, seed and commit."""
    brackets = "; in brackets the 95 % bootstrap interval" if intervals else ""
    notes = [f"Percent, mean over cases{brackets}."]
    for name in dict.fromkeys(row["protocol"] for row in rows):
        notes.append(f"Protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}.")
    if env:
        commit = env.get("git_commit")
        notes.append(f"Hardware: {hardware_line(dict(env))}.")
        notes.append(f"Seed {env.get('seed')}; commit {str(commit)[:12] if commit else 'unknown'}.")
    return "  \n".join(notes)


def print_tables(
    console: Console,
    rows: Sequence[RowLike],
    env: Mapping[str, Any] | None = None,
    missing: Sequence[RowLike] = (),
) -> None:
    """Print all rows in the width of a terminal; below them missing rows and the hardware."""
    from rich.table import Table

    wide, full = console.width >= 118, console.width >= 190
    for key, members in groups(rows):
        table = Table(title=title(key, members), title_justify="left", title_style="bold")
        table.add_column("method", no_wrap=True)
        names = shown(members)
        if not wide:  # the sides go where the width is needed for more
            less = ("generality_target", *(_SIDES if set(names) & set(SHOWN) else ()))
            names = [name for name in names if name not in less]
        for name in names:
            heading = name if wide else SHORT.get(name, name)
            table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
        if wide:
            table.add_column("s", justify="right", style="dim")
        for row in members:
            cells = [cell(row, name, interval=full) for name in names]
            seconds = [f"{row['seconds']:.0f}"] if wide else []
            table.add_row(row["method"], *cells, *seconds)
        console.print(table)
    for row in missing:
        place = f"{row['method']} on {row['backbone']}, {row['dataset']}"
        console.print(f"{row['status']}: {place}: {row['reason']}", markup=False, soft_wrap=True)
    text = footer(rows, env, intervals=full).replace("  \n", "\n")
    console.print(text, style="dim", markup=False, soft_wrap=True)
