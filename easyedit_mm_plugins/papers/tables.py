"""Tables of a paper with what was measured beside what is printed, for files and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.files import write_text
from ..evaluation.tables import SHORT

if TYPE_CHECKING:
    from rich.console import Console

# Base models of the papers, by the names they have here, and what the embedded ones stand for.
PAPERS_OWN = {
    "blip2": "blip2-opt",
    "blip2-hf": "blip2-opt",
    "minigpt4": "minigpt4",
    "llava": "llava-1.5",
}
STANDS_FOR = {
    "scenes-blip2": "blip2-opt",
    "scenes-minigpt4": "minigpt4",
    "scenes-llava": "llava-1.5",
}
_TITLES = {
    "blip2-opt": "BLIP-2 OPT",
    "minigpt4": "MiniGPT-4",
    "llava-1.5": "LLaVA-1.5",
}


@dataclass(frozen=True)
class Line:
    """One row of a block.

    Attributes:
        label: of the method or variant, as a reader knows it.
        values: measured, by metric; ``None`` or absent: not measured.
        intervals: of the values, low and high.
        paper: what the paper prints, by metric.
        note: why it was not measured.
    """

    label: str
    values: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float] | None] = field(default_factory=dict)
    paper: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Block:
    """The rows of one backbone; ``title`` says which, and whether it is the paper's."""

    title: str
    lines: Sequence[Line]


def papers_name(backbone: str) -> str | None:
    """The published backbone that ``backbone`` is or stands for, as ``published.json`` calls it."""
    return PAPERS_OWN.get(backbone) or STANDS_FOR.get(backbone)


def is_embedded(backbone: str) -> bool:
    """Whether ``backbone`` is not one of the papers' base models."""
    return backbone not in PAPERS_OWN


def block_title(backbone: str, *, printed: bool = True) -> str:
    """A block's title: the paper's own base model, or an embedded one and what it stands for.

    Args:
        printed: whether the paper has numbers for it in this table.
    """
    papers = papers_name(backbone)
    if not is_embedded(backbone):
        return f"{backbone} (the paper's {_TITLES[papers or '']})"
    if papers is None or not printed:
        return f"{backbone} (embedded; the paper has no such base model)"
    return f"{backbone} (embedded; the paper's is {_TITLES[papers]}, another model and other data)"


def heading(metric: str) -> str:
    """A metric's name as a column shows it."""
    return metric.replace("_", " ").capitalize()


def _value(line: Line, metric: str, decimals: int) -> str:
    value = line.values.get(metric)
    return "-" if value is None else f"{value:.{decimals}f}"


def _printed(line: Line, metric: str) -> str:
    value = line.paper.get(metric)
    return "-" if value is None else f"{value:g}"


def _interval(line: Line, metric: str, decimals: int) -> str:
    bounds = line.intervals.get(metric)
    if line.values.get(metric) is None or not bounds:
        return ""
    return f" ({bounds[0]:.{decimals}f} to {bounds[1]:.{decimals}f})"


def markdown(
    title: str,
    metrics: Sequence[str],
    blocks: Iterable[Block],
    notes: Iterable[str] = (),
    *,
    decimals: int = 1,
    first: str = "method",
) -> str:
    """The table as Markdown: for each metric what was measured and, if printed, the paper's."""
    parts = [f"## {title}"]
    for block in blocks:
        paper = any(line.paper for line in block.lines)
        names = [n for m in metrics for n in ((heading(m), "paper") if paper else (heading(m),))]
        lines = [
            f"### {block.title}",
            "",
            f"| {first} | " + " | ".join(names) + " |",
            "|---|" + "---:|" * len(names),
        ]
        for line in block.lines:
            cells = []
            for metric in metrics:
                cells.append(_value(line, metric, decimals) + _interval(line, metric, decimals))
                cells += [_printed(line, metric)] if paper else []
            lines.append(f"| {line.label} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
        missing = [f"- {line.label}: {line.note}" for line in block.lines if line.note]
        if missing:
            parts.append("Not measured:\n\n" + "\n".join(missing))
    listed = "\n".join(f"- {note}" for note in notes)
    return "\n\n".join([*parts, *([listed] if listed else [])]) + "\n"


def show(
    console: Console,
    title: str,
    metrics: Sequence[str],
    blocks: Iterable[Block],
    notes: Iterable[str] = (),
    *,
    decimals: int = 1,
    first: str = "method",
) -> None:
    """The same on a terminal, the paper's numbers in brackets."""
    from rich.table import Table

    console.print(f"[bold]{title}[/]")
    for block in blocks:
        paper = any(line.paper for line in block.lines)
        title = f"{block.title}{'; in brackets the paper' if paper else ''}"
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column(first, no_wrap=True)
        for metric in metrics:
            name = heading(metric) if console.width >= 100 else SHORT.get(metric, heading(metric))
            table.add_column(name, justify="right", no_wrap=True)
        for line in block.lines:
            cells = []
            for metric in metrics:
                printed = f" [dim]({_printed(line, metric)})[/]" if metric in line.paper else ""
                cells.append(_value(line, metric, decimals) + printed)
            table.add_row(line.label, *cells)
        console.print(table)
        for line in block.lines:
            if line.note:
                console.print(f"{line.label}: {line.note}", markup=False, soft_wrap=True)
    for note in notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)


def write_table(
    folder: Path,
    title: str,
    metrics: Sequence[str],
    blocks: Sequence[Block],
    notes: Sequence[str] = (),
    *,
    decimals: int = 1,
    first: str = "method",
) -> None:
    """Write ``table.md`` into the run's folder and print the table."""
    from ..core.console import CONSOLE

    options = {"decimals": decimals, "first": first}
    write_text(folder / "table.md", markdown(title, metrics, blocks, notes, **options))
    show(CONSOLE, title, metrics, blocks, notes, **options)
