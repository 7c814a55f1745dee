"""Editing methods: ``base.py`` the contract, one folder a method.

A method is a class that keeps the :class:`Editor` contract and has
``from_pretrained(folder, backbone)``; ``METHODS.register(name, cls)`` makes it known everywhere.
"""

from __future__ import annotations

from pathlib import Path

from ..backbones.base import Backbone
from ..core.errors import CheckpointError
from ..core.registry import METHODS
from ..core.shipped import ASSETS
from .base import Answer, Editor, Forced, Unedited

METHODS.register("unedited", "easyedit_mm_plugins.methods.base:Unedited")
METHODS.register("ft-llm", "easyedit_mm_plugins.methods.ft:FTLLM")
METHODS.register("ft-visual", "easyedit_mm_plugins.methods.ft:FTVisual")
METHODS.register("mscke", "easyedit_mm_plugins.methods.mscke:MSCKE")
METHODS.register("mscke-lora", "easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRA")
METHODS.register("dualedit", "easyedit_mm_plugins.methods.dualedit:DualEdit")
METHODS.register("visedit", "easyedit_mm_plugins.methods.visedit:VisEdit")
METHODS.register("mend", "easyedit_mm_plugins.methods.mend.easyedit:MEND")
METHODS.register("mscke-mend", "easyedit_mm_plugins.methods.mend:MSCKEMEND")
METHODS.register("serac", "easyedit_mm_plugins.methods.serac.model:SERAC")
METHODS.register("ike", "easyedit_mm_plugins.methods.ike.model:IKE")


def load_editor(
    name: str, backbone: Backbone, folder: str | Path | None = None, task: str | None = None
) -> Editor:
    """A trained editor by method name, from ``folder`` or the one shipped for the backbone.

    Args:
        task: of what is shipped, what was trained for it, see :func:`shipped_editor`.

    Raises:
        UnknownNameError: no such method.
        CheckpointError: no folder was given and none is shipped for this backbone.
    """
    method = METHODS.get(name)
    if not hasattr(method, "from_pretrained"):
        return method(backbone)
    folder = folder or shipped_editor(name, backbone.name, task)
    if folder is None and not getattr(method, "trained", True):
        return method(backbone)  # nothing to train: it is made from its hparams
    if folder is None:
        raise CheckpointError(
            f"no trained {name} editor is shipped for {backbone.name}",
            remedy="train one (easyedit-mm train) and give its folder",
        )
    return method.from_pretrained(folder, backbone)


def shipped_editor(name: str, backbone: str, task: str | None = None) -> Path | None:
    """The folder of the trained editor that is shipped for a backbone, if there is one.

    Args:
        task: "captions" prefers an editor trained on captions, as the papers train one for each
            task; where there is none, and by default, it is the editor for questions.
    """
    # An editor that sees no image serves every backbone of a family ("serac-scenes").
    names = [backbone, backbone.split("-")[0]]
    names = [f"{backbone}-{task}", *names] if task else names
    folders = (ASSETS / f"{METHODS.key(name)}-{n}" for n in names)
    return next((folder for folder in folders if folder.is_dir()), None)


__all__ = ["Answer", "Editor", "Forced", "Unedited", "load_editor", "shipped_editor"]
