"""``easyedit-mm hparams``: the settings of every method for every base model, as files."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(name="hparams", help="Settings as EasyEdit's YAML files.", no_args_is_help=True)


@app.command("list")
def list_settings() -> None:
    """Print what "hparams show" takes, what it is for, and whether a trained editor is shipped."""
    from ..methods.entries import METHODS
    from ..methods.factory import shipped_editor
    from ..methods.settings_text import names

    entries = {entry.alg: entry for entry in METHODS}
    for name in names():
        entry = entries.get(name.alg)
        shipped = entry is not None and shipped_editor(entry, name.backbone) is not None
        what = "training" if name.training else "editing"
        print(f"{name!s:38} {what:9}{'trained editor shipped' if shipped else ''}".rstrip())


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="MSCKE/blip2 for editing, TRAINING/MSCKE/blip2 for training.")
    ],
) -> None:
    """Print the complete, commented file: easyedit-mm hparams show MSCKE/blip2 > my.yaml."""
    from ..methods.settings_text import as_yaml

    print(as_yaml(name), end="")
