"""A tiny MSCKE: random weights, the real classes, milliseconds."""

from __future__ import annotations

import torch
from open_clip import CLIP

from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.mscke import (
    MSCKE,
    CounterfactualConfig,
    MSCKETrainingHyperParams,
    ScopeClassifier,
    ScopeConfig,
    SmallLM,
)
from easyedit_mm_plugins.methods.mscke.encoder import ClipEncoder, FileIds

from ..conftest import build_tiny, picture, tiny_tokenizer

TINY_OPT = {
    "model_type": "opt",
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 16,
    "max_position_embeddings": 96,
    "init_std": 0.3,
}


def tiny_encoder(context: int = 16) -> ClipEncoder:
    tokenizer = tiny_tokenizer().backend_tokenizer
    config = {
        "embed_dim": 12,
        "vision_cfg": {
            "image_size": 32, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8,
        },
        "text_cfg": {
            "context_length": context, "vocab_size": tokenizer.get_vocab_size(), "width": 16,
            "heads": 2, "layers": 1, "pool_type": "eos", "eos_id": 2,
        },
        "quick_gelu": False,
    }  # fmt: skip
    return ClipEncoder(CLIP(**config), config, FileIds(tokenizer.to_str()))


def tiny_scope(
    fusion: str = "dot-attention", similarity: str = "cosine", heads: int = 1, context: int = 16
) -> ScopeClassifier:
    torch.manual_seed(1)
    config = ScopeConfig("tiny", None, fusion, similarity, dim=8, heads=heads)
    return ScopeClassifier(tiny_encoder(context), config).eval()


def tiny_mscke(family: str = "llava", threshold: float = 0.5, **kwargs) -> MSCKE:
    backbone = build_tiny(family)
    torch.manual_seed(2)
    model = SmallLM.from_config(backbone, CounterfactualConfig(lm=TINY_OPT))
    return MSCKE(backbone, tiny_scope(**kwargs), model, threshold)


def hparams(**changes) -> MSCKETrainingHyperParams:
    values = {
        "model_name": "tiny", "opt": "AdamW", "lr": 3e-3, "batch_size": 2, "max_iters": 6,
        "val_batch_size": 2, "val_interval": 3, "log_interval": 1, "model_save_pt": 2,
        "batch_negatives": 1.0, "cedit": 1.0, "iedit": 1.0,
    }  # fmt: skip
    return MSCKETrainingHyperParams(**{**values, **changes})


def tiny_records(n: int = 5) -> list[EditRecord]:
    colors = ("red", "green", "blue")
    records = []
    for i in range(n):
        image, answer = picture(i), colors[i % 3]
        records.append(
            EditRecord(
                case_id=str(i),
                edit=Question("what color is the circle?", image, answer),
                rephrase=(Question("the circle is what color?", image, answer),),
                in_scope=(
                    Question("what color is the left shape?", image, answer),
                    Question(f"is the circle {answer}?", image, "yes"),
                ),
                out_scope=(
                    Question("what color is the square?", image, "blue"),
                    Question("where is the star?", image, "left"),
                ),
                text_loc=(Question("what is the capital of france", None, "paris"),),
                image_rephrase=(Question("what color is the circle?", picture(50 + i), answer),),
                image_loc=(Question("where is the star?", picture(90 + i), "top"),),
            )
        )
    return records
