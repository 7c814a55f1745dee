"""Settings of EasyEdit HEAD's own WISE, GRACE and LoRA, by the names of its YAML files.

"EasyEdit" below is what its file for Qwen2-VL 7B says. Its modules' names differ from one version
of transformers to the next; here they are those of ``Backbone.linear_modules``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...core.errors import ConfigError
from ..settings import (
    Count,
    Flag,
    ModelHParams,
    Names,
    Number,
    Share,
    Text,
    Weight,
    Whole,
    settings_class,
)


@settings_class
class StockHyperParams(ModelHParams):
    """What the three share."""

    seed: Whole = 0
    """Of what an edit draws at random."""
    with_stop: Flag = True
    """Learn the end of the answer as well. EasyEdit: no, it measures by teacher forcing; a
    generated answer that does not end is another answer."""

    @property
    def modules(self) -> list[str]:
        """Patterns of the modules that an edit changes."""
        raise NotImplementedError


@settings_class
class WISEHyperParams(StockHyperParams):
    """A side memory beside one module, and a distance that says which of the two answers."""

    inner_params: Names = field(default_factory=lambda: ["layers.-5.mlp.down_proj"])
    """The module. EasyEdit: layer 23 of 28."""
    edit_lr: Weight = 1.0
    """Learning rate of SGD."""
    n_iter: Count = 10
    """Steps."""
    mask_ratio: Share = 0.2
    """Share of the side memory that an edit may write."""
    norm_constraint: Weight = 1.0
    """Farthest that a weight moves."""
    act_margin: Annotated[list[Number], Field(min_length=3, max_length=3)] = field(
        default_factory=lambda: [5.0, 20.0, 10.0]
    )
    """How small the distance must be off an edit, how large on it, and how far apart."""
    act_ratio: Weight = 0.4
    """Share of the smallest distance on an edit from which on the side memory answers."""
    save_freq: Count = 500
    """Edits in a side memory."""
    merge_freq: Count = 1000
    """Edits after which side memories are merged."""
    merge_alg: Text = "ties"
    """How."""
    densities: Share = 0.53
    """Share of weights that merging keeps."""
    weights: Weight = 1.0
    """Of a merged memory."""
    retrieve: Flag = True
    """A memory is looked for. Merging into the base model's own weights is not offered here, since
    its edits cannot be undone."""
    replay: Flag = False
    """Learn on past edits as well."""
    locality_prompt: Text = "who wrote hamlet"
    """A question that an edit is kept away from. EasyEdit takes the very one that a record's
    locality is measured with."""
    locality_ground_truth: Text = "william shakespeare"
    """Its answer."""

    _alg: ClassVar[str] = "WISE"
    _title: ClassVar[str] = "WISE"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.retrieve:
            raise ConfigError(
                "WISE without retrieve writes into the base model's weights, and its edits could "
                "not be undone",
                remedy="set retrieve: true",
            )
        if self.merge_freq % self.save_freq:
            raise ConfigError(
                f"merge_freq is {self.merge_freq}, no multiple of save_freq ({self.save_freq})",
                remedy="give a multiple, as 1000 of 500",
            )

    @property
    def modules(self) -> list[str]:
        """See :class:`StockHyperParams`."""
        return self.inner_params


@settings_class
class GRACEHyperParams(StockHyperParams):
    """A codebook before one module: near an edit's key its value is the module's output."""

    inner_params: Names = field(default_factory=lambda: ["layers.-10.mlp.down_proj"])
    """The module. EasyEdit: layer 18 of 28."""
    edit_lr: Weight = 1.0
    """Learning rate of Adam."""
    n_iter: Annotated[int, Field(ge=2)] = 20
    """Steps."""
    eps: Weight = 1.0
    """How far from its key an edit reaches."""
    dist_fn: Literal["euc"] = "euc"
    """EasyEdit reads no other."""
    val_init: Literal["cold", "warm"] = "cold"
    """Where a value starts: at random, or at the module's own output."""
    val_train: Literal["sgd", "adv"] = "sgd"
    """Whether noise is added to a value while it is learned."""
    replacement: Literal["replace_last", "replace_all", "replace_prompt"] = "replace_last"
    """Which tokens get the value."""
    eps_expand: Literal["coverage", "moving_average"] = "coverage"
    """How an edit of the same answer nearby widens a key."""
    num_pert: Count = 8
    """EasyEdit: of noise."""

    _alg: ClassVar[str] = "GRACE"
    _title: ClassVar[str] = "GRACE"

    @property
    def modules(self) -> list[str]:
        """See :class:`StockHyperParams`."""
        return self.inner_params


@settings_class
class LORAHyperParams(StockHyperParams):
    """Low-rank matrices beside some modules, trained on each edit."""

    target_modules: Names = field(
        default_factory=lambda: ["layers.*.self_attn.q_proj", "layers.*.self_attn.v_proj"]
    )
    """The modules. EasyEdit: these."""
    lora_type: Literal["lora", "adalora"] = "lora"
    """EasyEdit: "adalora", which peft 0.14 and later refuse without a number of steps."""
    rank: Count = 8
    """Of the matrices."""
    lora_alpha: Weight = 32.0
    """Over the rank: the factor of what they add."""
    lora_dropout: Share = 0.1
    """While an edit is learned. EasyEdit: also when questions are asked afterwards."""
    num_steps: Count = 5
    """Steps."""
    lr: Weight = 0.1
    """Learning rate of SGD."""
    sh_lr: Share = 0.9
    """Its factor from step to step."""
    weight_decay: Weight = 0.0
    """Of the matrices."""

    _alg: ClassVar[str] = "LORA"
    _title: ClassVar[str] = "LoRA"

    @property
    def modules(self) -> list[str]:
        """See :class:`StockHyperParams`."""
        return self.target_modules
