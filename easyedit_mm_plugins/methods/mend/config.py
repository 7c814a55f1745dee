"""MEND's settings, in EasyEdit's own form, each documented once with where it comes from.

"EasyEdit" is the value in EasyEdit's multimodal files (``hparams/TRAINING/MEND/blip2.yaml``), which
the FGVEdit release takes over.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...core.errors import ConfigError
from ..settings import (
    Checked,
    Count,
    Flag,
    LoopHParams,
    Number,
    TrainingHParams,
    Weight,
    Whole,
    settings_class,
)

# The part of an EasyEdit parameter name that says which decoder it is in.
_DECODER = re.compile(r"^(opt_model|llama_model|language_model)\.(.*\.)?(?=layers\.)")


@settings_class
class MendConfig(Checked):
    """What an editor is made of."""

    inner_params: Annotated[list[str], Field(min_length=1)] | None = None
    """Which linear modules an edit changes: names or patterns of ``Backbone.linear_modules``
    (``layers.-1.fc*``, ``connector.projection``), or parameter names as EasyEdit writes them. MSCKE
    section 5.2 says that its MEND updates language and visual modules; EasyEdit's files name the
    MLPs of the last three decoder layers. Null: those, and the connector's projection."""
    rank: Count = 1920
    """Of the network's matrices, at most their size. EasyEdit: 1920."""
    n_hidden: Whole = 1
    """Hidden layers. EasyEdit: 1."""
    init: Literal["id", "xavier"] = "id"
    """EasyEdit: id."""
    norm: Flag = True
    """Normalise inputs by running mean and deviation. EasyEdit: true."""
    combine: Flag = True
    """One network for x and delta together. EasyEdit's multimodal files: true."""
    one_sided: Flag = False
    """A network for one of the two only, as x_only and delta_only. EasyEdit: false."""
    x_only: Flag = False
    """EasyEdit: false."""
    delta_only: Flag = False
    """EasyEdit: false."""
    shared: Flag = True
    """Modules of one shape share a network. EasyEdit: true."""
    edit_lr: Number = 1e-4
    """Where each module's learned rate begins. EasyEdit: 1e-4. The change is *added*: a negative
    rate descends along the normalised gradient."""
    mlp_class: Literal["IDMLP"] = "IDMLP"
    """EasyEdit's and the only one."""
    act: str = "relu"
    """Of other classes than IDMLP, in EasyEdit; not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = [name for name in ("one_sided", "x_only", "delta_only") if getattr(self, name)]
        if len(sides) + self.combine > 1:
            raise ConfigError(
                f"{' and '.join(['combine'] * self.combine + sides)} exclude each other",
                remedy="set all but one of them to false",
            )
        if self.inner_params is not None:
            self.inner_params = [canonical(name) for name in self.inner_params]


def canonical(name: str) -> str:
    """EasyEdit's name of a parameter as the name of a linear module; others as they are.

    ``opt_model.model.decoder.layers.29.fc1.weight`` is ``layers.29.fc1``.
    """
    name = _DECODER.sub("", name.removesuffix(".weight"))
    if name in ("opt_proj", "llama_proj", "language_projection"):
        return "connector.projection"
    if name.startswith(("Qformer.", "qformer.")):
        return f"connector.qformer.{name.partition('.')[2]}"
    return name


@settings_class
class MendLosses(Checked):
    """The weights of MEND's losses."""

    lr_lr: Weight = 1e-4
    """Learning rate of the modules' learned rates; EasyEdit: 1e-4."""
    cedit: Weight = 0.1
    """Of the nll on the edit and its rewordings; EasyEdit: 0.1."""
    iedit: Weight = 0.1
    """Of the nll on what the edit entails; EasyEdit: 0.1, on a rephrased image."""
    cloc: Weight = 1.0
    """Of the KL on questions that have nothing to do with the edit; EasyEdit: 1.0."""
    iloc: Weight = 1.0
    """Of the KL on out-of-scope questions about the edit's image; EasyEdit has none."""
    scope_questions: Count = 1
    """In-scope (and as many out-of-scope) questions drawn per record."""

    _section: ClassVar[str] = "Training"


@settings_class
class _Fields(MendConfig, MendLosses, LoopHParams):
    """All keys of EasyEdit's multimodal MEND files, for editing and training, and a few more."""

    lr: Weight = 1e-6
    """Learning rate; EasyEdit: 1e-6."""
    early_stop_key: str = "loss/total_edit_val"
    """EasyEdit's name for the loss."""
    feature_cache: Whole = 1000
    """Pictures whose vision states are kept (1.4 MB each at full size)."""
    cbase: Number = 1.0
    """EasyEdit; not used."""
    dropout: Number = 0.0
    """EasyEdit; not used."""
    train_base: Flag = False
    """EasyEdit; not used."""
    no_grad_layers: int | None = None
    """EasyEdit; not used."""
    hidden_dim: int | None = None
    """EasyEdit; not used."""
    lr_scale: Number = 1.0
    """EasyEdit; not used."""
    eval_log_interval: int = 1000
    """EasyEdit; not used."""
    verbose: Flag = True
    """EasyEdit; not used."""

    _alg: ClassVar[str] = "MEND"
    _title: ClassVar[str] = "MEND"

    @property
    def config(self) -> MendConfig:
        """The editor that these settings describe."""
        return self.part(MendConfig)


@settings_class
class MendHyperParams(_Fields):
    """Editing with a trained MEND; what is for training is read and not used, as in EasyEdit."""

    max_iters: Count | None = 1
    """Not used."""


@settings_class
class MendTrainingHyperParams(_Fields, TrainingHParams):
    """Training MEND's network, by :class:`MendTrainer`; EasyEdit's has 30,000 ``max_iters``."""
