"""``easyedit-mm demo``: one edit shown, then 500 edits measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import resumable


def demo(
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the editors first, instead of using the shipped ones."),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=2, help="Number of test cases for each base model.")
    ] = 500,
    out: Annotated[Path | None, typer.Option(help="Run folder, runs/demo by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over.")] = False,
) -> None:
    """Show one edit of a small vision-language model, then measure 500 edits on two of them."""
    from .demo_run import run_demo

    with resumable():
        run_demo(out=out, limit=limit, train=train, overwrite=overwrite)
