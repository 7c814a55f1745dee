"""T-Patcher's settings, in EasyEdit's own form, each documented once with where it comes from.

"Released" is a default of the authors' code (``ZeroYuHuang/Transformer-Patcher``).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ..settings import (
    Checked,
    Count,
    Flag,
    ModelHParams,
    Number,
    Text,
    Weight,
    Whole,
    settings_class,
)


@settings_class
class TPatcherConfig(Checked):
    """How an edit's neurons are trained."""

    act: Literal["gelu", "relu", "silu"] = "gelu"
    """Of the new neurons. The paper takes that of the block that they join, GELU in its models;
    SiLU (Llama, Qwen) leaks below zero, where a neuron should be silent."""
    edit_lr: Weight = 1e-2
    """Learning rate of Adam. Released: 1e-2."""
    weight_decay: Weight = 0.01
    """Of the neurons, in Adam's own way (L2). Released: 0.01."""
    grad_clip: Weight = 5.0
    """Longest norm of an edit's gradient. Released: 5."""
    num_steps: Count = 2000
    """At most so many steps. Released: 2000."""
    loss_limit: Weight = 0.1
    """An edit is done when each token of its answer is the most likely one and its whole loss is
    smaller than this. Released: when the loss on a second memory no longer falls, looked at after
    100 steps and then after every 25th."""
    act_weight: Weight = 1.0
    """Of the activation loss. Released: 1."""
    act_top: Count = 5
    """It is a mean over the so many neurons that are most silent. Released: 5."""
    memory_weight: Weight = 10.0
    """Of the two memory losses. Released: 10, for yes or no questions 5."""
    memory_top: Count = 1000
    """They are means over the so many places that a neuron fires most at. Released: 1000."""
    beta: Number = -3.0
    """What a neuron's activation in the memory should stay below. Released: -3."""
    gamma: Weight = 3.0
    """By how much it should lie below that on the edit. Released: 3."""
    max_neurons: Count | None = None
    """At most so many neurons an edit, for its first mistakes. Null: one for each (paper).
    Released: 5."""
    with_stop: Flag = True
    """Learn the end of the answer as well. Released: yes."""
    memory: Text = ""
    """Records whose questions must stay as they are: the name of a data set (its training records)
    or a JSON file in FGVEdit's schema. Released: the text that the base model was trained on."""
    memory_records: Count = 500
    """The first so many of them. Released: 40,000 sentences."""
    batch_size: Count = 1
    """Edits that train side by side, each by itself. Released: 1."""


@settings_class
class TPatcherHyperParams(TPatcherConfig, ModelHParams):
    """Editing: ``MultimodalEditor.from_hparams(TPatcherHyperParams.from_hparams(...))``."""

    seed: Whole = 0
    """EasyEdit; nothing here is random."""

    _alg: ClassVar[str] = "T-PATCHER"
    _title: ClassVar[str] = "T-Patcher"

    @property
    def config(self) -> TPatcherConfig:
        """The settings of the neurons alone."""
        return self.part(TPatcherConfig)
