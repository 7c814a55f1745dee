"""``easyedit-mm show``: a run's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import show_run


def show(
    run: Annotated[str, typer.Argument(help="A run folder, or its name below runs/.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
) -> None:
    """Print the table of a run, finished or not."""
    from ..evaluation.runs import RunFolder, find_run

    opened = RunFolder.read(find_run(run, runs))
    show_run(
        opened, opened.rows() if (opened.path / "summary.json").exists() else opened.make_rows()
    )
