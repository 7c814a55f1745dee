"""The table of base models ("backbones")."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..core.registry import Entry, EntryTable, resolve

if TYPE_CHECKING:
    from .base import Backbone


@dataclass(frozen=True, kw_only=True)
class BackboneEntry(Entry):
    """Everything that the project asks about a base model.

    Attributes:
        loader: a function, or ``"module:function"``, called as ``loader(source, device=...,
            dtype=...)`` with further keywords of :func:`load_backbone`; ``source`` is a folder, a
            hub id or ``None`` for the usual place.
        family: its architecture, for people.
        weights: where the usual weights come from; licence: under what terms.
        embedded: its weights are shipped with this package.
        easyedit: the class of EasyEdit's that it is; ``None``: it is none of EasyEdit's own models.
        paper: the model of the papers that it is, if it has at least ``parameters`` parameters.
        group: the base models whose settings it shares, a section in the files below ``hparams/``:
            "full-size" or "scenes"; ``None``: the settings' defaults.
    """

    loader: Any
    family: str = ""
    weights: str = ""
    licence: str = ""
    embedded: bool = False
    easyedit: str | None = None
    paper: str | None = None
    parameters: float = 0.0
    group: str | None = None

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """An entry for another package's loader."""
        return cls(name=name, loader=value) if callable(value) else super().of(name, value)

    def load(self, source: Any = None, **options: Any) -> Backbone:
        """The backbone; see :func:`load_backbone`."""
        return resolve(self.loader)(source, **options)


BACKBONES: EntryTable[BackboneEntry] = EntryTable(
    "backbone", "easyedit_mm_plugins.backbones", BackboneEntry
)


def is_hub_id(name: str | Path) -> bool:
    """Whether ``name`` can only be a model on the hub: two words with a slash, and no folder."""
    parts = str(name).split("/")
    fits = len(parts) == 2 and all(re.fullmatch(r"[\w.-]*\w", part) for part in parts)
    return fits and str(name) not in BACKBONES and not os.path.isdir(parts[0])


def is_place(name: str | Path) -> bool:
    """Whether ``name`` is no entry's, but a model's folder or hub id."""
    return str(name) not in BACKBONES and (os.path.isdir(name) or is_hub_id(name))
