"""``easyedit-mm scenes``: the scenes benchmark as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def scenes(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = Path("data/scenes"),
    train: Annotated[int | None, typer.Option(min=2, help="Number of training records.")] = None,
    test: Annotated[int | None, typer.Option(min=2, help="Number of test records.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the generated scenes.")] = 0,
) -> None:
    """Write the scenes benchmark: PNG images and records in the released FGVEdit schema."""
    from ..core.console import CONSOLE
    from ..scenes import records

    n_train = records.N_TRAIN if train is None else train
    n_test = records.N_TEST if test is None else test
    with CONSOLE.status("drawing scenes ..."):
        files = records.write_scenes(folder, n_train, n_test, seed)
    for path in (files.train, files.test, files.images):
        print(path)
