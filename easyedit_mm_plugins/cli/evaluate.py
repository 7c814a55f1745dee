"""``easyedit-mm evaluate``: methods on base models and one data set, into one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    EDITOR,
    AllowOutside,
    Backbones,
    Device,
    DType,
    Images,
    Log,
    SkipBad,
    check_run_name,
    editor_folders,
    resumable,
    run_name,
    say_skipped,
    show_run,
)


def evaluate(
    method: Annotated[
        list[str], typer.Option(help="Editing method (see 'list methods'); repeatable.")
    ],
    backbone: Backbones = ["scenes-llava"],  # noqa: B006 - typer reads it, nobody changes it
    data: Annotated[
        str, typer.Option(help="scenes, or a JSON file in FGVEdit's schema.")
    ] = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    protocol: Annotated[
        str, typer.Option(help="generated, teacher-forced or released.")
    ] = "generated",
    suite: Annotated[
        str | None, typer.Option(help="Metrics: fgvedit or evqa; by default those of the data set.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of records to measure, from the first on.")
    ] = None,
    extra: Annotated[
        bool, typer.Option("--extra", help="Also ask the further scope questions (fg_extra).")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions in a forward pass.")] = 32,
    editor: Annotated[
        list[str] | None, typer.Option(help=f"{EDITOR}; METHOD=FOLDER for one of several.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run, a folder below --runs.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    device: Device = "cpu",
    dtype: DType = None,
    device_map: Annotated[
        str | None, typer.Option(help="auto: spread a Hugging Face model over all GPUs.")
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what is measured, and start over.")
    ] = False,
    log: Log = None,
) -> None:
    """Measure methods on base models; the same command resumes a run that was stopped.

    Under torchrun or accelerate launch the processes share the cases.
    """
    from ..core.console import CONSOLE
    from ..core.distributed import Ranks
    from ..core.loggers import check_loggers, open_loggers
    from ..evaluation import Protocol
    from ..evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
    from ..evaluation.metrics import suite_named
    from ..evaluation.runner import run_grid

    check_loggers(log or [])
    check_run_name(name)
    if suite is not None:
        suite_named(suite)
    ranks = Ranks.here()
    options = {"device": ranks.device(device), "dtype": dtype, "device_map": device_map}
    bases = [BackboneSpec.parse(text, **options) for text in backbone]
    folders = editor_folders(editor or [], method)
    specs = {m: MethodSpec(m, folder=folder) for m, folder in folders.items()}
    records_of = DataSpec(
        data, str(images) if images else None, suite, limit, extra, skip_bad, allow_outside
    )
    grid = Grid(
        method,
        bases,
        [records_of],
        Protocol(protocol),
        batch_size,
        {base.label: specs for base in bases},
        processes=0,
        strict=True,
    )
    records = grid.load()[0]
    if ranks.first:
        say_skipped(records)
    path = runs / (name or run_name(method, [b.label for b in bases], records.name, protocol))
    with resumable():
        run = run_grid(grid, path, overwrite=overwrite)
    if ranks.first:
        rows = run.rows()
        with open_loggers(log or [], run.path, config=run.config) as loggers:
            loggers.log_rows(rows)
        show_run(run, rows)
        CONSOLE.print(f"written to {run.path}/", markup=False)
