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

import logging
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from .. import methods as _builtin  # registers the plugin's own methods
from ..backbones.base import Backbone
from ..errors import BridgeError, CheckpointError
from ..methods.base import Editor
from ..registry import METHODS

LOG = logging.getLogger(__name__)
_OWN = {"mscke", "serac", "unedited"}
assert _builtin

# The plugin's own methods, for those that do not declare it themselves.
_DECLARED = {"mscke": ("MSCKE", "easyedit_mm_plugins.methods.mscke:MSCKETrainer")}


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
        alg = getattr(cls, "easyedit_name", None) or _declared(cls)[0]
        if not alg:
            continue
        if found.get(alg, cls) is not cls:
            raise BridgeError(
                f"two methods want to be {alg!r} in EasyEdit: {found[alg]!r} and {cls!r}",
                remedy="change easyedit_name of one of them",
            )
        found[alg] = cls
    return found, problems


def build_editor(
    cls: type[Editor], hparams: Any, backbone: Backbone, *, warn: bool = True
) -> Editor:
    """An editor of class ``cls`` without edits: trained from ``hparams.archive``, or untrained.

    Random weights of an untrained editor follow from ``hparams.seed``; the process's own random
    state is left alone.

    Args:
        warn: say so when the editor is untrained.

    Raises:
        CheckpointError: the archive is missing, broken, or for another backbone.
    """
    archive = getattr(hparams, "archive", None)
    if archive:
        check_archive(archive)
    elif warn and hasattr(cls, "from_pretrained"):
        warnings.warn(
            f"{cls.__name__}: hparams.archive is not set, so the editor is untrained and its "
            "scores mean nothing; train one with MultimodalTrainer and set archive to its folder",
            stacklevel=2,
        )
    with torch.random.fork_rng():
        torch.manual_seed(int(getattr(hparams, "seed", 0) or 0))
        if hasattr(cls, "from_hparams"):
            return cls.from_hparams(hparams, backbone)
        if archive:
            editor = cls.from_pretrained(archive, backbone)
            _override_threshold(editor, hparams)
            return editor
        if hasattr(cls, "from_config"):
            parts = (hparams.scope, hparams.counterfactual, hparams.threshold)
            return cls.from_config(backbone, *parts)
        return cls(backbone)


def _override_threshold(editor: Editor, hparams: Any) -> None:
    """A threshold that the hparams change from its default wins over the archive's."""
    wanted = getattr(hparams, "threshold", None)
    default = getattr(type(hparams), "threshold", None)  # a dataclass keeps defaults there
    if wanted is not None and wanted != default and hasattr(editor, "threshold"):
        editor.threshold = wanted


def check_archive(archive: str | Path) -> None:
    """Raise before long work if ``archive`` is not a folder."""
    if not Path(archive).is_dir():
        raise CheckpointError(
            f"hparams.archive={archive} is not a folder",
            remedy="give the folder that save_pretrained or MultimodalTrainer wrote, or null",
        )


def trainer_class(cls: type[Editor]) -> Any:
    """The trainer that ``cls`` declares.

    Raises:
        BridgeError: it declares none.
    """
    declared = getattr(cls, "easyedit_trainer", None) or _declared(cls)[1]
    if declared is None:
        raise BridgeError(
            f"{cls.__name__} declares no easyedit_trainer, so EasyEdit cannot train it",
            remedy="train it by its own means and set hparams.archive",
        )
    if isinstance(declared, str):
        module, _, attribute = declared.partition(":")
        return getattr(import_module(module), attribute)
    return declared


def _declared(cls: type[Editor]) -> tuple[str | None, str | None]:
    own = cls.__module__.startswith(__package__.rpartition(".")[0] + ".")
    return _DECLARED.get(cls.name, (None, None)) if own else (None, None)
