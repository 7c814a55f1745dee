"""Which of the plugin's methods EasyEdit learns about, and how one is built from hparams.

A method gets into EasyEdit's tables by a class attribute, whoever wrote it::

    class Mine(Editor):
        easyedit_name = "MINE"                # hparams.alg_name, and config.alg for training
        easyedit_trainer = "mine.train:MineTrainer"   # optional, or the class itself

        @classmethod
        def from_hparams(cls, hparams, backbone): ...  # trained if hparams.archive, else not

    METHODS.register("mine", Mine)            # or an entry point easyedit_mm_plugins.methods

Without ``from_hparams`` the bridge uses ``from_pretrained(hparams.archive, backbone)``, or
``cls(backbone)`` where there is no archive. A trainer is called as
``trainer(editor, train_records, val_records, config, out_dir)`` and has ``run()`` and
``validate()``.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from .. import methods as _builtin  # registers the plugin's own methods
from ..backbones.base import Backbone
from ..core.errors import BridgeError, CheckpointError
from ..core.registry import METHODS
from ..methods.base import Editor

LOG = logging.getLogger(__name__)
_OWN = {
    "dualedit",
    "ft-llm",
    "ft-visual",
    "mend",
    "mscke",
    "mscke-lora",
    "mscke-mend",
    "serac",
    "unedited",
    "visedit",
}
assert _builtin


@dataclass(frozen=True)
class _Declared:
    """What a method of the plugin's own would declare, without knowing EasyEdit."""

    name: str | None = None
    builder: str | None = None  # "module:function", called as (hparams, backbone)
    trainer: str | None = None
    saved: str = ""  # where below the trainer's folder the best editor lies


_DECLARED = {
    "mscke": _Declared(
        "MSCKE",
        "easyedit_mm_plugins.methods.mscke:editor_from_hparams",
        "easyedit_mm_plugins.methods.mscke:MSCKETrainer",
        "best",
    ),
    "mscke-lora": _Declared(
        "MSCKE-LORA",
        "easyedit_mm_plugins.methods.mscke.lora_editor:mscke_lora_from_hparams",
        "easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRATrainer",
        "best",
    ),
    "mscke-mend": _Declared(
        "MSCKE-MEND",
        "easyedit_mm_plugins.methods.mend:mscke_mend_from_hparams",
        "easyedit_mm_plugins.methods.mend:MSCKEMENDTrainer",
        "best",
    ),
}


def easyedit_methods() -> tuple[dict[str, type[Editor]], list[str]]:
    """Methods that declare an EasyEdit name, by that name; and what could not be imported.

    Raises:
        BridgeError: two methods declare the same name.
    """
    found: dict[str, type[Editor]] = {}
    problems = []
    for name in METHODS.names():
        try:
            cls = METHODS.get(name)
        except Exception as error:
            # Somebody else's broken package must not take the rest down with it.
            if name in _OWN:
                raise
            problems.append(f"method {name!r} does not import: {error}")
            LOG.warning(problems[-1])
            continue
        alg = getattr(cls, "easyedit_name", None) or _declared(cls).name
        if not alg:
            continue
        if found.get(alg, cls) is not cls:
            raise BridgeError(
                f"two methods want to be {alg!r} in EasyEdit: {found[alg]!r} and {cls!r}",
                remedy="change easyedit_name of one of them",
            )
        found[alg] = cls
    return found, problems


def build_editor(cls: type[Editor], hparams: Any, backbone: Backbone) -> Editor:
    """An editor of class ``cls`` without edits: trained from ``hparams.archive``, or untrained.

    Random weights of an untrained editor follow from ``hparams.seed``; the process's own random
    state is left alone.

    Raises:
        CheckpointError: the archive is missing, broken, or for another backbone.
    """
    archive = find_archive(hparams)
    if archive != getattr(hparams, "archive", None):
        hparams = copy.copy(hparams)
        hparams.archive = archive
    with torch.random.fork_rng():
        torch.manual_seed(int(getattr(hparams, "seed", 0) or 0))
        if hasattr(cls, "from_hparams"):
            return cls.from_hparams(hparams, backbone)
        builder = _declared(cls).builder
        if builder:
            return _resolve(builder)(hparams, backbone)
        if archive:
            return cls.from_pretrained(archive, backbone)
        if hasattr(cls, "from_pretrained"):
            LOG.warning(
                "%s: archive is not set, so the editor is untrained and its answers mean nothing; "
                "train one with MultimodalTrainer and set archive to its folder",
                cls.__name__,
            )
        return cls(backbone)


def find_archive(hparams: Any) -> str | None:
    """The folder of the trained editor that ``hparams.archive`` names, or a trainer's folder.

    Raises:
        CheckpointError: it is neither; raised before long work.
    """
    archive = getattr(hparams, "archive", None)
    if not archive:
        return None
    for folder in (Path(archive), *(Path(archive) / d.saved for d in _DECLARED.values())):
        if (folder / "config.json").is_file():
            return str(folder)
    if Path(archive).is_dir():
        return str(archive)  # a third party's, which may look different
    raise CheckpointError(
        f"hparams.archive={archive} is not a folder",
        remedy="give the folder that save_pretrained or MultimodalTrainer wrote, or null",
    )


def trainer_class(cls: type[Editor]) -> Any:
    """The trainer that ``cls`` declares.

    Raises:
        BridgeError: it declares none.
    """
    declared = getattr(cls, "easyedit_trainer", None) or _declared(cls).trainer
    if declared is None:
        raise BridgeError(
            f"{cls.__name__} declares no easyedit_trainer, so EasyEdit cannot train it",
            remedy="train it by its own means and set hparams.archive",
        )
    return _resolve(declared) if isinstance(declared, str) else declared


def saved_in(cls: type[Editor], out_dir: str | Path) -> str:
    """Where the trainer of ``cls`` leaves its best editor."""
    return str(Path(out_dir) / _declared(cls).saved)


def _resolve(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _declared(cls: type[Editor]) -> _Declared:
    own = cls.__module__.startswith("easyedit_mm_plugins.")
    return _DECLARED.get(getattr(cls, "name", ""), _Declared()) if own else _Declared()
