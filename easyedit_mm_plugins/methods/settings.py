"""Settings in EasyEdit's own form: dataclasses that check their values and are read from YAML.

A class holds the defaults, and beside each field what it means and where its value comes from
("paper", "released", "EasyEdit", "KEBench"). ``easyedit-mm hparams show MSCKE/blip2`` prints them
as a file. A key that is missing or unknown is an error that names the nearest key: a misspelt
setting must not pass in silence.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, dataclass_transform

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..core.yaml_files import read_yaml, yaml_path
from .settings_files import ShortName, shipped_settings

__all__ = ["HParams", "LoopHParams", "ModelHParams", "build", "checked", "shipped_settings"]

CHECKS = ConfigDict(extra="forbid", use_attribute_docstrings=True)

# What a value may be. Numbers are finite, and neither text nor true or false passes for one.
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Strict(), Field(ge=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Weight = Annotated[Number, Field(ge=0)]  # a rate, or the weight of a loss
Share = Annotated[Number, Field(ge=0, le=1)]
Text = Annotated[str, BeforeValidator(lambda v: os.fspath(v) if isinstance(v, os.PathLike) else v)]
Names = Annotated[
    list[str],
    BeforeValidator(lambda v: [v] if isinstance(v, str) else v),
    Field(min_length=1),
]


def checked(kind: Any, value: Any, name: str) -> Any:
    """``value`` as one of the kinds above.

    Raises:
        ConfigError: it is none; ``name`` says what is wrong.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{name} is {value!r}{_wanted(error.errors())}") from None


C = TypeVar("C")


@dataclass_transform(field_specifiers=(dataclasses.field, Field))
def settings_class(cls: type[C]) -> type[C]:
    """A decorator for subclasses of :class:`Checked`: a dataclass whose values are checked when it
    is made, and whose fields are documented by the texts below them.
    """
    made: Any = dataclass(config=CHECKS)(cls)
    make = made.__init__

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            make(self, *args, **kwargs)
        except ValidationError as error:
            raise _config_error(made, error) from None

    made.__init__ = __init__
    return made


@settings_class
class Checked:
    """A dataclass whose values are checked when it is made.

    Raises:
        ConfigError: a key that is unknown or missing, or a value that cannot be used.
    """

    _section: ClassVar[str] = "Method"  # of the file, where the fields that a class adds stand

    def __post_init__(self) -> None:
        """Checks of several values at once; raises :class:`ConfigError`."""

    @model_validator(mode="wrap")
    @classmethod
    def _made(cls, values: Any, handler: Any) -> Any:
        if dataclasses.is_dataclass(values) and issubclass(cls, type(values)):
            values = {f.name: getattr(values, f.name) for f in fields(values)}
        try:
            return handler(values)
        except ValidationError as error:
            raise _config_error(cls, error) from None

    @classmethod
    def documentation(cls, name: str) -> str:
        """What is written below the field ``name``; "" if nothing is."""
        known = (vars(base).get("__pydantic_fields__", {}).get(name) for base in cls.__mro__)
        return next((f.description for f in known if f is not None and f.description), "")


def _config_error(cls: Any, error: ValidationError) -> ConfigError:
    """The first thing that is wrong, in our words; what the field is for is the remedy."""
    problems = error.errors(include_url=False)
    problems.sort(key=lambda p: p["type"] != "unexpected_keyword_argument")
    first = problems[0]
    where = "".join(f"[{p}]" if isinstance(p, int) else f"{p}" for p in first["loc"][:2])
    key = first["loc"][0] if first["loc"] else ""
    key = fields(cls)[key].name if isinstance(key, int) else str(key)  # given by its place
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, ConfigError):  # of a dataclass within
        message = f"{where}: {inner.message}" if where else inner.message
        return ConfigError(message, remedy=inner.remedy)
    if not key:
        return ConfigError(f"must be a mapping of settings, not {first['input']!r:.80}")
    if first["type"] in ("missing", "missing_argument"):
        return ConfigError(f"missing key {key}", remedy="add it")
    if first["type"] == "unexpected_keyword_argument":
        return _unknown(cls, key)
    same = [p for p in problems if p["loc"][:1] == first["loc"][:1]]
    meaning = " ".join(cls.documentation(key).split())
    return ConfigError(
        f"{key} is {first['input']!r:.80}{_wanted(same)}",
        remedy=f"{key}: {meaning}" if len(meaning) > len(key) + 20 else None,
    )


def _wanted(problems: list[Any]) -> str:
    """What pydantic says that a value must be, as the end of a sentence."""
    first = problems[0]
    if first["type"] == "literal_error":
        known = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"; {did_you_mean(str(first['input']), known)}"
    said = " or ".join(dict.fromkeys(p["msg"] for p in problems))
    for theirs, ours in (
        ("Value error, ", ""),
        ("Input should", "must"),
        ("List should", "must"),
        ("greater than or equal to", "at least"),
        ("less than or equal to", "at most"),
        (" after validation", ""),
    ):
        said = said.replace(theirs, ours)
    return f", but {said}"


