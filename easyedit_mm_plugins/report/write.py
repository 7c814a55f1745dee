"""Writes the three forms of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import write_text
from .latex import write_latex
from .markdown import write_markdown
from .page import write_page
from .sources import Report, collect


@dataclass(frozen=True)
class Written:
    """Where a report landed, and what it is made of."""

    report: Report
    markdown: Path
    latex: Path
    page: Path


def write_report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    root: str | Path = "runs",
    title: str | None = None,
    cases: int | None = 300,
    images: str | Path | None = None,
) -> Written:
    """Write ``report.md``, ``report.tex`` and ``report.html``.

    Args:
        runs: run folders or their names below ``root``; a folder of run folders stands for all.
        out: folder; by default ``report/`` inside the run, or ``root``/report for several runs.
        title: of the report; by default the runs' names.
        cases: so many cases of each data set can be looked at in the page; ``None``: all.
        images: folder that image paths of the runs are relative to, where they are not found.

    Raises:
        RunError: see :func:`collect`. EasyEditMMError: the folder cannot be written.
    """
    report = collect(runs, root)
    title = title or f"Editing report: {', '.join(source.name for source in report.sources)}"
    single = len(report.sources) == 1
    folder = Path(out) if out else (report.sources[0].path if single else Path(root)) / "report"
    written = Written(report, folder / "report.md", folder / "report.tex", folder / "report.html")
    write_text(written.markdown, write_markdown(report, title))
    write_text(written.latex, write_latex(report, title))
    write_text(written.page, write_page(report, title, limit=cases, images=images))
    return written
