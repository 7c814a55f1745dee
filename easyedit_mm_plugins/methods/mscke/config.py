"""MSCKE's hyperparameters, in EasyEdit's own form, each documented once with where it comes from.

"Paper" is MSCKE (Zeng et al.), "released" the value in the authors' release. A key that is missing
or unknown is an error that names the nearest key: a misspelt setting must not pass in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...core.errors import ConfigError
from ..settings import HParams, ModelHParams, at_least, build, choice, read_yaml

__all__ = ["HParams", "build", "choice", "read_yaml"]  # where they were; now in hparams.py
_at_least = at_least


def check_unit(value: Any, name: str) -> float:
    """``value`` as a float in [0, 1].

    Raises:
        ConfigError: it is not a number, or lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(
            f"{name} is {value!r}, not a number from 0 to 1",
            remedy="a query is in scope when its similarity is at least the threshold; "
            "the paper uses 0.5",
        )
    return float(value)


@dataclass
class ScopeConfig:
    """The multimodal scope classifier (paper section 3.3).

    Attributes:
        encoder: E_i and E_t of eq. 4-5: an ``open_clip`` name (released: ViT-L-14; paper table 2:
            ViT-B-32 and ViT-L-14), or a folder with a small one, or ``scenes-clip``; or a Hugging
            Face ``CLIPModel``, by its folder or as ``hf:NAME``, which is what the release has.
        pretrained: ``open_clip``'s weights tag, such as ``openai``; ``null`` for random weights and
            for folders, which hold theirs.
        fusion: eq. 6-7. ``dot-attention``: the text attends to the image's regions (paper);
            ``cross-attention``, ``concat``, ``text`` for the ablations of table 2 and figure 4;
            ``released``, ``released-concat``, ``released-cross`` as in the release, on CLIP's
            pooled vectors.
        similarity: eq. 8. ``exp-squared-distance`` is exp(-|z_e - z_t|^2) (released), ``cosine`` a
            learned scale and bias on the cosine, then a sigmoid.
        dim: width of the fused feature z.
        heads: how many text vectors attend to the regions; the paper's dot product is 1.
        resize: ``squash`` shows the encoder the whole picture, ``crop`` its square centre, as CLIP
            was trained: an entity at the border would be lost.
    """

    encoder: str = "ViT-B-32"
    pretrained: str | None = "openai"
    fusion: str = "dot-attention"
    similarity: str = "exp-squared-distance"
    dim: int = 256
    heads: int = 1
    resize: str = "squash"

    def __post_init__(self) -> None:
        if self.resize not in ("squash", "crop"):
            raise ConfigError(f"scope.resize is {self.resize!r}; known: squash, crop")
        for name in ("dim", "heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"scope.{name} is {value!r}, not a whole number above 0")


@dataclass
class CounterfactualConfig:
    """The counterfactual model f_cfr (paper section 3.2, eq. 3).

    Attributes:
        kind: which implementation; ``small-lm`` is a trainable small language model, ``lora`` the
            base model itself under a LoRA adapter, ``mend`` the base model edited by MEND.
        lm: Hugging Face name or folder of a causal language model with the base model's vocabulary
            (released for BLIP-2: facebook/opt-125m), or a mapping that is its configuration, to be
            built with random weights.
        drop_image: probability in training of hiding a batch's images, so that the model learns to
            follow the edit's words and not what the picture shows. Ours; the release has none.
        rank: of ``lora``'s adapters. The paper has no LoRA; these four are ours.
        alpha: the adapter's output is scaled by alpha / rank; null: twice the rank.
        dropout: of the adapters' inputs in training.
        targets: which linear modules of the language model get an adapter, by patterns of their
            names; by default all of its decoder layers.
        mend: settings of ``mend``, see ``methods/mend/config.py``.
    """

    kind: str = "small-lm"
    lm: str | dict[str, Any] = "facebook/opt-125m"
    drop_image: float = 0.0
    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["*layers.*"])
    mend: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_unit(self.drop_image, "counterfactual.drop_image")
        check_unit(self.dropout, "counterfactual.dropout")
        at_least(self.rank, "counterfactual.rank", 1, whole=True)
        if self.alpha is not None:
            at_least(self.alpha, "counterfactual.alpha", 0)
        if isinstance(self.targets, str):
            self.targets = [self.targets]
        if not self.targets or not all(isinstance(t, str) for t in self.targets):
            raise ConfigError(
                f"counterfactual.targets is {self.targets!r}", remedy="give a list of patterns"
            )


