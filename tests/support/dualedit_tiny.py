"""A tiny DualEdit: random weights that change answers, the real classes, milliseconds."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.dualedit import (
    AdapterConfig,
    DualEdit,
    DualEditConfig,
    DualEditTrainingHyperParams,
    GateConfig,
)

from ..conftest import build_tiny, picture


def config(form: str = "released", kind: str = "prompt-end", **changes) -> DualEditConfig:
    """Visual tokens on layer 0, text on layer 1 of the two."""
    size = {"width": 16, "heads": 2} if form == "released" else {}
    values = {
        "adapters": [
            AdapterConfig(1, "text", form, **size),
            AdapterConfig(0, "visual", form, **size),
        ],
        "gate": GateConfig(kind, threshold=0.9),
    }
    return DualEditConfig(**{**values, **changes})


def tiny_dualedit(backbone=None, seed: int = 3, **kwargs) -> DualEdit:
    """An editor whose adapters move tokens far enough to be seen."""
    backbone = backbone or build_tiny("llava")
    torch.manual_seed(seed)
    editor = DualEdit(backbone, config(**kwargs))
    for adapter in editor.adapters:
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return editor


def edit(i: int = 0, answer: str = "red") -> Question:
    words = ("circle", "square", "star", "triangle", "shape")
    return Question(f"what color is the {words[i % 5]}?", picture(i), answer)


def mixed_questions() -> list[Question]:
    """Questions of several lengths, with an image and without."""
    return [
        edit(0),
        Question("what is the capital of france", None, "paris"),
        Question("is the red circle left or right of the green star?", picture(0), "yes no"),
        Question("where?", picture(7), "top left bottom"),
    ]


def hparams(**changes) -> DualEditTrainingHyperParams:
    values = {
        "model_name": "tiny", "opt": "AdamW", "lr": 3e-3, "batch_size": 2, "max_iters": 6,
        "val_batch_size": 2, "val_interval": 3, "log_interval": 1, "model_save_pt": 2,
    }  # fmt: skip
    return DualEditTrainingHyperParams(**{**values, **changes})
