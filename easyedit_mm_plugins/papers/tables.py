"""Tables of a paper with what was measured beside what is printed, for files and terminals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backbones.entries import BACKBONES
from ..core.console import CONSOLE
from ..core.environment import hardware_line
from ..core.errors import RunError
from ..core.files import write_text
from ..evaluation.tables import PROTOCOL_TEXT, SHORT
from ..methods.entries import METHODS
from ..recipes.job import is_embedded
from . import published

if TYPE_CHECKING:
    from rich.console import Console

    from ..evaluation import RunFolder

# The papers' base models that the embedded ones have the architecture of, and their titles.
STANDS_FOR = {
    "scenes-blip2": "blip2-opt",
    "scenes-minigpt4": "minigpt4",
    "scenes-llava": "llava-1.5",
}
TITLES = {"blip2-opt": "BLIP-2 OPT", "minigpt4": "MiniGPT-4", "llava-1.5": "LLaVA-1.5"}
INTERVAL = "in brackets the 95 % bootstrap interval"


class NothingMeasured(RunError):
    """No case of an experiment could be measured; the reasons were printed before."""


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

    @classmethod
    def of(
        cls,
        label: str,
        row: Mapping[str, Any] | None,
        paper: Mapping[str, float | None] | None = None,
        note: str = "",
    ) -> Line:
        """The line of a run's row; ``note`` says why there is none."""
        if row is None:
            return cls(label, paper=paper or {}, note=note)
        return cls(label, row["metrics"], row["intervals"], paper or {})


@dataclass(frozen=True)
class Block:
    """The rows of one backbone; ``title`` names it and says whether it is the paper's."""

    title: str
    lines: Sequence[Line]


def papers_name(backbone: str) -> str | None:
    """The published backbone that ``backbone`` is or stands for, as ``published.json`` calls it."""
    own = BACKBONES.get(backbone).paper if backbone in BACKBONES else None
    return own or STANDS_FOR.get(backbone)


def is_papers_own(backbone: str) -> bool:
    """Whether ``backbone`` is one of the papers' base models, not one that stands for it."""
    return papers_name(backbone) is not None and backbone not in STANDS_FOR


def with_kind(backbone: str) -> str:
    """The backbone's name, with "(embedded)" if it is."""
    return f"{backbone} (embedded)" if is_embedded(backbone) else backbone


def block_title(backbone: str, *, printed: bool = True) -> str:
    """A block's title: the paper's own base model, or an embedded one and what it stands for.

    Args:
        printed: whether the paper has numbers for it in this table.
    """
    papers = papers_name(backbone)
    if is_papers_own(backbone):
        return f"{backbone} (the paper's {TITLES[papers or '']})"
    kind = "embedded; " if is_embedded(backbone) else ""
    if papers is None or not printed:
        return f"{backbone} ({kind}the paper has no such base model)"
    return f"{backbone} ({kind}the paper's is {TITLES[papers]}, another model and other data)"


def method_label(method: str) -> str:
    """A method's title; the unedited model is no method and stays in small letters."""
    return method if method == "unedited" else METHODS.get(method).title


def method_lines(
    run: RunFolder,
    backbone: str,
    labels: Mapping[str, str],
    printed: Callable[..., Mapping[str, float | None]],
) -> list[Line]:
    """A line for each method of ``labels``; what failed says why.

    Args:
        printed: called with ``method=``; gives what the paper prints for it.
    """
    rows = {row["method"]: row for row in run.rows() if row["backbone"] == backbone}
    failed = {m["method"]: m["reason"] for m in run.status.missing() if m["backbone"] == backbone}
    return [
        Line.of(label, rows.get(m), printed(method=m), failed.get(m, "not measured yet"))
        for m, label in labels.items()
    ]


# Notes below a table --------------------------------------------------------------------------


def protocol_of(run: RunFolder) -> str:
    """The name of the run's protocol."""
    return (run.config.get("protocol") or {}).get("name", "")


def protocol_note(name: str) -> str:
    """How a protocol measures."""
    return f"Protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}."


def paper_notes(table: str) -> list[str]:
    """What is odd about the paper's table."""
    return [f"The paper: {note}" for note in published.notes(table)]


