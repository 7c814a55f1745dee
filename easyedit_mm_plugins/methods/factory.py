"""The one place that makes editors: from a method's name, its settings or a folder.

What the settings say wins over what a trained editor was saved with; without settings it is the
shipped hparams file of the method for the backbone.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import CheckpointError, ConfigError
from ..core.shipped import ASSETS
from .entries import METHODS, MethodEntry
from .settings import HParams, build, shipped_settings

if TYPE_CHECKING:
    from ..backbones import Backbone
    from .base import Editor

LOG = logging.getLogger(__name__)
_SERVES_A_FAMILY = "{method}-{family}"  # an editor that sees no image: "serac-scenes"


def load_editor(
    name: str, backbone: Backbone, folder: str | Path | None = None, task: str | None = None
) -> Editor:
    """A trained editor by method name, from ``folder`` or as shipped; see :func:`make_editor`."""
    return make_editor(name, backbone, folder=folder, task=task)


def make_editor(
    name: str,
    backbone: Backbone,
    *,
    settings: HParams | Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    task: str | None = None,
) -> Editor:
    """The editor of a method on a backbone, ready to answer.

    Args:
        settings: of the method, as an object or as the mapping of an hparams file; by default
            those that are shipped for the backbone.
        folder: a trained editor. Without ``settings`` it keeps the settings it was saved with.
        task: prefer a shipped editor that was trained for it, see :func:`shipped_editor`.

    Raises:
        UnknownNameError: no such method.
        ConfigError: settings that the method does not know, or that cannot be used.
        CheckpointError: a trained editor is missing, damaged, or for another backbone.
    """
    entry = METHODS.get(name)
    cls = entry.settings_class
    if folder is not None and settings is None:
        return entry.editor_class.from_pretrained(editor_folder(folder), backbone)
    values = shipped_settings(entry.alg, backbone.name) if settings is None else settings
    if not isinstance(values, HParams):
        values = dict(values or {})
        unknown = set(values) - {"archive"}
        if cls is None and unknown:
            raise ConfigError(
                f"{entry.name} has no setting {', '.join(sorted(unknown))} on {backbone.name}",
                remedy="it has no hparams file; archive= is all it takes",
            )
        if cls is None or (entry.needs_training and not unknown):
            archive = folder or values.get("archive") or shipped_editor(entry, backbone, task)
            if archive is None and entry.needs_training:
                raise _untrained(entry, backbone)
            if archive is None:
                return entry.editor_class(backbone)
            return entry.editor_class.from_pretrained(editor_folder(archive), backbone)
        values = {"model_name": backbone.name, **values, "device": str(backbone.device)}
        values = build(cls, values, f"{entry.name} for {backbone.name}")
    if folder is not None:
        values = values.replace(archive=str(folder))
    return editor_from_settings(entry, values, backbone, task=task)


def editor_from_settings(
    entry: MethodEntry,
    settings: Any,
    backbone: Backbone,
    *,
    untrained: Literal["refuse", "warn", "train"] = "refuse",
    task: str | None = None,
) -> Editor:
    """The editor that ``settings`` describe.

    ``settings.archive`` names a trained editor; without one it is the editor that is shipped for
    the backbone. Random weights of an untrained editor follow from ``settings.seed``; the process's
    own random state is left alone.

    Args:
        untrained: what to do where no trained editor is found: "refuse" it, "warn" and go on with
            one that is untrained, or "train": it is about to be trained, and nothing that is
            shipped is taken.
        task: see :func:`shipped_editor`.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
        ConfigError: a setting that cannot be used.
    """
    import torch

    archive = getattr(settings, "archive", None)
    # Both parts of an editor, each from a trained one: it needs no training of its own.
    made = all(getattr(settings, part, None) for part in ("scope_of", "answers_of"))
    if archive is None and entry.needs_training and untrained != "train" and not made:
        archive = shipped_editor(entry, backbone, task)
        if archive is None and untrained == "refuse":
            raise _untrained(entry, backbone)
        if archive is None:
            LOG.warning(
                "no trained %s editor is shipped for %s and archive is not set: this one is "
                "untrained and its answers mean nothing; train one and set archive to its folder",
                *(entry.name, backbone.name),
            )
    archive = None if archive is None else str(editor_folder(archive))
    if archive != getattr(settings, "archive", None):
        settings = _with_archive(settings, archive)
    cls = entry.trained_class if untrained == "train" else entry.editor_class
    with torch.random.fork_rng():
        torch.manual_seed(int(getattr(settings, "seed", 0) or 0))
        return cls.from_hparams(settings, backbone)


def _with_archive(settings: Any, archive: str | None) -> Any:
    import copy

    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        return dataclasses.replace(settings, archive=archive)
    settings = copy.copy(settings)
    settings.archive = archive
    return settings


def _untrained(entry: MethodEntry, backbone: Backbone) -> CheckpointError:
    return CheckpointError(
        f"no trained {entry.name} editor is shipped for {backbone.name}",
        remedy="train one (easyedit-mm train) and give its folder",
    )


def editor_folder(folder: str | Path) -> Path:
    """The folder of a trained editor, where ``folder`` is it or a trainer's folder with ``best/``.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = Path(folder)
    for found in (folder, folder / "best"):
        if os.path.isfile(found / "config.json"):
            return found
    if os.path.isdir(folder):
        return folder  # another package's, which may look different
    raise CheckpointError(
        f"{folder} is not a folder",
        remedy="give the folder of a trained editor (archive), or null for the shipped one",
    )


def shipped_editor(
    method: str | MethodEntry, backbone: str | Backbone, task: str | None = None
) -> Path | None:
    """The folder of the trained editor that is shipped for a backbone, if there is one.

    Args:
        task: "captions" prefers an editor trained on captions, as the papers train one for each
            task; where there is none, and by default, it is the editor for questions.
    """
    name = METHODS.key(method if isinstance(method, str) else method.name)
    place = backbone if isinstance(backbone, str) else backbone.name
    names = [f"{name}-{place}", _SERVES_A_FAMILY.format(method=name, family=place.split("-")[0])]
    names = [f"{name}-{place}-{task}", *names] if task else names
    return next((ASSETS / n for n in names if (ASSETS / n / "config.json").is_file()), None)
