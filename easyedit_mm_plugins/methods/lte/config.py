"""LTE's settings, in EasyEdit's own form, each documented once with where it comes from.

"Paper" is LTE (Jiang et al. 2024), "released" the value in its authors' scripts for a LoRA.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from ..sentences import MINILM
from ..settings import (
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
class LTESettings(HParams):
    """What editing and training share."""

    k: Count = 3
    """At most so many edits stand before a question, the nearest first (paper: 3)."""
    retrieval: Literal["text", "self"] = "text"
    """``text``: the k edits nearest to the question's words, always (paper). ``self``: the one edit
    whose scope the question is in by MSCKE-Self, or none, and then the base model answers; ours."""
    text_encoder: Text = MINILM
    """Of ``retrieval: text``: a sentence-transformers model by name or folder (paper:
    multi-qa-mpnet-base-dot-v1; here the one that EasyEdit's IKE retrieves with), or ``words``, the
    mean of the base model's own token embeddings, which needs no other model."""
    scope_of: Text | None = None
    """Of ``retrieval: self``: folder of the trained MSCKE-Self whose scope decides; null: the one
    that was saved with the editor, or that is shipped for the base model."""
    rank: Count = 8
    """Of the adapters (released: 8)."""
    alpha: Weight | None = None
    """The adapter's output is scaled by alpha / rank; null: twice the rank (released: 16 of 8)."""
    dropout: Share = 0.05
    """Of the adapters' inputs in training (released: 0.05)."""
    targets: Names = field(default_factory=lambda: ["*q_proj", "*k_proj", "*v_proj"])
    """Which linear modules of the language model get an adapter, by patterns of their names
    (released: query, key and value)."""
    seed: Whole = 0
    """Seed of all that is random."""

    _alg: ClassVar[str] = "LTE"
    _title: ClassVar[str] = "LTE"


@settings_class
class LTEHyperParams(LTESettings, ModelHParams):
    """Editing: ``MultimodalEditor.from_hparams(LTEHyperParams.from_hparams(...))``."""

    batch_size: Count = 1
    """EasyEdit: requests at a time."""


@settings_class
class LTETrainingHyperParams(LTESettings, TrainingHParams):
    """Teaching the adapter, once for all edits.

    Released: three epochs of batches of 128 rows a GPU, cosine, warm-up over 3 % of the steps.
    """

    opt: Literal["Adam", "AdamW"] = "AdamW"
    lr: Weight = 3e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    batch_size: Count = 8
    grad_clip: Weight = 1.0
    scope_questions: Count = 1
    """In-scope (and as many out-of-scope) questions drawn per record."""
    alone: Share = 0.5
    """Share of the records whose edit stands alone before its questions; before those of the others
    stand 1 to k - 1 more of the nearest edits after it, evenly (released: half, a quarter, a
    quarter)."""
    plain: Share = 0.5
    """Share of the rows that are asked again with nothing before them (released: all of them, so
    half of the rows). The adapter is off where nothing stands before a question, so what this
    teaches shows only in other programs that leave it on."""
    cloc: Weight = 1.0
    """Weight of the loss on questions that must be answered as before."""

    _section: ClassVar[str] = "Training"
