"""Training a method by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..backbones import check_backbones, load_backbone
from ..core.distributed import Ranks
from ..core.errors import ConfigError, UnknownNameError
from ..core.registry import did_you_mean
from ..core.yaml_files import settings_file
from ..data import load_records
from .entries import METHODS, MethodEntry
from .factory import editor_from_settings
from .settings import HParams, build, shipped_settings


def trainable(method: str) -> MethodEntry:
    """The entry of a method that can be trained.

    Raises:
        UnknownNameError: no such method, or it has no trainer; the message offers the nearest.
    """
    if method in METHODS and METHODS.get(method).trainer is not None:
        return METHODS.get(method)
    known = [entry.name for entry in METHODS if entry.trainer is not None]
    raise UnknownNameError(f"method {method!r} has no trainer here; {did_you_mean(method, known)}")


def training_settings(
    method: str,
    backbone: str,
    path: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> HParams:
    """A method's settings for training: the file ``path`` or those shipped, with ``changes``.

    Raises:
        ConfigError: nothing is shipped for the backbone and no file is given, or a setting is
            unknown, missing or of no use.
    """
    entry = trainable(method)
    cls = entry.training_class
    if cls is None:
        return HParams()
    if path is not None:
        settings = cls.from_hparams(path)
    else:
        values = shipped_settings(entry.alg, Path(backbone).name, training=True)
        if values is None and not settings_file(entry.alg):
            values = {"model_name": backbone}  # the method's defaults are for every backbone
        if values is None:
            raise ConfigError(
                f"no training settings are shipped for {method} on {backbone}",
                remedy="give a file with --hparams",
            )
        settings = build(cls, values, f"{method} for {backbone}")
    known = settings.to_dict()
    for key in changes or {}:
        if key not in known:
            raise ConfigError(f"--set: unknown key {key!r}; {did_you_mean(key, list(known))}")
    return settings.replace(**dict(changes or {}))


def train_editor(
    method: str,
    backbone: str,
    *,
    out: Path,
    data: str = "scenes",
    images: Path | None = None,
    val: int = 200,
    limit: int | None = None,
    hparams: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    device: str = "cpu",
    dtype: str | None = None,
    skip_bad: bool = False,
    allow_outside: bool = False,
    begin: Callable[[Any, int, int], None] | None = None,
) -> tuple[Path, dict[str, float]]:
    """Train ``method`` for ``backbone`` in ``out``, going on from where a stopped run was.

    Under ``torchrun`` or ``accelerate launch`` the processes share the training.

    Args:
        data, images, limit, skip_bad, allow_outside: see :func:`load_records`.
        val: so many of the last records are kept for validation.
        begin: called by the first process before the first step, with the trainer and the numbers
            of records to train on and to validate on.

    Returns:
        The folder of the best editor, and the final validation.

    Raises:
        ConfigError: an unknown method or setting. DataError: a bad record. TrainingError,
            RunError: from the trainer.
    """
    entry = trainable(method)
    ranks = Ranks.here()
    device = ranks.device(device)
    check_backbones(backbone)
    settings = training_settings(method, backbone, hparams, changes)
    if hasattr(settings, "device"):
        settings = settings.replace(device=device)
    loaded = load_records(
        data,
        split="train",
        images=images,
        limit=limit,
        skip_bad=skip_bad,
        extra=True,
        allow_outside=allow_outside,
    )
    cut = len(loaded.records) - min(val, len(loaded.records) // 2)
    base = load_backbone(backbone, device=device, dtype=dtype)
    editor = editor_from_settings(entry, settings, base, untrained="train")
    make = entry.trainer_class
    trainer = make(editor, loaded.records[:cut], loaded.records[cut:], settings, out)
    if ranks.first and begin is not None:
        begin(trainer, cut, len(loaded.records) - cut)
    final = trainer.run()
    ranks.leave()
    return best_editor(trainer, out), final or {}


def best_editor(trainer: Any, out: str | Path) -> Path:
    """Where a trainer that was given the folder ``out`` leaves its best editor."""
    return Path(getattr(trainer, "editor_folder", None) or out)
