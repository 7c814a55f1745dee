"""MEND's settings, in EasyEdit's own form, each documented once with where it comes from.

"EasyEdit" is the value in EasyEdit's multimodal files (``hparams/TRAINING/MEND/blip2.yaml``), which
the FGVEdit release takes over. A key that is missing or unknown is an error that names the nearest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from ...core.errors import ConfigError
from ..settings import LoopHParams, at_least, choice

# The part of an EasyEdit parameter name that says which decoder it is in.
_DECODER = re.compile(r"^(opt_model|llama_model|language_model)\.(.*\.)?(?=layers\.)")


@dataclass
class MendConfig:
    """What an editor is made of.

    Attributes:
        inner_params: which linear modules an edit changes: names or patterns of
            ``Backbone.linear_modules`` (``layers.-1.fc*``, ``connector.projection``), or parameter
            names as EasyEdit writes them. MSCKE section 5.2 says that its MEND updates language and
            visual modules; EasyEdit's files name the MLPs of the last three decoder layers. Null:
            those, and the connector's projection.
        rank: of the network's matrices, at most their size. EasyEdit: 1920.
        n_hidden: hidden layers. EasyEdit: 1.
        init: ``"id"`` (EasyEdit) or ``"xavier"``.
        norm: normalise inputs by running mean and deviation. EasyEdit: true.
        combine: one network for x and delta together. EasyEdit's multimodal files: true.
        one_sided, x_only, delta_only: a network for one of the two only. EasyEdit: false.
        shared: modules of one shape share a network. EasyEdit: true.
        edit_lr: where each module's learned rate begins. EasyEdit: 1e-4. The change is *added*: a
            negative rate descends along the normalised gradient.
        mlp_class: ``"IDMLP"``, EasyEdit's and the only one.
        act: of other classes than IDMLP, in EasyEdit; not used.
    """

    inner_params: list[str] | None = None
    rank: int = 1920
    n_hidden: int = 1
    init: str = "id"
    norm: bool = True
    combine: bool = True
    one_sided: bool = False
    x_only: bool = False
    delta_only: bool = False
    shared: bool = True
    edit_lr: float = 1e-4
    mlp_class: str = "IDMLP"
    act: str = "relu"

    def __post_init__(self) -> None:
        choice(self.init, "init", ("id", "xavier"))
        choice(self.mlp_class, "mlp_class", ("IDMLP",))
        at_least(self.rank, "rank", 1, whole=True)
        at_least(self.n_hidden, "n_hidden", 0, whole=True)
        sides = [name for name in ("one_sided", "x_only", "delta_only") if getattr(self, name)]
        if len(sides) + self.combine > 1:
            raise ConfigError(
                f"{' and '.join(['combine'] * self.combine + sides)} exclude each other",
                remedy="set all but one of them to false",
            )
        names = self.inner_params
        if names is not None:
            if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
                raise ConfigError(f"inner_params is {names!r}, not a list of names")
            if not names:
                raise ConfigError("inner_params is empty", remedy="leave it out for the default")
            self.inner_params = [canonical(name) for name in names]


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


@dataclass
class _Fields(MendConfig, LoopHParams):
    """All keys of EasyEdit's multimodal MEND files, for editing and training, and a few more."""

    lr: float = 1e-6  # EasyEdit: 1e-6
    lr_lr: float = 1e-4  # of the modules' learned rates; EasyEdit: 1e-4
    cedit: float = 0.1  # nll on the edit and its rewordings; EasyEdit: 0.1
    iedit: float = 0.1  # nll on what the edit entails; EasyEdit: 0.1, on a rephrased image
    cloc: float = 1.0  # KL on questions that have nothing to do with the edit; EasyEdit: 1.0
    iloc: float = 1.0  # KL on out-of-scope questions about the edit's image; EasyEdit has none
    scope_questions: int = 1  # in-scope (and as many out-of-scope) questions drawn per record
    early_stop_key: str = "loss/total_edit_val"  # EasyEdit's name for the loss
    feature_cache: int = 1000  # pictures whose vision states are kept (1.4 MB each at full size)
    # EasyEdit's, without use here.
    alg_name: str = "MEND"
    cbase: float = 1.0
    dropout: float = 0.0
    train_base: bool = False
    no_grad_layers: int | None = None
    hidden_dim: int | None = None
    lr_scale: float = 1.0
    eval_log_interval: int = 1000
    verbose: bool = True

    _alg: ClassVar[str] = "MEND"
    _title: ClassVar[str] = "MEND"

    def __post_init__(self) -> None:
        MendConfig.__post_init__(self)
        LoopHParams.__post_init__(self)
        at_least(self.scope_questions, "scope_questions", 1, whole=True)
        for name in ("lr_lr", "cedit", "iedit", "cloc", "iloc"):
            at_least(getattr(self, name), name, 0)

    @property
    def config(self) -> MendConfig:
        """The editor that these settings describe."""
        return MendConfig(**{f.name: getattr(self, f.name) for f in fields(MendConfig)})


@dataclass
class MendHyperParams(_Fields):
    """Editing with a trained MEND; what is for training is read and not used, as in EasyEdit.

    Raises:
        ConfigError: a value that cannot be used.
    """

    max_iters: int | None = 1
    _name_key: ClassVar[str] = "alg_name"


@dataclass
class MendTrainingHyperParams(_Fields):
    """Training MEND's network, by :class:`MendTrainer`; EasyEdit's has 30,000 ``max_iters``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg: str = "MEND"
    _name_key: ClassVar[str] = "alg"
