"""``easyedit-mm report``: runs as Markdown, LaTeX and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Images


def report(
    run: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, or their names below --runs; several are joined into one report."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; report/ inside the run by default.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    cases: Annotated[
        int, typer.Option(min=0, help="Number of cases of each data set that the page shows.")
    ] = 300,
    images: Images = None,
    log: Annotated[
        list[str] | None, typer.Option(help="Also log the metrics: tensorboard or wandb.")
    ] = None,
) -> None:
    """Write tables in the papers' layout, significance tests between methods, and an HTML page."""
    from rich.markup import escape

    from ..core.console import CONSOLE
    from ..core.loggers import check_loggers, open_loggers
    from ..report import write_report

    check_loggers(log or [])
    with CONSOLE.status("reading the runs ..."):
        written = write_report(run, out, root=runs, title=title, cases=cases, images=images)
    for source in written.report.sources if log else ():
        with open_loggers(log or [], source.path, config=source.run.config) as loggers:
            loggers.log_rows(source.run.make_rows())
    for note in written.report.notes:
        CONSOLE.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    for row in written.report.missing:
        place = f"{row['method']} on {row['backbone']}, {row['dataset']}"
        CONSOLE.print(f"{row['status']}: {place}: {row['reason']}", markup=False, soft_wrap=True)
    for path in (written.markdown, written.latex, written.page):
        size = path.stat().st_size
        shown = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
        CONSOLE.print(f"{path}  ({shown})", markup=False, soft_wrap=True, highlight=False)
