"""KE's settings, in EasyEdit's own form, each documented once with where it comes from.

"Released" is a default of the authors' code (``nicola-decao/KnowledgeEditor``, for question
answering).
"""

from __future__ import annotations

from typing import ClassVar

from ...core.errors import ConfigError
from ..mend.config import canonical
from ..settings import (
    Checked,
    Count,
    LoopHParams,
    Names,
    Number,
    TrainingHParams,
    Weight,
    settings_class,
)


@settings_class
class KEConfig(Checked):
    """What an editor is made of."""

    inner_params: Names | None = None
    """Which linear modules an edit changes: names or patterns of ``Backbone.linear_modules``
    (``layers.-1.fc*``), or parameter names as EasyEdit writes them. The paper changes every weight
    matrix of its model; null: the MLPs of the last three decoder layers, as EasyEdit's MEND."""
    lstm_size: Count = 128
    """Of the LSTM that reads the edit, in each direction. Released: 128."""
    condition_size: Count = 1024
    """Of what it has read. Released: 1024."""
    hidden_size: Count = 128
    """Of the hidden layer between that and a matrix's vectors. Released: 128."""
    max_scale: Weight = 1.0
    """The gate's largest value. Released: 1."""
    edit_lr: Number = 0.0
    """An untrained network begins as a step of so much down the edit's gradient. Paper: as it comes
    from random weights, near 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_scale == 0:
            raise ConfigError("max_scale is 0: nothing would change", remedy="set it above 0")
        if self.inner_params is not None:
            self.inner_params = [canonical(name) for name in self.inner_params]


@settings_class
class KELosses(Checked):
    """What the hypernetwork learns, and under which constraint."""

    lr_alpha: Weight = 0.1
    """Learning rate of the Lagrange multiplier. Released: 0.1."""
    margin_kl_max: Weight = 1e-3
    """The KL that locality may cost, at the beginning. Released: 1e-3."""
    margin_kl_min: Weight = 1e-5
    """It shrinks to no less than this. Released: 1e-5."""
    margin_decay: Weight = 0.8
    """By what it shrinks after a validation in which 90 of 100 edits are made. Released: 0.8."""
    cedit: Weight = 1.0
    """Weight of the nll on the edit and its rewordings (paper: equal)."""
    iedit: Weight = 0.0
    """Weight of the nll on what the edit entails; the paper has none."""
    cloc: Weight = 1.0
    """Weight in the constraint of questions that have nothing to do with the edit."""
    iloc: Weight = 1.0
    """Weight in the constraint of out-of-scope questions about the edit's image; the paper has no
    images."""
    scope_questions: Count = 1
    """In-scope (and as many out-of-scope) questions drawn per record."""

    _section: ClassVar[str] = "Training"


@settings_class
class _Fields(KEConfig, KELosses, LoopHParams):
    lr: Weight = 3e-4
    """Learning rate. Released: 3e-4."""
    early_stop_key: str = "right/both"
    """Of a validation: half the share of answers that are right in scope, half that of answers
    outside that stay. Released: the same for the edit and other facts."""
    feature_cache: int = 1000
    """Pictures whose vision states are kept."""

    _alg: ClassVar[str] = "KE"
    _title: ClassVar[str] = "KE"

    @property
    def config(self) -> KEConfig:
        """The editor that these settings describe."""
        return self.part(KEConfig)


@settings_class
class KEHyperParams(_Fields):
    """Editing with a trained KE; what is for training is read and not used."""

    max_iters: Count | None = 1
    """Not used."""


@settings_class
class KETrainingHyperParams(_Fields, TrainingHParams):
    """Training KE's hypernetwork, by :class:`KETrainer`; released: 200,000 ``max_iters``."""