def _unknown(cls: type[Any], key: str) -> ConfigError:
    known = [f.name for f in fields(cls) if f.init]
    return ConfigError(f"unknown key {key!r}; {did_you_mean(key, known)}")


def build(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """An instance of the dataclass ``cls`` from a mapping, refusing unknown and missing keys.

    Raises:
        ConfigError: naming ``where``, the key and, for an unknown one, the nearest known key.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: must be a mapping of settings, not {values!r}")
    none = dataclasses.MISSING
    needed = [f.name for f in fields(cls) if f.default is none and f.default_factory is none]
    missing = [name for name in needed if name not in values]
    try:
        for key in values:
            if key not in {f.name for f in fields(cls) if f.init}:
                raise _unknown(cls, str(key))
        if missing:
            raise ConfigError(f"missing key {', '.join(missing)}", remedy="add it to the file")
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", remedy=error.remedy) from None


@settings_class
class HParams(Checked):
    """What every method's hyperparameters share; a dataclass of settings inherits it."""

    _alg: ClassVar[str] = ""  # the method's name in EasyEdit
    _title: ClassVar[str] = ""  # and in a sentence
    _name_key: ClassVar[str] = "alg_name"  # "alg" in settings for training

    @classmethod
    def from_hparams(cls, hparams_name_or_path: str | Path) -> Self:
        """Read a YAML file, with or without ``.yaml`` in the name, as EasyEdit's classes do.

        A file is complete: what it leaves out has the class's defaults. A short name,
        ``MSCKE/blip2`` (for training ``TRAINING/MSCKE/blip2``; the class for training takes both),
        gives the settings that are shipped for a base model, and so does a path below the shipped
        ``hparams/`` that is no file.

        Raises:
            ConfigError: a missing file, an unknown or missing key, or another method's file.
        """
        path = yaml_path(hparams_name_or_path)
        name = None if path.is_file() else ShortName.meant(hparams_name_or_path)
        if name is not None:
            return cls._shipped(name)
        if not path.is_file():
            tail = ShortName.parse(hparams_name_or_path) or ShortName(cls._alg, "blip2")
            raise ConfigError(
                f"hparams file {path} does not exist; {tail.nearest(path)}",
                remedy=f"for the settings that are shipped give the short name {str(tail)!r}; "
                f"easyedit-mm hparams show {tail} > my.yaml writes a file to change",
            )
        path, values = read_yaml(path)
        for key in ("alg_name", "alg"):
            if key in values and values[key] != cls._alg:
                raise cls._another(path, values[key])
        if cls._name_key not in values:
            raise ConfigError(f"{path}: missing key {cls._name_key}")
        return build(cls, values, str(path))

    @classmethod
    def _shipped(cls, name: ShortName) -> Self:
        """The shipped settings of that name, or the defaults where nothing differs."""
        training = cls._name_key == "alg"
        if name.alg != cls._alg:
            raise cls._another(name, name.alg)
        if name.training and not training:
            raise ConfigError(f"{name} is for training", remedy=f"write {name.plain}")
        name = dataclasses.replace(name, training=training)
        return build(cls, settings_for(cls, name), str(name))

    @classmethod
    def _another(cls, where: object, alg: object) -> ConfigError:
        return ConfigError(
            f"{where}: is for {alg}, not for {cls._title}",
            remedy=f"use that method's class, or a file with {cls._name_key}: {cls._alg}",
        )

    def part(self, cls: type[Any]) -> Any:
        """The settings of the dataclass ``cls``, whose fields are among these."""
        return cls(**{f.name: getattr(self, f.name) for f in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """All settings as plain values (EasyEdit's classes have this method)."""
        return asdict(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)


def settings_for(cls: type[Any], name: ShortName) -> dict[str, Any]:
    """What differs from the defaults of ``cls``, also where the method's file says nothing."""
    from ..backbones.settings import model_settings  # late: it imports torch

    found = shipped_settings(name.alg, name.backbone, training=name.training)
    if found is not None:
        return found
    known = {f.name for f in fields(cls)}
    return {key: value for key, value in model_settings(name.backbone).items() if key in known}


def _a_model(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, dict)) or value == "":
        raise ValueError("must be the name of a base model")
    return value


@settings_class
class EasyEditHParams(HParams):
    """Which base model, and where: the keys that EasyEdit's own loaders and editors read."""

    model_name: Annotated[Any, BeforeValidator(_a_model)]
    """The base model: EasyEdit's own ("blip2", "minigpt4"), an embedded or a Hugging Face one."""
    name: Text | None = None
    """EasyEdit: folder or hub name of the base model's weights."""
    device: Annotated[int, Strict()] | str | None = "cpu"
    """A CUDA index, "cuda:0" or "cpu"."""
    model_class: str | None = None
    """EasyEdit: class of the base model."""
    tokenizer_class: str | None = None
    """EasyEdit: class of its tokenizer."""
    tokenizer_name: Text | None = None
    """EasyEdit: folder or hub name of its tokenizer."""
    qformer_checkpoint: Text | None = None
    """EasyEdit: BLIP-2's Q-Former weights."""
    qformer_name_or_path: Text | None = None
    """EasyEdit: the Q-Former's BERT."""
    state_dict_file: Text | None = None
    """EasyEdit: EVA ViT-g weights."""
    pretrained_ckpt: Text | None = None
    """EasyEdit: MiniGPT-4's projection."""
    freeze_qformer: Flag = True
    """EasyEdit: the Q-Former is not trained."""
    model_parallel: Flag = False
    """EasyEdit: spread the model over GPUs."""
    half: Flag = False
    """EasyEdit: the model in half precision."""
    exact_match: Flag = False
    """EasyEdit's metric switch; the release ignores it."""
    coco_image: Text | None = None
    """EasyEdit: image root of the records; null: image paths are taken as they are."""
    rephrase_image: Text | None = None
    """EasyEdit: image root of rephrased images."""
    archive: Text | None = None
    """Folder of a trained editor; null: the shipped one, or untrained."""
    alg_name: str = ""
    """EasyEdit: the method."""

    _section: ClassVar[str] = "Model"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alg_name = self.alg_name or self._alg


@settings_class
class ModelHParams(EasyEditHParams):
    """Which base model, and where; with what EasyEdit's own loaders do not know."""

    dtype: str | None = None
    """"float32", "bfloat16", "float16"; null: as the weights are."""
    device_map: str | dict[str, Any] | None = None
    """"auto" spreads the model over devices."""
    max_length: Count = 32
    """EasyEdit: longest target in tokens."""

    _section: ClassVar[str] = "Model"


@settings_class
class EasyEditLoopHParams(EasyEditHParams):
    """What EasyEdit's own trainers read."""

    seed: Whole = 0
    """Seed of all that is random."""
    opt: str = "Adam"
    """The optimiser."""
    lr: Weight = 1e-5
    """Learning rate."""
    batch_size: Count = 1
    """Records in a batch."""
    accumulate_bs: Count = 1
    """Batches per optimiser step."""
    grad_clip: Weight = 100.0
    """Longest norm of a gradient; a longer one is scaled down to it."""
    max_iters: Count | None = None
    """Batches to train on; give this or max_epochs."""
    max_epochs: Count | None = None
    """EasyEdit: passes over the records; give this or max_iters."""
    val_batch_size: Count = 1
    """Records in a batch of a validation."""
    val_interval: Count = 5000
    """Batches from one validation to the next."""
    val_steps: Count | None = None
    """At most so many records in a validation; null: all."""
    log_interval: Count = 200
    """Batches from one line of the log to the next."""
    model_save_pt: Count = 1000
    """EasyEdit: steps between checkpoints to resume from."""
    early_stop_patience: Count = 30000
    """Steps without a better value."""
    early_stop_key: str = "loss/total_val"
    """The value of a validation that says which editor is best; of losses, the lowest is."""
    results_dir: Text = "./results"
    """Folder below which results are written."""
    eval_only: Flag = False
    """EasyEdit: validate and do not train."""
    final_eval: Flag = True
    """Validate the best checkpoint at the end."""
    save: Flag = True
    """EasyEdit: write checkpoints."""
    silent: Flag = False
    """EasyEdit: print less."""
    debug: Flag = False
    """EasyEdit: print more."""

    _section: ClassVar[str] = "Training"


@settings_class
class LoopHParams(EasyEditLoopHParams, ModelHParams):
    """What ``methods/training.py`` asks of any method's training settings."""

    opt: Literal["Adam", "AdamW"] = "Adam"
    weight_decay: Weight = 0.0
    """Of the optimiser."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate: constant, or along a cosine to a tenth."""
    warmup: Whole = 0
    """Steps of linear warm-up."""
    feature_cache: Whole = 20000
    """Images whose frozen base features are kept; 0: none."""

    _section: ClassVar[str] = "Training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.max_iters is None) == (self.max_epochs is None):
            raise ConfigError("give one of max_iters and max_epochs")


@settings_class
class TrainingHParams(LoopHParams):
    """The settings of a trainer; EasyEdit's key for its method is ``alg``."""

    alg: str = ""
    """EasyEdit: the method."""

    _name_key: ClassVar[str] = "alg"
    _section: ClassVar[str] = "Model"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alg = self.alg or self._alg
