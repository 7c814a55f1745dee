"""Base models behind one interface: ``base.py`` is the interface, ``hf.py`` three families.

``entries.py`` is their table, ``catalog.py`` loads one by name.

``splice.py`` is where rows of image and text embeddings are padded, scored and continued.
EasyEdit's own BLIP-2 and MiniGPT-4 are subclasses too, in ``host/backbones.py``.
"""

from .base import Backbone
from .catalog import check_backbones, check_device, dtype_named, load_backbone
from .entries import BACKBONES, BackboneEntry
from .hf import HFBlip2, HFLlava, HFMiniGPT4
from .splice import Batch, Row, answer_logits, assemble, generate_ids

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneEntry",
    "Batch",
    "HFBlip2",
    "HFLlava",
    "HFMiniGPT4",
    "Row",
    "answer_logits",
    "assemble",
    "check_backbones",
    "check_device",
    "dtype_named",
    "generate_ids",
    "load_backbone",
]
