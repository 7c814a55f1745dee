"""``easyedit-mm demo``: one edit to look at, then 500 to count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import resumable


def demo(
    train: Annotated[bool, typer.Option("--train", help="Train the editors first.")] = False,
    limit: Annotated[int, typer.Option(min=2, help="Cases per backbone.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Run folder, runs/demo by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over.")] = False,
) -> None:
    """Edit two small vision-language models before your eyes, then measure 500 edits."""
    from .demo_run import run_demo

    with resumable():
        run_demo(out=out, limit=limit, train=train, overwrite=overwrite)
