"""VisEdit as an editor, and its settings."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ..dualedit import DualEdit, DualEditHyperParams, DualEditTrainingHyperParams
from ..dualedit.config import AdapterConfig, DualEditConfig, DualEditSettings, GateConfig
from ..settings import Count, Weight, settings_class


def default_config(layer: int = 19) -> DualEditConfig:
    """VisEdit's own: one visual adapter with influence on layer 19, no gate."""
    return DualEditConfig([AdapterConfig(layer, "visual", "visedit")], GateConfig("off"))


class VisEdit(DualEdit):
    """DualEdit's ancestor: visual adapters with influence, and no gate unless one is asked for.

    Raises:
        ConfigError: an adapter that is not a visual one with influence, or a layer that the
            backbone lacks.
    """

    name = "visedit"

    def __init__(
        self, backbone: Backbone, config: DualEditConfig | None = None, scope: Any = None
    ) -> None:
        config = config or default_config()
        if any(a.tokens != "visual" or a.form != "visedit" for a in config.adapters):
            raise ConfigError(
                "VisEdit's adapters edit visual tokens in form visedit",
                remedy="use DualEdit for other adapters",
            )
        super().__init__(backbone, config, scope)


@settings_class
class _VisEdit(DualEditSettings):
    adapters: Annotated[list[AdapterConfig], Field(min_length=1)] = field(
        default_factory=lambda: default_config().adapters
    )
    gate: GateConfig = field(default_factory=lambda: default_config().gate)

    _alg: ClassVar[str] = "VISEDIT"
    _title: ClassVar[str] = "VisEdit"


@settings_class
class VisEditHyperParams(_VisEdit, DualEditHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(VisEditHyperParams.from_hparams(...))``."""


@settings_class
class VisEditTrainingHyperParams(_VisEdit, DualEditTrainingHyperParams):
    """Training by :class:`VisEditTrainer`; the other settings are DualEdit's."""

    influence_loss: Weight = 0.1
    """Weight of the loss that teaches influence; released: 0.1."""
    influence_tokens: Count = 24
    """Image tokens whose influence is measured; released: 24."""
    influence_sigma: Weight = 0.7
    """Of the noise; released: 0.7."""
    influence_records: Count = 1
    """Of a batch, whose influence is measured."""

    _section: ClassVar[str] = "Training"
