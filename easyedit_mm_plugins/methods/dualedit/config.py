"""DualEdit's settings, in EasyEdit's own form, each documented once with where it comes from.

"Paper" is DualEdit (Shi et al.), "released" the value in the authors' release. A key that is
missing or unknown is an error that names the nearest key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...core.errors import ConfigError
from ..mscke.config import HParams, build, choice

FORMS = ("paper", "released", "visedit")
TOKENS = ("text", "visual")
GATES = ("prompt-end", "released", "off", "learned")
STARTS = ("plain", "answer")


@dataclass
class AdapterConfig:
    """One cross-attention adapter (paper section 3.2).

    Attributes:
        layer: k, counted from 0; the adapter edits what decoder layer k gives out.
        tokens: which of them, ``"text"`` or ``"visual"``.
        form: ``"paper"`` is the formula of section 3.2; ``"released"`` normalises both sides,
            attends with several heads in a narrower space and adds the outcome to the tokens;
            ``"visedit"`` also scales it with each token's influence (VisEdit).
        width: of the attention; null: the hidden size (paper), 1024 (released).
        heads: null: 1 (paper), 8 (released).
    """

    layer: int
    tokens: str
    form: str = "paper"
    width: int | None = None
    heads: int | None = None

    def __post_init__(self) -> None:
        choice(self.tokens, "adapter tokens", TOKENS)
        choice(self.form, "adapter form", FORMS)
        at_least(self.layer, "adapter layer", 0, whole=True)
        for name in ("width", "heads"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), f"adapter {name}", 1, whole=True)


@dataclass
class GateConfig:
    """The gate of eq. 4.

    Attributes:
        kind: which token decides. ``"prompt-end"``: the last one of the prompt, on both sides, so
            that the answer cannot. ``"released"``: the last one of the sequence, an answer token
            where there is one. ``"off"``: the nearest edit always applies (paper table 1).
            ``"learned"``, not in the paper: the prompt's last token and the mean image token under
            a learned projection, for many edits at once.
        layer: where it is read; null: at the first edited layer. It may lie before, not after.
        threshold: tau; a cosine at or above it opens the gate. Null: the paper's value, 0.8 on
            BLIP-2, 0.6 on LLaVA (appendix D) and on other backbones.
    """

    kind: str = "prompt-end"
    layer: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        choice(self.kind, "gate kind", GATES)
        if self.layer is not None:
            at_least(self.layer, "gate layer", 0, whole=True)
        if self.threshold is not None:
            self.threshold = check_threshold(self.threshold)


def _paper_adapters() -> list[AdapterConfig]:
    return [AdapterConfig(16, "text"), AdapterConfig(19, "visual")]


@dataclass
class DualEditConfig:
    """What an editor is made of; the defaults are the paper's (section 3.2, appendix D).

    Attributes:
        adapters: any number, on any layers; one alone is a single-modality editor (table 1).
        gate: see :class:`GateConfig`.
        text_tokens: which text tokens a text adapter edits: ``"prompt"`` (released: those before
            the answer) or ``"all"``, answer tokens too.
    """

    adapters: list[AdapterConfig] = field(default_factory=_paper_adapters)
    gate: GateConfig = field(default_factory=GateConfig)
    text_tokens: str = "prompt"

    def __post_init__(self) -> None:
        if not isinstance(self.adapters, (list, tuple)) or not self.adapters:
            raise ConfigError(
                f"adapters is {self.adapters!r}", remedy="give a list of at least one adapter"
            )
        self.adapters = [_made(AdapterConfig, a, "adapters") for a in self.adapters]
        self.gate = _made(GateConfig, self.gate, "gate")
        choice(self.text_tokens, "text_tokens", ("prompt", "all"))
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


@dataclass
class _Common(HParams):
    """What editing and training files share. EasyEdit's loaders read many of these by name."""

    model_name: str  # EasyEdit: backbone ("blip2", "minigpt4"); or an embedded or HF one
    name: str | None = None  # EasyEdit: folder or hub name of the base model's weights
    device: int | str = "cpu"  # a CUDA index, "cuda:0" or "cpu"
    dtype: str | None = None  # "float32", "bfloat16", "float16"; null: as the weights are
    device_map: str | dict[str, Any] | None = None  # "auto" spreads the model over devices
    model_class: str | None = None  # EasyEdit: class of the base model
    tokenizer_class: str | None = None  # EasyEdit
    tokenizer_name: str | None = None  # EasyEdit
    qformer_checkpoint: str | None = None  # EasyEdit: BLIP-2's Q-Former weights
    qformer_name_or_path: str | None = None  # EasyEdit: the Q-Former's BERT
    state_dict_file: str | None = None  # EasyEdit: EVA ViT-g weights
    pretrained_ckpt: str | None = None  # EasyEdit: MiniGPT-4's projection
    freeze_qformer: bool = True  # EasyEdit
    model_parallel: bool = False  # EasyEdit
    half: bool = False  # EasyEdit
    max_length: int = 32  # EasyEdit: longest target in tokens
    exact_match: bool = False  # EasyEdit's metric switch; not used
    coco_image: str | None = None  # EasyEdit: image root of the records
    rephrase_image: str | None = None  # EasyEdit: image root of rephrased images
    archive: str | None = None  # folder of a trained editor; null: the shipped one, or untrained
    adapters: list[AdapterConfig] = field(default_factory=_paper_adapters)  # DualEditConfig
    gate: GateConfig = field(default_factory=GateConfig)  # DualEditConfig
    text_tokens: str = "prompt"  # DualEditConfig
    seed: int = 0

    _alg: ClassVar[str] = "DUALEDIT"
    _title: ClassVar[str] = "DualEdit"

    def __post_init__(self) -> None:
        config = self.config
        self.adapters, self.gate = config.adapters, config.gate

    @property
    def config(self) -> DualEditConfig:
        """The editor that these settings describe."""
        return DualEditConfig(self.adapters, self.gate, self.text_tokens)


