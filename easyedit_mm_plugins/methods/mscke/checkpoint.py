"""Where ``methods/checkpoint.py`` used to lie; its names stay importable from here."""

from ..checkpoint import (
    AGAIN,
    load_tensors,
    read_config,
    read_tensors,
    save_tensors,
    tied_names,
)

__all__ = ["AGAIN", "load_tensors", "read_config", "read_tensors", "save_tensors", "tied_names"]
