"""`MultimodalTrainer` for the plugin's methods: EasyEdit's class and config, the method's trainer.

EasyEdit's own loop stays out of it: it optimises one edit at a time through the base model's
forward, and asks CUDA for memory figures.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from ..core.errors import BridgeError, UnknownNameError
from ..core.files import write_json
from ..core.registry import did_you_mean
from ..host.easyedit import Host
from ..host.models import backbone_of, build_backbone, check_model_name, resolve_device
from ..methods.entries import MethodEntry
from ..methods.training_run import best_editor
from .edited import EditedModel
from .methods import build_editor, check_archive, trainer_of
from .requests import RecordView

LOG = logging.getLogger(__name__)

Lookup = Callable[[str], "MethodEntry | None"]
Make = Callable[[Callable[..., Any]], Callable[..., Any]]


def wrap_init(host: Host, lookup: Lookup) -> Make:
    """The wrapper of ``MultimodalTrainer.__init__``."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(self: Any, config: Any, train_set: Any, val_set: Any) -> None:
            name = str(getattr(config, "alg", "")).upper()
            entry = lookup(name)
            if entry is None:
                if name and name not in host.train_algs:
                    hint = did_you_mean(name, list(host.train_algs))
                    raise UnknownNameError(f"unknown alg {config.alg!r}; {hint}")
                original(self, config, train_set, val_set)
            else:
                _set_up(self, host, entry, config, train_set, val_set)

        return __init__

    return make


def _delegate(name: str) -> Callable[[Host, Lookup], Make]:
    def wrap(host: Host, lookup: Lookup) -> Make:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                trainer = self.__dict__.get("method_trainer")
                if trainer is None:
                    return original(self, *args, **kwargs)
                return _METHODS[name](self, trainer, *args, **kwargs)

            return method

        return make

    return wrap


def _run(self: Any, trainer: Any) -> Any:
    """Train; like EasyEdit's, writes the final validation to ``results_dir/results.json``."""
    result = trainer.run()
    self.global_iter = getattr(trainer, "step", self.global_iter)
    if result:
        write_json(Path(self.results_dir) / "results.json", {"results": result})
    return result


def _validate(self: Any, trainer: Any, steps: int | None = None, log: bool = False) -> Any:
    """The method's validation, on at most ``steps`` records."""
    settings: Any = getattr(trainer, "hparams", None)
    before = getattr(settings, "val_steps", None)
    if steps is not None and hasattr(settings, "val_steps"):
        settings.val_steps = steps
    try:
        stats = trainer.validate()
    finally:
        if hasattr(settings, "val_steps"):
            settings.val_steps = before
    if log:
        LOG.info("validation: %s", stats)
    return stats


def _unsupported(name: str) -> Callable[..., Any]:
    def refuse(self: Any, trainer: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(trainer, name, None)
        if callable(own):
            return own(*args, **kwargs)
        raise BridgeError(
            f"{name} of MultimodalTrainer is not open to {type(trainer).__name__}",
            remedy="use run() and validate()",
        )

    return refuse


_METHODS: dict[str, Callable[..., Any]] = {
    "run": _run,
    "validate": _validate,
    "train_step": _unsupported("train_step"),
    "edit_step": _unsupported("edit_step"),
    "save_state": _unsupported("save_state"),
}

TRAINER_HOOKS: dict[str, Callable[[Host, Lookup], Make]] = {
    "__init__": wrap_init,
    **{name: _delegate(name) for name in _METHODS},
}


def trainable(entry: MethodEntry) -> Callable[..., EditedModel]:
    """The entry of ``ALG_TRAIN_DICT``, called as ``(model, config, model_constructor)``."""

    def make(model: nn.Module, config: Any, model_constructor: Any = None) -> EditedModel:
        return EditedModel(build_editor(entry, config, backbone_of(model)), [])

    make.__name__ = entry.alg
    return make


def _set_up(
    self: Any, host: Host, entry: MethodEntry, config: Any, train_set: Any, val_set: Any
) -> None:
    check_model_name(config.model_name)
    check_archive(config)
    make_trainer = trainer_of(entry)
    train: Any = RecordView(train_set)
    val: Any = RecordView(val_set)
    resolve_device(getattr(config, "device", None))
    backbone = build_backbone(host, config)
    editor = build_editor(entry, config, backbone)
    self.config, self.train_set, self.val_set = config, train_set, val_set
    self.backbone, self.editor = backbone, editor
    self.model, self.original_model = EditedModel(editor, []), backbone.model
    self.archive = self.lr_opt = None
    self.global_iter = 0
    self.start_time = time.strftime("%d/%m/%Y-%H:%M:%S")
    self.results_dir = results = getattr(config, "results_dir", None) or "./results"
    out_dir = os.path.join(results, config.alg, backbone.name.replace("/", "_"))
    size = getattr(config, "batch_size", 1)
    self.train_loader = DataLoader(train, batch_size=size, shuffle=True, collate_fn=list)
    val_size = getattr(config, "val_batch_size", 1)
    self.val_loader = DataLoader(val, batch_size=val_size, collate_fn=list)
    self.method_trainer = make_trainer(editor, train, val, config, out_dir)
    # What hparams.archive takes afterwards.
    self.save_path = str(best_editor(self.method_trainer, out_dir))
    self.opt = getattr(self.method_trainer, "optimizer", None)
