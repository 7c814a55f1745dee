"""``easyedit-mm import-release``: a checkpoint of MSCKE's release as an editor folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import CheckpointError
from .options import Device, DType


def import_release(
    checkpoint: Annotated[Path, typer.Argument(help="The release's .pt file.")],
    backbone: Annotated[str, typer.Option(help="Base model that it was trained on.")],
    out: Annotated[Path, typer.Option(help="Editor folder to write.")],
    clip: Annotated[
        str, typer.Option(help="CLIPModel that its training started from: a folder or hub name.")
    ] = "openai/clip-vit-large-patch14",
    lm: Annotated[
        str, typer.Option(help="Counterfactual model that its training started from, likewise.")
    ] = "facebook/opt-125m",
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Turn a checkpoint of MSCKE's release into an editor that the other commands load."""
    from ..backbones import check_backbones, load_backbone

    check_backbones(backbone)
    if not os.path.isfile(checkpoint):
        raise CheckpointError(f"{checkpoint} does not exist", remedy="check the path")
    from ..core.console import CONSOLE
    from ..methods.mscke.release_import import import_release, read_release

    read_release(checkpoint)  # a bad file is said before a large model is loaded
    editor = import_release(
        checkpoint, load_backbone(backbone, device=device, dtype=dtype), clip=clip, lm=lm
    )
    editor.save_pretrained(out, half=False)
    said = f"written to {out}/; use it with --method mscke --editor {out}"
    CONSOLE.print(said, markup=False, soft_wrap=True)
