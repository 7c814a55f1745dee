"""Tables of a paper with what was measured beside what is printed, for files and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_text

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
    return f"{backbone} (embedded; beside it the paper's {_TITLES[papers]}, another model and data)"


def heading(metric: str) -> str:
    """A metric's name as a column shows it."""
    return metric.replace("_", " ").capitalize()


def _cells(line: Line, metrics: Sequence[str], paper: bool, decimals: int, wide: bool) -> list[str]:
    cells = []
    for metric in metrics:
        value, bounds = line.values.get(metric), line.intervals.get(metric)
        text = "-" if value is None else f"{value:.{decimals}f}"
        if wide and value is not None and bounds:
            text += f" ({bounds[0]:.{decimals}f} to {bounds[1]:.{decimals}f})"
        cells.append(text)
        if paper:
            printed = line.paper.get(metric)
            cells.append("-" if printed is None else f"{printed:g}")
    return cells


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
            cells = _cells(line, metrics, paper, decimals, wide=True)
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
    """The same on a terminal."""
    from rich.table import Table

    console.print(f"[bold]{title}[/]")
    for block in blocks:
        paper = any(line.paper for line in block.lines)
        table = Table(title=block.title, title_justify="left", title_style="bold")
        table.add_column(first, no_wrap=True)
        for metric in metrics:
            table.add_column(heading(metric), justify="right", no_wrap=True)
            if paper:
                table.add_column("paper", justify="right", style="dim", no_wrap=True)
        for line in block.lines:
            cells = _cells(line, metrics, paper, decimals, wide=console.width >= 150)
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
    from ..console import CONSOLE

    options = {"decimals": decimals, "first": first}
    write_text(folder / "table.md", markdown(title, metrics, blocks, notes, **options))
    show(CONSOLE, title, metrics, blocks, notes, **options)