@dataclass
class DualEditHyperParams(_Common):
    """Editing: ``MultimodalEditor.from_hparams(DualEditHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "DUALEDIT"
    batch_size: int = 1  # EasyEdit: requests at a time


@dataclass
class DualEditTrainingHyperParams(_Common):
    """Training the adapters, by :class:`DualEditTrainer` or EasyEdit's ``MultimodalTrainer``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg: str = "DUALEDIT"
    alg_name: str = "DUALEDIT"
    opt: str = "Adam"  # or AdamW
    lr: float = 1e-4  # paper: 1e-4
    weight_decay: float = 0.0
    schedule: str = "constant"  # or cosine, to a tenth
    warmup: int = 0  # steps of linear warm-up
    batch_size: int = 4  # paper: 4
    accumulate_bs: int = 1  # batches per optimiser step
    grad_clip: float = 100.0
    max_iters: int | None = None  # paper: 50,000
    max_epochs: int | None = None  # EasyEdit: instead of max_iters
    start: str = "plain"  # "answer": see start.py
    stop: bool = False  # also learn that the answer ends; paper: the answer's tokens alone
    gate_records: int = 2500  # training records that a learned gate is fitted on
    gate_steps: int = 1500  # of its fit, before the adapters'
    gated: bool = False  # the gate in training too; released: no, every question is edited
    rel_loss: float = 1.0  # weights of eq. 5's terms; paper: 1
    gen_loss: float = 1.0
    loc_loss: float = 1.0
    val_batch_size: int = 4
    val_interval: int = 1000
    val_steps: int | None = None  # at most so many records in a validation; null: all
    log_interval: int = 200
    model_save_pt: int = 1000  # paper: a checkpoint every 1,000
    early_stop_patience: int = 30000  # steps without a better value
    early_stop_key: str = "loss/total_val"  # paper: the smallest loss
    results_dir: str = "./results"
    eval_only: bool = False
    final_eval: bool = True  # validate the best checkpoint at the end
    save: bool = True
    silent: bool = False  # EasyEdit
    debug: bool = False  # EasyEdit
    feature_cache: int = 2048  # images whose frozen base features are kept; 0: none
    cache_mib: int = 1024  # memory for the outputs of the layers below the first edited one

    _name_key: ClassVar[str] = "alg"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice(self.opt, "opt", ("Adam", "AdamW"))
        choice(self.start, "start", STARTS)
        choice(self.schedule, "schedule", ("constant", "cosine"))
        for name in ("batch_size", "accumulate_bs", "val_batch_size", "val_interval"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("gate_records", "gate_steps"):
            at_least(getattr(self, name), name, 2, whole=True)
        for name in ("log_interval", "model_save_pt", "early_stop_patience"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("feature_cache", "cache_mib", "warmup"):
            at_least(getattr(self, name), name, 0, whole=True)
        for name in ("lr", "grad_clip", "weight_decay", "rel_loss", "gen_loss", "loc_loss"):
            at_least(getattr(self, name), name, 0)
        for name in ("max_iters", "max_epochs"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), name, 1, whole=True)
        if (self.max_iters is None) == (self.max_epochs is None):
            raise ConfigError("give one of max_iters and max_epochs")


def check_threshold(value: Any) -> float:
    """``value`` as a cosine in [-1, 1].

    Raises:
        ConfigError: it is not a number, or lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:
        raise ConfigError(
            f"gate threshold is {value!r}, not a number from -1 to 1",
            remedy="it is compared with a cosine; the paper has 0.6 on LLaVA and 0.8 on BLIP-2",
        )
    return float(value)


def at_least(value: Any, name: str, low: float, *, whole: bool = False) -> None:
    """Raise :class:`ConfigError` unless ``value`` is a number from ``low`` upwards."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= low:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name} is {value!r}, must be {kind} of at least {low}")


def _made(cls: type[Any], value: Any, where: str) -> Any:
    return value if isinstance(value, cls) else build(cls, value, where)
