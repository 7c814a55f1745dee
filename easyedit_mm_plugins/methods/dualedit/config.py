"""DualEdit's settings, in EasyEdit's own form, each documented once with where it comes from.

"Paper" is DualEdit (Shi et al.), "released" the value in the authors' release.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...core.errors import ConfigError
from ..settings import (
    Checked,
    Count,
    Flag,
    HParams,
    ModelHParams,
    Number,
    Text,
    TrainingHParams,
    Weight,
    Whole,
    checked,
    settings_class,
)

Cosine = Annotated[Number, Field(ge=-1, le=1)]
AtLeastTwo = Annotated[Whole, Field(ge=2)]


@settings_class
class AdapterConfig(Checked):
    """One cross-attention adapter (paper section 3.2)."""

    layer: Whole
    """k, counted from 0; the adapter edits what decoder layer k gives out."""
    tokens: Literal["text", "visual"]
    """Which of them."""
    form: Literal["paper", "released", "visedit"] = "paper"
    """``"paper"`` is the formula of section 3.2; ``"released"`` normalises both sides, attends with
    several heads in a narrower space and adds the outcome to the tokens; ``"visedit"`` also scales
    it with each token's influence (VisEdit)."""
    width: Count | None = None
    """Of the attention; null: the hidden size (paper), 1024 (released)."""
    heads: Count | None = None
    """Null: 1 (paper), 8 (released)."""


@settings_class
class GateConfig(Checked):
    """The gate of eq. 4."""

    kind: Literal["prompt-end", "released", "off", "learned", "self"] = "prompt-end"
    """Which token decides. ``"prompt-end"``: the last one of the prompt, on both sides, so that the
    answer cannot. ``"released"``: the last one of the sequence, an answer token where there is one.
    ``"off"``: the nearest edit always applies (paper table 1). ``"learned"``, not in the paper: the
    prompt's last token and the mean image token under a learned projection, for many edits at
    once. ``"self"``, not in the paper either: the scope of MSCKE-Self, for editing alone; an edited
    pass then begins anew where the base model's has found an edit."""
    layer: Whole | None = None
    """Where it is read; null: at the first edited layer. It may lie before, not after."""
    threshold: Cosine | None = None
    """tau; a cosine at or above it opens the gate. Null: the paper's value, 0.8 on BLIP-2, 0.6 on
    LLaVA (appendix D) and on other backbones; calibrated in training. Of ``self`` it is s, and null
    is what MSCKE-Self was calibrated to."""
    scope_of: Text | None = None
    """Of ``self``: the folder of the trained MSCKE-Self, or variant of it, whose heads decide;
    null: the one that is shipped for the base model."""


def _paper_adapters() -> list[AdapterConfig]:
    return [AdapterConfig(16, "text"), AdapterConfig(19, "visual")]


@settings_class
class DualEditConfig(Checked):
    """What an editor is made of; the defaults are the paper's (section 3.2, appendix D)."""

    adapters: Annotated[list[AdapterConfig], Field(min_length=1)] = field(
        default_factory=_paper_adapters
    )
    """Any number, on any layers; one alone is a single-modality editor (table 1). ``layer``, from
    0, and ``tokens``, "text" or "visual"; ``form``: "paper" is the formula of section 3.2,
    "released" normalises both sides and attends with several ``heads`` in ``width`` dimensions,
    "visedit" also scales with each token's influence."""
    gate: GateConfig = field(default_factory=GateConfig)
    """The gate of eq. 4."""
    text_tokens: Literal["prompt", "all"] = "prompt"
    """Which text tokens a text adapter edits: ``"prompt"`` (released: those before the answer) or
    ``"all"``, answer tokens too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate.kind == "self" and self.gate.layer is not None:
            raise ConfigError(
                "gate.layer is not for gate self, whose heads read a layer of their own",
                remedy="set it to null",
            )
        if self.gate_layer > self.first_layer:
            raise ConfigError(
                f"gate layer {self.gate_layer} comes after the first edited layer "
                f"{self.first_layer}",
                remedy="the gate must have decided before anything is edited",
            )

    @property
    def first_layer(self) -> int:
        """The lowest edited layer."""
        return min(adapter.layer for adapter in self.adapters)

    @property
    def gate_layer(self) -> int:
        """Where the gate is read."""
        return self.first_layer if self.gate.layer is None else self.gate.layer

    def check_layers(self, count: int, backbone: str) -> None:
        """Raise :class:`ConfigError` for a layer that a backbone of ``count`` layers lacks.

        A visual adapter on the last layer is refused too: nothing reads what it edits.
        """
        for label, layer in (
            ("gate", self.gate_layer),
            *((f"{adapter.tokens} adapter", adapter.layer) for adapter in self.adapters),
        ):
            if layer >= count:
                raise ConfigError(
                    f"{label} is on layer {layer}, but {backbone} has layers 0 to {count - 1}",
                    remedy="choose layers near the middle; the paper's are 16 and 19 of 32",
                )
        if any(a.tokens == "visual" and a.layer == count - 1 for a in self.adapters):
            raise ConfigError(
                f"the visual adapter is on {backbone}'s last layer, whose image tokens nothing "
                "reads",
                remedy="choose a lower layer",
            )


@settings_class
class DualEditSettings(DualEditConfig, HParams):
    """What editing and training share."""

    seed: Whole = 0
    """Seed of all that is random."""

    _alg: ClassVar[str] = "DUALEDIT"
    _title: ClassVar[str] = "DualEdit"

    @property
    def config(self) -> DualEditConfig:
        """The editor that these settings describe."""
        return self.part(DualEditConfig)


@settings_class
class DualEditHyperParams(DualEditSettings, ModelHParams):
    """Editing: ``MultimodalEditor.from_hparams(DualEditHyperParams.from_hparams(...))``."""

    batch_size: Count = 1
    """EasyEdit: requests at a time."""


@settings_class
class DualEditTrainingHyperParams(DualEditSettings, TrainingHParams):
    """Training the adapters, by :class:`DualEditTrainer` or EasyEdit's ``MultimodalTrainer``.

    Paper: lr 1e-4, batch_size 4, max_iters 50,000, a checkpoint every 1,000.
    """

    lr: Weight = 1e-4
    """Learning rate; paper: 1e-4."""
    batch_size: Count = 4
    """Records in a batch; paper: 4."""
    start: Literal["plain", "answer"] = "plain"
    """``answer``: heads and values begin at the edit's answer (see ``warm_start.py``)."""
    stop: Flag = False
    """Also learn that the answer ends; paper: the answer's tokens alone."""
    gate_records: AtLeastTwo = 2500
    """Training records that a learned gate is fitted on."""
    gate_steps: AtLeastTwo = 1500
    """Of the learned gate's fit, before the adapters'."""
    gated: Flag = False
    """The gate in training too: what stays closed need not be learnt; released: no, every question
    is edited."""
    rel_loss: Weight = 1.0
    """Weight of eq. 5's reliability term; paper: 1."""
    gen_loss: Weight = 1.0
    """Weight of eq. 5's generality term; paper: 1."""
    loc_loss: Weight = 1.0
    """Weight of eq. 5's locality term; paper: 1."""
    val_batch_size: Count = 4
    val_interval: Count = 1000
    feature_cache: Whole = 2048
    cache_mib: Whole = 1024
    """Memory for the outputs of the layers below the first edited one."""

    _section: ClassVar[str] = "Training"


def check_threshold(value: float) -> float:
    """``value`` as a cosine in [-1, 1].

    Raises:
        ConfigError: it is not a number, or lies outside.
    """
    return checked(Cosine, value, "gate threshold")
