"""MSCKE whose counterfactual model is the base model under a LoRA adapter, as a method by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ...core.errors import ConfigError
from .config import CounterfactualConfig, MSCKEHyperParams, MSCKETrainingHyperParams
from .model import MSCKE
from .training import MSCKETrainer


def _kind() -> CounterfactualConfig:
    return CounterfactualConfig(kind="lora")


def _check(config: CounterfactualConfig) -> None:
    if config.kind != "lora":
        raise ConfigError(
            f"counterfactual.kind is {config.kind!r} in a file for MSCKE-LORA",
            remedy="set it to lora, or use MSCKE's class and alg_name",
        )


@dataclass
class MSCKELoRAHyperParams(MSCKEHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKELoRAHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "MSCKE-LORA"
    counterfactual: CounterfactualConfig = field(default_factory=_kind)

    _alg: ClassVar[str] = "MSCKE-LORA"
    _title: ClassVar[str] = "MSCKE-LoRA"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.counterfactual)


@dataclass
class MSCKELoRATrainingHyperParams(MSCKETrainingHyperParams):
    """Training the adapter, and the scope classifier unless ``train: counterfactual``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg: str = "MSCKE-LORA"
    alg_name: str = "MSCKE-LORA"
    counterfactual: CounterfactualConfig = field(default_factory=_kind)

    _alg: ClassVar[str] = "MSCKE-LORA"
    _title: ClassVar[str] = "MSCKE-LoRA"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.counterfactual)


class MSCKELoRATrainer(MSCKETrainer):
    """:class:`MSCKETrainer`, under this method's name."""

    name: ClassVar[str] = "MSCKE-LORA"


class MSCKELoRA(MSCKE):
    """:class:`MSCKE` with a :class:`LoRA` counterfactual model: no second language model."""

    name: ClassVar[str] = "mscke-lora"
