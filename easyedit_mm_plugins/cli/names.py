"""``easyedit-mm list``: the names that the other commands take."""

from __future__ import annotations

from typing import Annotated

import typer

from ..core.errors import ConfigError
from ..core.registry import did_you_mean

KINDS = ("methods", "backbones", "datasets", "experiments", "protocols")


def list_names(
    what: Annotated[
        str,
        typer.Argument(help="methods, backbones, datasets, experiments or protocols."),
    ],
) -> None:
    """Print the names that the other commands take."""
    if what not in KINDS:
        raise ConfigError(f"unknown list {what!r}; {did_you_mean(what, list(KINDS))}")
    for name in names(what):
        print(name)


def names(what: str) -> list[str]:
    """The names of one of :data:`KINDS`."""
    if what == "methods":
        from ..methods import METHODS

        return METHODS.names()
    if what == "backbones":
        from ..backbones import BACKBONES

        return BACKBONES.names()
    if what == "datasets":
        from ..data.entries import dataset_forms

        return dataset_forms()[:-1]
    if what == "experiments":
        from ..papers import EXPERIMENTS

        return EXPERIMENTS.names()
    from ..evaluation.protocol import PROTOCOLS

    return list(PROTOCOLS)
