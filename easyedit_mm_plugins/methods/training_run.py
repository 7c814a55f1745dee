"""``easyedit-mm train``: a shipped or given training YAML, records, and the method's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from ..core.console import CONSOLE
from ..core.distributed import Ranks
from ..core.errors import ConfigError, UnknownNameError
from ..core.loggers import check_loggers, open_loggers
from ..core.registry import METHODS, did_you_mean
from ..core.shipped import HPARAMS
from ..evaluation import jobs

# Package below methods/, and in it: settings, the editor that they ask for, its trainer.
TRAINABLE = {
    "mscke": ("mscke", "MSCKETrainingHyperParams", "editor_from_hparams", "MSCKETrainer"),
    "dualedit": (
        "dualedit",
        "DualEditTrainingHyperParams",
        "editor_from_hparams",
        "DualEditTrainer",
    ),
    "visedit": (
        "visedit",
        "VisEditTrainingHyperParams",
        "visedit_from_hparams",
        "VisEditTrainer",
    ),
    "mend": ("mend", "MendTrainingHyperParams", "mend_from_hparams", "MendTrainer"),
    "mscke-lora": (
        "mscke.lora_editor",
        "MSCKELoRATrainingHyperParams",
        "mscke_lora_from_hparams",
        "MSCKELoRATrainer",
    ),
    "mscke-mend": (
        "mend",
        "MSCKEMENDTrainingHyperParams",
        "mscke_mend_from_hparams",
        "MSCKEMENDTrainer",
    ),
}


def training_parts(method: str) -> tuple[Any, ...]:
    """A method's class of training settings, its function (settings, backbone) -> editor, and its
    trainer.

    Raises:
        UnknownNameError: it has no trainer here; the message offers the nearest that has.
    """
    if METHODS.key(method) not in TRAINABLE:
        hint = did_you_mean(method, list(TRAINABLE))
        raise UnknownNameError(f"method {method!r} has no trainer here; {hint}")
    package, *names = TRAINABLE[METHODS.key(method)]
    module = import_module(f".{package}", __package__)
    return tuple(getattr(module, name) for name in names)


def shipped_hparams(method: str, backbone: str) -> Path:
    """The package's training file of a method for a backbone.

    Raises:
        ConfigError: there is none; the message lists those of the method.
    """
    folder = HPARAMS / "TRAINING" / METHODS.key(method).upper()
    path = folder / f"{Path(backbone).name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise ConfigError(
            f"no training file is shipped for {method} on {backbone} (there are: {known})",
            remedy="give one with --hparams",
        )
    return path


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` strings as settings; values are read as YAML, as in the file."""
    settings = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator or not key:
            raise ConfigError(f"--set {change!r} is not KEY=VALUE")
        try:
            settings[key.strip()] = float(value) if _scientific(value) else yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change!r}: the value is not YAML ({error})") from error
    return settings


def train_editor(
    method: str,
    backbone: str,
    *,
    out: Path,
    data: str = jobs.SCENES,
    images: Path | None = None,
    val: int = 200,
    limit: int | None = None,
    hparams: Path | None = None,
    changes: Sequence[str] = (),
    device: str = "cpu",
    dtype: str | None = None,
    skip_bad: bool = False,
    log: Sequence[str] = (),
) -> Path:
    """Train ``method`` for ``backbone`` in ``out``, going on from where a stopped run was.

    Args:
        log: names of loggers (``loggers.py``) that are told what ``history.json`` is told.

    Returns:
        The folder of the best editor, ``out``/best.

    Raises:
        ConfigError: an unknown method or setting. DataError: a bad record. TrainingError,
            RunError: from the trainer.
    """
    check_loggers(log)
    settings_class, make_editor, make_trainer = training_parts(method)
    settings = settings_class.from_hparams(hparams or shipped_hparams(method, backbone))
    ranks = Ranks.here()
    device = ranks.device(device)
    wanted = {**parse_changes(changes), "device": device}
    known = settings.to_dict()
    for key in wanted:
        if key not in known:
            raise ConfigError(f"--set: unknown key {key!r}; {did_you_mean(key, list(known))}")
    settings = settings.replace(**wanted)
    jobs.check_names([], [backbone])
    loaded = jobs.load_records(
        data, split="train", images=images, limit=limit, skip_bad=skip_bad, extra=True
    )
    held_out = min(val, len(loaded.records) // 2)
    cut = len(loaded.records) - held_out
    import torch

    from ..backbones import load_backbone

    base = load_backbone(backbone, device=device, dtype=dtype)
    torch.manual_seed(settings.seed)
    editor = make_editor(settings, base)
    trainer = make_trainer(editor, loaded.records[:cut], loaded.records[cut:], settings, out)
    best = Path(trainer.out_dir) / "best"
    if not ranks.first:
        trainer.run()
        ranks.leave()
        return best
    by = f", by {ranks.world} processes" if ranks.world > 1 else ""
    CONSOLE.print(
        f"training {method} for {backbone} on {cut} records, {held_out} kept for validation{by}",
        markup=False,
    )
    with open_loggers(log, trainer.out_dir, config=settings.to_dict()) as loggers:
        trainer.listeners.append(loggers.log)
        final = trainer.run()
    for key, value in sorted(final.items()):
        CONSOLE.print(f"  {key:<24} {value:.4f}", markup=False)
    CONSOLE.print(f"editor: {best}", markup=False)
    ranks.leave()
    return best


def _scientific(value: str) -> bool:
    """YAML 1.1 reads 1e-5 as text."""
    head, _, tail = value.strip().lower().partition("e")
    return (
        bool(tail)
        and head.replace(".", "", 1).lstrip("+-").isdigit()
        and (tail.lstrip("+-").isdigit())
    )
