"""What each base model needs in a method's settings: ``hparams/models.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.yaml_files import merged, settings_file
from .entries import BACKBONES


def sections(backbone: str) -> list[str]:
    """The sections of a settings file that are for ``backbone``, a name or a model folder.

    Its group's (:attr:`BackboneEntry.group`) comes first, then its own, which wins.
    """
    if backbone not in BACKBONES:
        return [Path(backbone).name]
    entry = BACKBONES.get(backbone)
    return [entry.group, entry.name] if entry.group else [entry.name]


def model_settings(backbone: str) -> dict[str, Any]:
    """Where the model lies, its classes and its device, by the keys of EasyEdit's hparams files."""
    models = settings_file("models")
    name = BACKBONES.get(backbone).name if backbone in BACKBONES else backbone
    found: dict[str, Any] = {"model_name": name}
    for section in sections(backbone):
        found = merged(found, models.get(section) or {})
    return found