def run_note(where: object, environment: dict[str, Any], what: str = "Run") -> str:
    """Where the run lies and what it ran on."""
    return f"{what}: {where}; {hardware_line(environment)}." if environment else f"{what}: {where}."


def heading(metric: str) -> str:
    """A metric's name as a column shows it."""
    return metric.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Table:
    """A table with notes below it.

    Attributes:
        metrics: the columns.
        decimals: of measured values; printed ones stand as the paper has them.
        first: the heading of the column of labels.
        names: headings of metrics, where they are others than usual.
    """

    title: str
    metrics: Sequence[str]
    blocks: Sequence[Block]
    notes: Sequence[str] = ()
    decimals: int = 1
    first: str = "method"
    names: Mapping[str, str] = field(default_factory=dict)

    def _measured(self, line: Line, metric: str) -> str:
        value = line.values.get(metric)
        return "-" if value is None else f"{value:.{self.decimals}f}"

    def _interval(self, line: Line, metric: str) -> str:
        bounds = line.intervals.get(metric)
        if line.values.get(metric) is None or not bounds:
            return ""
        return " ({:.{d}f} to {:.{d}f})".format(*bounds, d=self.decimals)

    def markdown(self) -> str:
        """For each metric what was measured and, if the paper prints it, the paper's number."""
        parts = [f"## {self.title}"]
        for block in self.blocks:
            paper = any(line.paper for line in block.lines)
            names = [
                name
                for metric in self.metrics
                for shown in [self.names.get(metric, heading(metric))]
                for name in ((shown, "paper") if paper else (shown,))
            ]
            lines = [
                f"### {block.title}",
                "",
                f"| {self.first} | " + " | ".join(names) + " |",
                "|---|" + "---:|" * len(names),
            ]
            for line in block.lines:
                cells = []
                for metric in self.metrics:
                    cells.append(self._measured(line, metric) + self._interval(line, metric))
                    cells += [_printed(line, metric)] if paper else []
                lines.append(f"| {line.label} | {' | '.join(cells)} |")
            parts.append("\n".join(lines))
            missing = [f"- {line.label}: {line.note}" for line in block.lines if line.note]
            if missing:
                parts.append("Not measured:\n\n" + "\n".join(missing))
        listed = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join([*parts, *([listed] if listed else [])]) + "\n"

    def show(self, console: Console) -> None:
        """The same on a terminal, the paper's numbers in brackets."""
        from rich.table import Table as RichTable

        console.print(f"[bold]{self.title}[/]")
        for block in self.blocks:
            paper = any(line.paper for line in block.lines)
            title = f"{block.title}{'; in brackets the paper' if paper else ''}"
            table = RichTable(title=title, title_justify="left", title_style="bold")
            table.add_column(self.first, no_wrap=True)
            for metric in self.metrics:
                name = heading(metric)
                name = name if console.width >= 100 else SHORT.get(metric, name)
                name = self.names.get(metric, name)
                table.add_column(name, justify="right", no_wrap=True)
            for line in block.lines:
                cells = [
                    self._measured(line, m)
                    + (f" [dim]({_printed(line, m)})[/]" if m in line.paper else "")
                    for m in self.metrics
                ]
                table.add_row(line.label, *cells)
            console.print(table)
            for line in block.lines:
                if line.note:
                    console.print(f"{line.label}: {line.note}", markup=False, soft_wrap=True)
        for note in self.notes:
            console.print(note, style="dim", markup=False, soft_wrap=True)

    def write(self, folder: Path) -> None:
        """Write ``table.md`` into the run's folder and print the table.

        Raises:
            NothingMeasured: no row has a value.
        """
        lines = [line for block in self.blocks for line in block.lines]
        if all(value is None for line in lines for value in line.values.values()):
            raise NothingMeasured(
                f"{self.title}: no case was measured, so there is no table",
                remedy="mend what the notes above say, and start the same command again",
            )
        write_text(folder / "table.md", self.markdown())
        self.show(CONSOLE)


def _printed(line: Line, metric: str) -> str:
    value = line.paper.get(metric)
    return "-" if value is None else f"{value:g}"
