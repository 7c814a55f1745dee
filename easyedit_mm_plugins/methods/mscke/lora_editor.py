"""MSCKE whose counterfactual model is the base model under a LoRA adapter, as a method by name."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from ..settings import Count, Share, Weight, settings_class
from .config import (
    CounterfactualConfig,
    MSCKEHyperParams,
    MSCKESettings,
    MSCKETrainingHyperParams,
)
from .model import MSCKE
from .training import MSCKETrainer


@settings_class
class LoRACounterfactualConfig(CounterfactualConfig):
    """Its defaults on every base model; ours, as the paper has no LoRA."""

    kind: Literal["lora"] = "lora"
    """The base model under a LoRA adapter; other kinds are for MSCKE's class and alg_name."""
    drop_image: Share = 0.5
    rank: Count = 16
    alpha: Weight | None = 32


@settings_class
class _LoRA(MSCKESettings):
    counterfactual: LoRACounterfactualConfig = field(default_factory=LoRACounterfactualConfig)

    _alg: ClassVar[str] = "MSCKE-LORA"
    _title: ClassVar[str] = "MSCKE-LoRA"


@settings_class
class MSCKELoRAHyperParams(_LoRA, MSCKEHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKELoRAHyperParams.from_hparams(...))``."""


@settings_class
class MSCKELoRATrainingHyperParams(_LoRA, MSCKETrainingHyperParams):
    """Training the adapter, and the scope classifier unless ``train: counterfactual``."""


class MSCKELoRATrainer(MSCKETrainer):
    """:class:`MSCKETrainer`, under this method's name."""

    name: ClassVar[str] = "MSCKE-LORA"


class MSCKELoRA(MSCKE):
    """:class:`MSCKE` with a :class:`LoRA` counterfactual model: no second language model."""

    name = "mscke-lora"
