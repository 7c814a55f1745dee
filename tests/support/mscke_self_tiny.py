"""A tiny MSCKE-Self: random weights, the real classes, milliseconds."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.methods.mscke import CounterfactualConfig
from easyedit_mm_plugins.methods.mscke_self import (
    MSCKESelf,
    MSCKESelfTrainingHyperParams,
    SelfScopeConfig,
)

from ..conftest import build_tiny
from .mscke_tiny import TINY_OPT


def tiny_self(backbone="llava", threshold: float = 0.5, **config) -> MSCKESelf:
    backbone = build_tiny(backbone) if isinstance(backbone, str) else backbone
    torch.manual_seed(2)
    answers = CounterfactualConfig(lm=TINY_OPT)
    return MSCKESelf.from_config(backbone, SelfScopeConfig(**config), answers, threshold)


def hparams(**changes) -> MSCKESelfTrainingHyperParams:
    values = {
        "model_name": "tiny", "batch_size": 6, "max_iters": 60, "warmup": 2, "val_interval": 30,
        "log_interval": 10, "model_save_pt": 20,
    }  # fmt: skip
    return MSCKESelfTrainingHyperParams(**{**values, **changes})
