"""Base models behind one frame: ``base.py`` the frame, ``hf.py`` three families, ``zoo.py`` names.

``splice.py`` is where rows of image and text embeddings are padded, scored and continued.
EasyEdit's own BLIP-2 and MiniGPT-4 stand behind the same frame in ``bridge/backbones.py``.
"""

from .base import Backbone
from .catalog import load_backbone
from .hf import HFBlip2, HFLlava, HFMiniGPT4
from .splice import Batch, Row, answer_logits, assemble, generate_ids

__all__ = [
    "Backbone",
    "Batch",
    "HFBlip2",
    "HFLlava",
    "HFMiniGPT4",
    "Row",
    "answer_logits",
    "assemble",
    "generate_ids",
    "load_backbone",
]
