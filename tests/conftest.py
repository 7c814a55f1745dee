"""Tiny, untrained models of the real Hugging Face classes, built in memory in milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

WORDS = (
    "question : short answer ? . , what color shape is the a an red green blue circle square star "
    "triangle top left right bottom where yes no paris capital of france nq how many one two three"
).split()


def tiny_tokenizer():
    """A word-level tokenizer with a leading start token, as fast tokenizers have it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(specials + WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def tiny_image_processor():
    from transformers import BlipImageProcessor

    return BlipImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


def build_tiny(family: str):
    """A backbone of ``family`` ("blip2", "minigpt4" or "llava") with random weights, seeded."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        OPTConfig,
    )

    from easyedit_mm_plugins.backbones import HFBlip2, HFLlava, HFMiniGPT4

    tokenizer = tiny_tokenizer()
    vocabulary, image_token = len(tokenizer), tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    llama = LlamaConfig(**text, intermediate_size=48, initializer_range=0.3)
    if family in ("blip2", "minigpt4"):
        opt = OPTConfig(**text, ffn_dim=48, word_embed_proj_dim=24, init_std=0.3)
        config = Blip2Config(
            vision_config=Blip2VisionConfig(**vision, initializer_range=0.02).to_dict(),
            qformer_config=Blip2QFormerConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                encoder_hidden_size=16,
                vocab_size=8,
            ).to_dict(),
            text_config=(opt if family == "blip2" else llama).to_dict(),
            num_query_tokens=4,
            image_token_index=image_token,
        )
        model = Blip2ForConditionalGeneration(config)
        torch.nn.init.normal_(model.query_tokens)
        cls = HFBlip2 if family == "blip2" else HFMiniGPT4
        return cls(f"tiny-{family}", model, tokenizer, tiny_image_processor())
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision).to_dict(),
        text_config=llama.to_dict(),
        image_token_index=image_token,
        image_seq_length=16,
    )
    model = LlavaForConditionalGeneration(config)
    return HFLlava("tiny-llava", model, tokenizer, tiny_image_processor())


def picture(seed: int, size: int = 32) -> Image.Image:
    """A noise picture that depends on its seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(noise, "RGB")


@pytest.fixture(params=["blip2", "minigpt4", "llava"])
def backbone(request):
    """A tiny backbone of each family."""
    return build_tiny(request.param)


@pytest.fixture
def tiny_backbone():
    """One tiny backbone, for tests that do not care which."""
    return build_tiny("llava")


@pytest.fixture
def pictures(tmp_path):
    """Paths of four different pictures."""
    paths = []
    for i in range(4):
        paths.append(tmp_path / f"{i}.png")
        picture(i).save(paths[-1])
    return paths
