"""``easyedit-mm reproduce``: the papers' tables and figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ConfigError
from .options import AllowOutside, Device, DType, Images, resumable


def reproduce(
    name: Annotated[str, typer.Argument(help="The experiment (see 'list experiments').")],
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Base model, repeatable; by default the embedded ones."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="scenes, a JSON file in FGVEdit's schema, or NAME:PATH.")
    ] = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of test cases, from the first on.")
    ] = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train the editors first, instead of using the shipped ones."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder, runs/NAME by default.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what is measured, and start over.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option(help="generated, teacher-forced or released.")
    ] = None,
    editors: Annotated[
        Path | None, typer.Option(help="Folder of trained editors, METHOD-BACKBONE each.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this row, repeatable (lifelong)."),
    ] = None,
    edits: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Edits in force, repeatable; by default 1 to 10,000 (lifelong)."),
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Measure a table or figure of the papers; the same command resumes one that was stopped.

    Exit code 1: no case could be measured, so there is no table.
    """
    from ..backbones import check_backbones
    from ..core.console import show_error
    from ..papers import CHOOSES_ROWS, EXPERIMENTS, FULL_SIZE, ExperimentSettings
    from ..papers.tables import NothingMeasured

    EXPERIMENTS.check(name)  # before its module is imported
    for given in (b for b in backbone or [] if b != FULL_SIZE):
        check_backbones(given if os.path.isdir(given) else given.partition("=")[0])
    if (method or edits) and EXPERIMENTS.key(name) not in CHOOSES_ROWS:
        raise ConfigError(f"{name} takes no --method and no --edits", remedy="leave them out")
    if editors is not None and not os.path.isdir(editors):
        raise ConfigError(f"--editors {editors} is not a folder")
    run = EXPERIMENTS.get(name)
    settings = ExperimentSettings(
        name=EXPERIMENTS.key(name),
        backbones=backbone or [],
        data=data,
        images=images,
        allow_outside=allow_outside,
        limit=limit,
        train=train,
        out=out,  # type: ignore[arg-type]  # None: the default
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        protocol=protocol,
        editors=editors,
        methods=method or [],
        edits=edits or [],
    )
    with resumable():
        try:
            run(settings)
        except NothingMeasured as error:
            show_error(error)
            raise typer.Exit(1) from None
