"""``easyedit-mm suggest-layers``: layers for DualEdit's adapters on a new backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import AllowOutside, Device, DType, Images, OneBackbone, TrainingData, resumable


def suggest_layers(
    backbone: OneBackbone,
    data: TrainingData = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    records: Annotated[int, typer.Option(min=10, help="Number of records to measure on.")] = 100,
    figure5: Annotated[
        Path | None,
        typer.Option(
            help="Run folder of figure 5, whose results decide if it exists; by default "
            "runs/dualedit-figure5."
        ),
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Propose a text and a visual layer for DualEdit on a new backbone."""
    from ..papers.suggest import suggest

    with resumable():
        suggest(
            backbone,
            data=data,
            images=images,
            allow_outside=allow_outside,
            count=records,
            figure5=figure5,
            device=device,
            dtype=dtype,
        )
