"""Hyperparameters in EasyEdit's own form: dataclasses that are read from YAML files.

A key that is missing or unknown is an error that names the nearest key: a misspelt setting must not
pass in silence.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..core.shipped import HPARAMS

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def build(cls: type[Any], values: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass ``cls`` from a mapping, refusing unknown and missing keys.

    Raises:
        ConfigError: naming ``where``, the key and, for an unknown one, the nearest known key.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be a mapping of settings, not {values!r}")
    known = {f.name: f for f in fields(cls) if f.init}
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}; {did_you_mean(str(key), list(known))}"
            )
    required = (
        n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING
    )
    missing = [name for name in required if name not in values]
    if missing:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}", remedy="add it to the file")
    return cls(**values)


def read_yaml(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The mapping in a YAML file, whose name may lack ``.yaml`` as EasyEdit allows.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        path = path.with_name(path.name + ".yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"hparams file {path} does not exist; {did_you_mean(path.stem, near)}"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"hparams file {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"hparams file {path} is not a mapping of settings")
    return path, {key: read_value(value) for key, value in values.items()}


def read_value(value: Any) -> Any:
    """A YAML value; YAML 1.1 reads 1e-5 as text, and EasyEdit's files are full of such numbers."""
    if isinstance(value, dict):
        return {key: read_value(item) for key, item in value.items()}
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def shipped_settings(alg: str, backbone: str, *, training: bool = False) -> dict[str, Any] | None:
    """The content of the shipped hparams file of a method for a backbone, or ``None``.

    Args:
        alg: the method's folder below ``hparams/`` (:attr:`MethodEntry.alg`).

    Raises:
        ConfigError: the file cannot be read.
    """
    folder = HPARAMS / "TRAINING" / alg if training else HPARAMS / alg
    path = folder / f"{backbone}.yaml"
    return read_yaml(path)[1] if path.is_file() else None


class HParams:
    """What every method's hyperparameters share; a dataclass of settings inherits it."""

    _alg: ClassVar[str]  # the method's name in EasyEdit
    _title: ClassVar[str]  # and in a sentence
    _name_key: ClassVar[str] = "alg_name"

    @classmethod
    def from_hparams(cls, hparams_name_or_path: str | Path) -> Self:
        """Read a YAML file, with or without ``.yaml`` in the name, as EasyEdit's classes do.

        Raises:
            ConfigError: a missing file, an unknown or missing key, or another method's file.
        """
        path, values = read_yaml(hparams_name_or_path)
        for key in ("alg_name", "alg"):
            if key in values and values[key] != cls._alg:
                raise ConfigError(
                    f"{path}: is for {values[key]}, not for {cls._title}",
                    remedy=f"use that method's class, or a file with {cls._name_key}: {cls._alg}",
                )
        if cls._name_key not in values:
            raise ConfigError(f"{path}: missing key {cls._name_key}")
        return build(cls, values, str(path))

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values (EasyEdit's classes have this method)."""
        return asdict(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)


@dataclass
class ModelHParams(HParams):
    """Which base model, and where. EasyEdit's loaders read many of these by name."""

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
    exact_match: bool = False  # EasyEdit's metric switch; the release ignores it
    coco_image: str | None = None  # EasyEdit: image root of the records
    rephrase_image: str | None = None  # EasyEdit: image root of rephrased images
    archive: str | None = None  # folder of a trained editor; null: the shipped one, or untrained


@dataclass
class LoopHParams(ModelHParams):
    """What ``methods/training.py`` asks of any method's training settings."""

    seed: int = 0
    opt: str = "Adam"  # or AdamW
    lr: float = 1e-5
    weight_decay: float = 0.0
    schedule: str = "constant"  # or cosine, to a tenth
    warmup: int = 0  # steps of linear warm-up
    batch_size: int = 1  # records
    accumulate_bs: int = 1  # batches per optimiser step
    grad_clip: float = 100.0
    max_iters: int | None = None  # batches
    max_epochs: int | None = None  # EasyEdit: instead of max_iters
    val_batch_size: int = 1
    val_interval: int = 5000
    val_steps: int | None = None  # at most so many records in a validation; null: all
    log_interval: int = 200
    model_save_pt: int = 1000  # EasyEdit: steps between checkpoints to resume from
    early_stop_patience: int = 30000  # steps without a better value
    early_stop_key: str = "loss/total_val"  # what validation reports; losses: lower is better
    results_dir: str = "./results"
    eval_only: bool = False
    final_eval: bool = True  # validate the best checkpoint at the end
    save: bool = True
    silent: bool = False  # EasyEdit
    debug: bool = False  # EasyEdit
    feature_cache: int = 20000  # images whose frozen base features are kept; 0: none

    def __post_init__(self) -> None:
        choice(self.opt, "opt", ("Adam", "AdamW"))
        choice(self.schedule, "schedule", ("constant", "cosine"))
        for name in ("batch_size", "accumulate_bs", "val_batch_size", "val_interval"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("log_interval", "model_save_pt", "early_stop_patience"):
            at_least(getattr(self, name), name, 1, whole=True)
        for name in ("lr", "grad_clip", "weight_decay", "warmup", "feature_cache"):
            at_least(getattr(self, name), name, 0)
        for name in ("max_iters", "max_epochs", "val_steps"):
            if getattr(self, name) is not None:
                at_least(getattr(self, name), name, 1, whole=True)
        if (self.max_iters is None) == (self.max_epochs is None):
            raise ConfigError("give one of max_iters and max_epochs")


def choice(value: Any, name: str, known: tuple[str, ...]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``known``."""
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; {did_you_mean(str(value), list(known))}")


def at_least(value: Any, name: str, low: float, *, whole: bool = False) -> None:
    """Raise :class:`ConfigError` unless ``value`` is a number from ``low`` upwards."""
    if isinstance(value, bool) or not isinstance(value, (int,) if whole else (int, float)):
        raise ConfigError(f"{name} is {value!r}, not a {'whole ' if whole else ''}number")
    if not value >= low:
        raise ConfigError(f"{name} is {value}, must be at least {low}")
