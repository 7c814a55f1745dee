"""A base model under a name of its own: the embedded LLaVA, asked without "Short answer:".

A loader is a function; what it returns keeps the frame of ``easyedit_mm_plugins.backbones``. A
model of another class subclasses ``Backbone``: see docs/extending.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from easyedit_mm_plugins.backbones import Backbone, BackboneEntry, load_backbone


def load(source: str | Path | None = None, **options: Any) -> Backbone:
    """``source`` is a folder with the model; by default it is the one that is shipped."""
    options.setdefault("template", "Question: {} Answer:")
    backbone = load_backbone("scenes-llava", source, **options)
    backbone.name = "quiet-llava"
    return backbone


ENTRY = BackboneEntry(
    name="quiet-llava",
    title="quiet LLaVA",
    loader=load,
    family="LLaVA: ViT, projector, Llama",
    weights="shipped with easyedit_mm_plugins",
    licence="MIT",
)
