"""Settings of MSCKE-Self, each documented once. All of it is ours; MSCKE's own are MSCKE's."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from ..mscke.config import MSCKEHyperParams, MSCKESettings, MSCKETrainingHyperParams
from ..settings import Checked, Count, Share, Text, Weight, Whole, settings_class


@settings_class
class SelfScopeConfig(Checked):
    """The scope that is read from the edited model itself."""

    layer: Whole | None = None
    """Index of the decoder layer whose output the scope head reads; null: two thirds of the way up,
    where it is known which thing is asked about, and what of it."""
    binding: Literal["picture", "thing"] = "picture"
    """``picture``: an edit holds for its picture, also redrawn. ``thing``: for the thing wherever
    it is seen; the scope head alone decides and must be trained for it."""
    places: Count = 64
    """At most so many places of a picture; more image tokens are averaged, over a square if both
    are squares."""
    picture_threshold: Share = 0.75
    """Pictures whose keys have this cosine are the same, until a training calibrates it."""


@settings_class
class MSCKESelfSettings(MSCKESettings):
    """What editing and training share."""

    threshold: Share | None = None  # type: ignore[assignment]
    """Of the scope head: what reaches it is in scope; null: as calibrated, 0.5 before."""
    scope: SelfScopeConfig = field(default_factory=SelfScopeConfig)  # type: ignore[assignment]
    """The scope, read from the edited model itself."""
    scope_of: Text | None = None
    """Folder of the trained MSCKE-Self, or variant of it, whose heads this one begins with; null:
    new ones after ``scope``. With ``answers_of`` beside it there is nothing left to train."""
    answers_of: Text | None = None
    """Folder of the trained MSCKE whose counterfactual model answers; null: of the shipped one for
    the base model, or, where none is, a new one after ``counterfactual``."""

    _alg: ClassVar[str] = "MSCKE-SELF"
    _title: ClassVar[str] = "MSCKE-Self"


@settings_class
class MSCKESelfHyperParams(MSCKESelfSettings, MSCKEHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKESelfHyperParams.from_hparams(...))``."""


@settings_class
class MSCKESelfTrainingHyperParams(MSCKESelfSettings, MSCKETrainingHyperParams):
    """Training the two heads on what the frozen base model says, which is computed once.

    ``encoder_lr_scale`` has no use here.
    """

    train: Literal["scope", "counterfactual", "both"] = "scope"
    opt: Literal["Adam", "AdamW"] = "AdamW"
    lr: Weight = 2e-3
    weight_decay: Weight = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Whole = 20
    batch_size: Count = 64
    max_iters: Count | None = 800
    grad_clip: Weight = 1.0
    scope_questions: Count = 3
    val_interval: Count = 200
    val_batch_size: Count = 50
    log_interval: Count = 50
    model_save_pt: Count = 200
    early_stop_key: str = "scope/balanced"
    picture_lr: Weight = 1e-3
    """The picture key's learning rate."""
    picture_loss: Weight = 1.0
    """InfoNCE between a picture and its redrawings, against other pictures."""
    pair_loss: Weight = 1.0
    """BCE (0) on the questions of the other record of a pair: same texts, other picture."""
    cache_mib: Whole = 1024
    """Memory for pictures' features in training; those pushed out are computed again."""

    _section: ClassVar[str] = "Training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train == "counterfactual" and self.early_stop_key.startswith("scope/"):
            self.early_stop_key = "loss/total_val"
