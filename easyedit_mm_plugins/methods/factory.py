"""An editor from a method's name: its hparams file for the backbone, or what is shipped."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CheckpointError, ConfigError
from ..core.registry import METHODS
from ..core.shipped import HPARAMS
from ..evaluation.grid import MethodSpec
from .settings import build, read_yaml

if TYPE_CHECKING:
    from ..backbones import Backbone
    from . import Editor


# The class that a method's hparams file is read with. Others' methods have an attribute
# ``hparams_class`` instead: the class, or "module:class".
_CLASSES = {
    "mscke": "easyedit_mm_plugins.methods.mscke:MSCKEHyperParams",
    "mend": "easyedit_mm_plugins.methods.mend:MendHyperParams",
    "mscke-mend": "easyedit_mm_plugins.methods.mend:MSCKEMENDHyperParams",
    "dualedit": "easyedit_mm_plugins.methods.dualedit:DualEditHyperParams",
    "visedit": "easyedit_mm_plugins.methods.visedit:VisEditHyperParams",
}


def hparams_class(method: str) -> type[Any] | None:
    """The dataclass of a method's settings; ``None`` if it has none.

    Raises:
        UnknownNameError: no such method.
    """
    declared = _CLASSES.get(METHODS.key(method))
    if declared is None:
        declared = getattr(METHODS.get(method), "hparams_class", None)
    if isinstance(declared, str):
        module, _, attribute = declared.partition(":")
        return getattr(import_module(module), attribute)
    return declared


def hparams_folder(method: str) -> Path:
    """Where the method's hparams files lie, one for a backbone; it may not exist."""
    return HPARAMS / METHODS.key(method).upper()


def shipped_hparams(method: str, backbone: str) -> dict[str, Any] | None:
    """The content of the method's hparams file for a backbone, or ``None``.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = hparams_folder(method) / f"{backbone}.yaml"
    return read_yaml(path)[1] if path.is_file() else None


def make_editor(spec: MethodSpec, backbone: Backbone, task: str | None = None) -> Editor:
    """The editor that ``spec`` asks for.

    Args:
        task: what it is to be used for, see :func:`shipped_editor`.

    Raises:
        UnknownNameError: no such method.
        ConfigError: settings that the method does not know, or that cannot be used.
        CheckpointError: a trained editor is missing, damaged, or for another backbone.
    """
    from . import load_editor, shipped_editor

    settings_class = hparams_class(spec.name)
    values = spec.hparams
    if values is None:
        values = shipped_hparams(spec.name, backbone.name)
    if settings_class is None or values is None:
        further = set(values or ()) - {"archive"}
        if spec.hparams is not None and further:
            raise ConfigError(
                f"{spec.name} has no setting {', '.join(sorted(further))} on {backbone.name}",
                remedy="it has no hparams file; archive= is all it takes",
            )
        archive = spec.folder or (spec.hparams or {}).get("archive")
        return load_editor(spec.name, backbone, archive, task)
    from ..bridge.methods import build_editor

    method = METHODS.get(spec.name)
    if spec.folder and spec.hparams is None and hasattr(method, "from_pretrained"):
        # The hparams file speaks of the shipped editor; one in a folder has settings of its own.
        return load_editor(spec.name, backbone, spec.folder)
    changed = {"device": str(backbone.device)} if "device" in values else {}
    archive = spec.folder or values.get("archive")
    trained = hasattr(method, "from_pretrained") and getattr(method, "trained", True)
    if archive is None and trained:
        # The builders would warn and go on with random weights; a table must not.
        archive = shipped_editor(spec.name, backbone.name, task)
        if archive is None:
            raise CheckpointError(
                f"no trained {spec.name} editor is shipped for {backbone.name}",
                remedy="train one (easyedit-mm train) and give its folder as archive",
            )
    changed |= {"archive": str(archive)} if archive is not None else {}
    where = f"{spec.name} for {backbone.name}"
    return build_editor(method, build(settings_class, {**values, **changed}, where), backbone)
