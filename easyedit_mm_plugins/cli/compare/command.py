"""The command: what Hydra reads comes after it."""

from __future__ import annotations

import typer

from ..options import resumable


def compare(context: typer.Context) -> None:
    r"""Compare methods, in Hydra's language: method=\[serac,mscke] backbone=scenes-llava.

    Groups: method (one or several), backbone, data, eval, experiment; -m sweeps, --cfg job shows
    the configuration, --hydra-help what else Hydra takes. See docs/experiments.md.
    """
    from .run import compare as run

    with resumable():
        run(context.args)