@dataclass
class _Common(ModelHParams):
    """What editing and training files share."""

    threshold: float = 0.5  # rho >= threshold is in scope (paper: 0.5)
    scope: ScopeConfig = field(default_factory=ScopeConfig)
    counterfactual: CounterfactualConfig = field(default_factory=CounterfactualConfig)
    seed: int = 0  # released: 0

    _alg: ClassVar[str] = "MSCKE"
    _title: ClassVar[str] = "MSCKE"

    def __post_init__(self) -> None:
        if isinstance(self.scope, dict):
            self.scope = build(ScopeConfig, self.scope, "scope")
        if isinstance(self.counterfactual, dict):
            self.counterfactual = build(CounterfactualConfig, self.counterfactual, "counterfactual")
        self.threshold = check_unit(self.threshold, "threshold")


@dataclass
class MSCKEHyperParams(_Common):
    """Editing with MSCKE: ``MultimodalEditor.from_hparams(MSCKEHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "MSCKE"
    batch_size: int = 1  # EasyEdit: requests at a time

    _name_key: ClassVar[str] = "alg_name"


@dataclass
class MSCKETrainingHyperParams(_Common):
    """Training MSCKE's two parts, by :class:`MSCKETrainer` or EasyEdit's ``MultimodalTrainer``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg: str = "MSCKE"
    alg_name: str = "MSCKE"
    train: str = "both"  # "scope", "counterfactual", or both in one run (paper: both)
    opt: str = "Adam"  # released: Adam; or AdamW
    lr: float = 1e-5  # released: 1e-5
    cfr_lr: float | None = None  # the counterfactual model's own rate; null: lr
    encoder_lr_scale: float = 1.0  # share of lr for E_i and E_t; 0 freezes them
    weight_decay: float = 0.0
    schedule: str = "constant"  # released: constant; or cosine, to a tenth
    warmup: int = 0  # steps of linear warm-up
    batch_size: int = 1  # released: 1
    accumulate_bs: int = 1  # released: 1; batches per optimiser step
    grad_clip: float = 100.0  # released: 100
    max_iters: int | None = None  # released: 50,000 batches (BLIP-2), 20,000 (MiniGPT-4)
    max_epochs: int | None = None  # EasyEdit: instead of max_iters
    cls_loss: float = 1.0  # BCE on edit, rephrase (1) and text locality (0); released: 1.0
    igen_loss: float = 1.0  # BCE on in-scope questions (1), eq. 9; released: 1
    iloc_loss: float = 1.0  # BCE on out-of-scope questions (0), eq. 10; released: 1
    # BCE on other records' edits (0); ours, the release has none. 0 with scope.fusion: text.
    batch_negatives: float = 0.0
    cedit: float = 0.1  # nll on the edit and its rephrase; released: 0.1
    iedit: float = 0.1  # nll on in-scope questions; released: as cedit
    scope_questions: int = 1  # in-scope (and as many out-of-scope) questions drawn per record
    val_batch_size: int = 1
    val_interval: int = 5000  # released: 5,000 (BLIP-2: 2,000 in the training file)
    val_steps: int | None = None  # at most so many records in a validation; null: all
    log_interval: int = 200  # released: 200
    model_save_pt: int = 1000  # EasyEdit: steps between checkpoints to resume from
    early_stop_patience: int = 30000  # steps without a better value; released: 30,000
    early_stop_key: str = "loss/total_val"  # a value that validation reports, lower is better
    results_dir: str = "./results"
    eval_only: bool = False
    final_eval: bool = True  # validate the best checkpoint at the end
    save: bool = True
    silent: bool = False  # EasyEdit
    debug: bool = False  # EasyEdit
    feature_cache: int = 20000  # images whose frozen base features are kept; 0: none

    _name_key: ClassVar[str] = "alg"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice(self.train, "train", ("scope", "counterfactual", "both"))
        choice(self.opt, "opt", ("Adam", "AdamW"))
        choice(self.schedule, "schedule", ("constant", "cosine"))
        for name in ("batch_size", "accumulate_bs", "val_batch_size", "scope_questions"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("val_interval", "log_interval", "model_save_pt", "early_stop_patience"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("cls_loss", "igen_loss", "iloc_loss", "batch_negatives", "cedit", "iedit"):
            at_least(getattr(self, name), name, 0)
        for name in ("lr", "grad_clip", "weight_decay", "encoder_lr_scale", "warmup"):
            at_least(getattr(self, name), name, 0)
        for name in ("max_iters", "max_epochs"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), name, 1, whole=True)
        if self.batch_negatives and self.scope.fusion == "text":
            raise ConfigError(
                f"batch_negatives is {self.batch_negatives} with scope.fusion: text, which cannot "
                "tell a question from the same question about another picture",
                remedy="set batch_negatives: 0",
            )
        if (self.max_iters is None) == (self.max_epochs is None):
            raise ConfigError("give one of max_iters and max_epochs")
