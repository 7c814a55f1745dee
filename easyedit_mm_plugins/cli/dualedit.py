"""``easyedit-mm calibrate`` and ``suggest-layers``: what DualEdit needs on a new backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Device, DType, Images, resumable

Backbone = Annotated[str, typer.Option(help="See 'list backbones', or a model folder.")]
Data = Annotated[str, typer.Option(help="Training records: scenes, a JSON file, or NAME:PATH.")]


def calibrate(
    backbone: Backbone,
    editor: Annotated[
        Path | None, typer.Option(help="Trained DualEdit; by default the shipped one.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="prompt-end, learned or released; by default the editor's.")
    ] = None,
    data: Data = "scenes",
    images: Images = None,
    held_out: Annotated[
        int, typer.Option(min=2, help="So many records, the last ones, decide.")
    ] = 300,
    memory: Annotated[
        int | None, typer.Option(min=1, help="Edits at once; by default 1, learned 100.")
    ] = None,
    max_leak: Annotated[
        float | None,
        typer.Option(
            help="Share of each kind of locality question that may pass, by default 1/200."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the editor with it here.")] = None,
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Choose DualEdit's gate threshold on training edits that training did not see."""
    from .calibrate_job import calibrate_editor

    with resumable():
        calibrate_editor(
            backbone,
            editor=editor,
            gate=gate,
            data=data,
            images=images,
            held_out=held_out,
            memory=memory,
            max_leak=max_leak,
            out=out,
            device=device,
            dtype=dtype,
        )


def suggest_layers(
    backbone: Backbone,
    data: Data = "scenes",
    images: Images = None,
    records: Annotated[int, typer.Option(min=10, help="So many of them.")] = 100,
    figure5: Annotated[
        Path | None,
        typer.Option(
            help="Run folder of figure 5, whose editors decide if it is there; by default "
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
            count=records,
            figure5=figure5,
            device=device,
            dtype=dtype,
        )
