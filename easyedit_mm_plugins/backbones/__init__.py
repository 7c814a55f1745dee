"""Base models behind one interface: ``base.py`` is the interface, ``hf.py`` three families that the
papers edit, ``auto.py`` any other vision-language model.

``entries.py`` is their table, ``catalog.py`` loads one by name.

``splice.py`` is where rows of image and text embeddings are padded, scored and continued.
EasyEdit's own BLIP-2 and MiniGPT-4 are subclasses too, in ``host/backbones.py``.
"""

from .auto import HFAuto
from .base import Backbone
from .catalog import check_backbones, check_device, check_dtype, dtype_named, load_backbone
from .entries import BACKBONES, BackboneEntry
from .hf import HFBlip2, HFLlava, HFMiniGPT4
from .splice import Batch, Row, answer_logits, assemble, generate_ids

__all__ = [
    "BACKBONES",
    "Backbone",
    "BackboneEntry",
    "Batch",
    "HFAuto",
    "HFBlip2",
    "HFLlava",
    "HFMiniGPT4",
    "Row",
    "answer_logits",
    "assemble",
    "check_backbones",
    "check_device",
    "check_dtype",
    "dtype_named",
    "generate_ids",
    "load_backbone",
]
