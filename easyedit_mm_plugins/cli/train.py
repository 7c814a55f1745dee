"""``easyedit-mm train``: train an editor on records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.console import CONSOLE
from ..core.distributed import Ranks
from ..core.errors import ConfigError
from ..core.yaml_files import parse_yaml
from ..methods import METHODS
from .options import AllowOutside, Device, DType, Images, Log, OneBackbone, SkipBad, resumable

# Those of this package; asking for other packages' would import torch.
TRAINABLE = [entry.name for entry in METHODS.known() if entry.trainer is not None]


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; the best editor is OUT/best.")],
    method: Annotated[
        str, typer.Option(help=f"One of {', '.join(TRAINABLE)}, or another package's.")
    ] = "mscke",
    backbone: OneBackbone = "scenes-llava",
    data: Annotated[
        str, typer.Option(help="scenes, or a JSON file in FGVEdit's schema.")
    ] = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    val: Annotated[int, typer.Option(min=1, help="Records kept apart for validation.")] = 200,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Number of records to use, from the first on.")
    ] = None,
    hparams: Annotated[Path | None, typer.Option(help="YAML file of training settings.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, replaces a setting of the file; repeatable."),
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
    skip_bad: SkipBad = False,
    log: Log = None,
) -> None:
    """Train an editor; the same command resumes a training that was stopped."""
    from ..core.loggers import check_loggers, open_loggers
    from ..methods.training_run import train_editor

    check_loggers(log or [])
    with resumable(), contextlib.ExitStack() as stack:

        def begin(trainer: Any, count: int, held_out: int) -> None:
            world = Ranks.here().world
            by = f", by {world} processes" if world > 1 else ""
            CONSOLE.print(
                f"training {method} for {backbone} on {count} records, {held_out} kept for "
                f"validation{by}",
                markup=False,
            )
            if log:
                folder, config = trainer.out_dir, trainer.hparams.to_dict()
                loggers = stack.enter_context(open_loggers(log, folder, config=config))
                trainer.listeners.append(loggers.log)

        best, final = train_editor(
            method,
            backbone,
            out=out,
            data=data,
            images=images,
            val=val,
            limit=limit,
            hparams=hparams,
            changes=parse_changes(change or []),
            device=device,
            dtype=dtype,
            skip_bad=skip_bad,
            allow_outside=allow_outside,
            begin=begin,
        )
    if Ranks.here().first:
        for key, value in sorted(final.items()):
            CONSOLE.print(f"  {key:<24} {value:.4f}", markup=False)
        CONSOLE.print(f"editor: {best}", markup=False)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` strings as settings; values are read as in an hparams file.

    Raises:
        ConfigError: one is not of that form.
    """
    settings = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {change!r} is not KEY=VALUE")
        try:
            settings[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise ConfigError(f"--set {change!r}: the value is not YAML ({error})") from error
    return settings
