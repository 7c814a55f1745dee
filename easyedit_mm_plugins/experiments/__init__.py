"""Grids of methods, backbones and data sets, measured into one run folder.

``plan.py`` says what is to be measured, ``grid.py`` measures it in a few processes and goes on
past what fails, ``editors.py`` makes an editor from its hparams file, ``settings.py`` and
``compare.py`` are the Hydra side of ``easyedit-mm compare``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BackboneSpec": ".plan",
    "DataSpec": ".plan",
    "Grid": ".plan",
    "MethodSpec": ".plan",
    "run_grid": ".grid",
}

__all__ = ["BackboneSpec", "DataSpec", "Grid", "MethodSpec", "run_grid"]

if TYPE_CHECKING:
    from .grid import run_grid
    from .plan import BackboneSpec, DataSpec, Grid, MethodSpec


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
