"""VisEdit as an editor, and its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ..dualedit import DualEdit, DualEditHyperParams, DualEditTrainingHyperParams
from ..dualedit.config import AdapterConfig, DualEditConfig, GateConfig, at_least


def default_config(layer: int = 19) -> DualEditConfig:
    """VisEdit's own: one visual adapter with influence on layer 19, no gate."""
    return DualEditConfig([AdapterConfig(layer, "visual", "visedit")], GateConfig("off"))


class VisEdit(DualEdit):
    """DualEdit's ancestor: visual adapters with influence, and no gate unless one is asked for.

    Raises:
        ConfigError: an adapter that is not a visual one with influence, or a layer that the
            backbone lacks.
    """

    name: ClassVar[str] = "visedit"

    def __init__(self, backbone: Backbone, config: DualEditConfig | None = None) -> None:
        config = config or default_config()
        if any(a.tokens != "visual" or a.form != "visedit" for a in config.adapters):
            raise ConfigError(
                "VisEdit's adapters edit visual tokens in form visedit",
                remedy="use DualEdit for other adapters",
            )
        super().__init__(backbone, config)


def _adapters() -> list[AdapterConfig]:
    return default_config().adapters


@dataclass
class VisEditHyperParams(DualEditHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(VisEditHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "VISEDIT"
    adapters: list[AdapterConfig] = field(default_factory=_adapters)
    gate: GateConfig = field(default_factory=lambda: GateConfig("off"))

    _alg: ClassVar[str] = "VISEDIT"
    _title: ClassVar[str] = "VisEdit"


@dataclass
class VisEditTrainingHyperParams(DualEditTrainingHyperParams):
    """Training by :class:`VisEditTrainer`; the other settings are DualEdit's.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg: str = "VISEDIT"
    alg_name: str = "VISEDIT"
    adapters: list[AdapterConfig] = field(default_factory=_adapters)
    gate: GateConfig = field(default_factory=lambda: GateConfig("off"))
    influence_loss: float = 0.1  # released: 0.1
    influence_tokens: int = 24  # image tokens whose influence is measured; released: 24
    influence_sigma: float = 0.7  # of the noise; released: 0.7
    influence_records: int = 1  # of a batch, whose influence is measured

    _alg: ClassVar[str] = "VISEDIT"
    _title: ClassVar[str] = "VisEdit"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("influence_loss", "influence_sigma"):
            at_least(getattr(self, name), name, 0)
        for name in ("influence_tokens", "influence_records"):
            at_least(getattr(self, name), name, 1, whole=True)
