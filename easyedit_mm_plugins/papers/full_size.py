"""BLIP-2 OPT-2.7B's architecture with random weights, to measure time and memory."""

from __future__ import annotations

from typing import Any

import torch

from ..backbones import Backbone, HFBlip2
from ..methods.mscke import MSCKE, CounterfactualConfig, ScopeConfig
from ..scenes.tokenizer import IMAGE, build_tokenizer
from . import FULL_SIZE

# facebook/opt-125m's shape: the release's counterfactual model for BLIP-2.
OPT_125M: dict[str, Any] = {
    "model_type": "opt",
    "hidden_size": 768,
    "ffn_dim": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "word_embed_proj_dim": 768,
    "max_position_embeddings": 2048,
}


def build_backbone(dtype: torch.dtype, device: str, **towers: Any) -> Backbone:
    """EVA ViT-g, Q-Former and OPT-2.7B as published: 3.7 billion parameters.

    Args:
        dtype, device: of the weights, which are made there.
        towers: overrides of all three towers' configurations, for tests.
    """
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        BlipImageProcessor,
        OPTConfig,
    )

    shape = {"hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32}
    opt = OPTConfig(
        **{"vocab_size": 50272, "num_attention_heads": 32, "word_embed_proj_dim": 2560}
        | shape
        | towers
    )
    # transformers' defaults for the other towers are ViT-g (39 layers) and the Q-Former (12).
    config = Blip2Config(
        {"initializer_range": 0.02, **towers}, dict(towers), opt.to_dict(), image_token_index=IMAGE
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Blip2ForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.requires_grad_(False)
    size = config.vision_config.image_size
    processor = BlipImageProcessor(size={"height": size, "width": size})
    # A question is about as many tokens in the scenes' vocabulary as in OPT's.
    return HFBlip2(FULL_SIZE, model, build_tokenizer(), processor)


def build_editor(dtype: torch.dtype, device: str, encoder: str = "ViT-B-32") -> MSCKE:
    """MSCKE on it: dot-attention on CLIP ViT-B/32, an OPT-125M as counterfactual model."""
    backbone = build_backbone(dtype, device)
    scope = ScopeConfig(encoder=encoder, pretrained=None)
    return MSCKE.from_config(backbone, scope, CounterfactualConfig(lm=OPT_125M))
