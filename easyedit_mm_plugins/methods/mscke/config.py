"""MSCKE's settings, in EasyEdit's own form, each documented once with where it comes from.

"Paper" is MSCKE (Zeng et al.), "released" the value in the authors' release.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

from ...core.errors import ConfigError
from ..settings import (
    Checked,
    Count,
    HParams,
    ModelHParams,
    Names,
    Share,
    Text,
    TrainingHParams,
    Weight,
    Whole,
    settings_class,
)


@settings_class
class ScopeConfig(Checked):
    """The multimodal scope classifier (paper section 3.3)."""

    encoder: Text = "ViT-B-32"
    """E_i and E_t of eq. 4-5: an ``open_clip`` name (released: ViT-L-14, which is three times as
    large as ViT-B-32; paper table 2: both), or a folder with a small one, or ``scenes-clip``, which
    is shipped with the package; or a Hugging Face ``CLIPModel``, by its folder or as ``hf:NAME``,
    which is what the release has."""
    pretrained: str | None = "openai"
    """``open_clip``'s weights tag; null for random weights and for folders, which hold theirs."""
    fusion: str = "dot-attention"
    """Eq. 6-7. ``dot-attention``: the text attends to the image's regions (paper);
    ``cross-attention``, ``concat``, ``text`` for the ablations of table 2 and figure 4;
    ``released``, ``released-concat``, ``released-cross`` as in the release, on CLIP's pooled
    vectors."""
    similarity: str = "exp-squared-distance"
    """Eq. 8. ``exp-squared-distance`` is exp(-|z_e - z_t|^2) (released), ``cosine`` a learned scale
    and bias on the cosine, then a sigmoid."""
    dim: Count = 256
    """Width of the fused feature z."""
    heads: Count = 1
    """How many text vectors attend to the regions; the paper's dot product is 1."""
    resize: Literal["squash", "crop"] = "squash"
    """``squash`` shows the encoder the whole picture, ``crop`` its square centre, as CLIP was
    trained: an entity at the border would be lost."""


@settings_class
class CounterfactualConfig(Checked):
    """The counterfactual model f_cfr (paper section 3.2, eq. 3)."""

    kind: str = "small-lm"
    """Which implementation; ``small-lm`` is a trainable small language model, ``lora`` the base
    model itself under a LoRA adapter, ``mend`` the base model edited by MEND."""
    lm: Text | dict[str, Any] = "facebook/opt-125m"
    """Hugging Face name or folder of a causal language model with the base model's vocabulary
    (released for BLIP-2: facebook/opt-125m, which EasyEdit's users keep in
    hugging_cache/opt-125m), or a mapping that is its configuration, to be built with random
    weights."""
    drop_image: Share = 0.0
    """Probability in training of hiding a batch's images, so that the model learns to follow the
    edit's words and not what the picture shows. Ours; the release has none."""
    rank: Count = 8
    """Of ``lora``'s adapters. The paper has no LoRA; these four are ours."""
    alpha: Weight | None = None
    """The adapter's output is scaled by alpha / rank; null: twice the rank."""
    dropout: Share = 0.0
    """Of the adapters' inputs in training."""
    targets: Names = field(default_factory=lambda: ["*layers.*"])
    """Which linear modules of the language model get an adapter, by patterns of their names; by
    default all of its decoder layers."""
    mend: dict[str, Any] | None = None
    """Settings of ``mend``, see ``methods/mend/config.py``."""


@settings_class
class MSCKESettings(HParams):
    """What editing and training share."""

    threshold: Share = 0.5
    """rho: a query whose similarity is at least this is in scope (paper: 0.5)."""
    scope: ScopeConfig = field(default_factory=ScopeConfig)
    """The scope classifier."""
    counterfactual: CounterfactualConfig = field(default_factory=CounterfactualConfig)
    """The model that answers in scope."""
    seed: Whole = 0
    """Seed of all that is random; released: 0."""

    _alg: ClassVar[str] = "MSCKE"
    _title: ClassVar[str] = "MSCKE"


@settings_class
class MSCKEHyperParams(MSCKESettings, ModelHParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKEHyperParams.from_hparams(...))``."""

    batch_size: Count = 1
    """EasyEdit: requests at a time."""


@settings_class
class MSCKETrainingHyperParams(MSCKESettings, TrainingHParams):
    """Training MSCKE's two parts, by :class:`MSCKETrainer` or EasyEdit's ``MultimodalTrainer``.

    Released: Adam, lr 1e-5, constant; batch_size 1, accumulate_bs 1, grad_clip 100, max_iters
    50,000 (BLIP-2) or 20,000 (MiniGPT-4), val_interval 5,000 (BLIP-2's training file: 2,000),
    log_interval 200, early_stop_patience 30,000.
    """

    train: Literal["scope", "counterfactual", "both"] = "both"
    """Which part, or both in one run (paper: both)."""
    cfr_lr: Weight | None = None
    """The counterfactual model's own learning rate; null: lr."""
    encoder_lr_scale: Weight = 1.0
    """Share of lr for E_i and E_t; 0 freezes them."""
    cls_loss: Weight = 1.0
    """BCE on edit, rephrase (1) and text locality (0); released: 1.0."""
    igen_loss: Weight = 1.0
    """BCE on in-scope questions (1), eq. 9; released: 1."""
    iloc_loss: Weight = 1.0
    """BCE on out-of-scope questions (0), eq. 10; released: 1."""
    batch_negatives: Weight = 0.0
    """BCE on other records' edits (0); ours, the release has none. 0 with scope.fusion: text."""
    cedit: Weight = 0.1
    """Nll on the edit and its rephrase; released: 0.1."""
    iedit: Weight = 0.1
    """Nll on in-scope questions; released: as cedit."""
    scope_questions: Count = 1
    """In-scope (and as many out-of-scope) questions drawn per record."""

    _section: ClassVar[str] = "Training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_negatives and self.scope.fusion == "text":
            raise ConfigError(
                f"batch_negatives is {self.batch_negatives} with scope.fusion: text, which cannot "
                "tell a question from the same question about another picture",
                remedy="set batch_negatives: 0",
            )
