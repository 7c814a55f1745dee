"""Which methods are registered with EasyEdit, and editors from its hparams objects."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ..backbones.base import Backbone
from ..core.errors import BridgeError, CheckpointError
from ..methods.base import Editor
from ..methods.entries import METHODS, MethodEntry
from ..methods.factory import editor_from_settings

LOG = logging.getLogger(__name__)


def easyedit_methods() -> tuple[dict[str, MethodEntry], list[str]]:
    """Methods that have a name in EasyEdit, by that name; and what could not be imported.

    Raises:
        BridgeError: two methods have the same name there.
    """
    found: dict[str, MethodEntry] = {}
    problems = []
    for name in METHODS.names():
        try:
            entry = METHODS.get(name)
            alg = entry.easyedit
            assert alg is None or entry.editor_class
        except Exception as error:
            # Another package's broken method must not take the rest down with it.
            problems.append(f"method {name!r} does not import: {error}")
            LOG.warning(problems[-1])
            continue
        if alg is None:
            continue
        if found.get(alg, entry) != entry:
            raise BridgeError(
                f"two methods want to be {alg!r} in EasyEdit: {found[alg].name} and {name}",
                remedy="change the field easyedit of one entry",
            )
        found[alg] = entry
    return found, problems


def build_editor(entry: MethodEntry, hparams: Any, backbone: Backbone) -> Editor:
    """An editor without edits: of ``hparams.archive``, the shipped one, or, with a warning, an
    untrained one.

    ``hparams`` for training (they have ``alg`` but are of no settings class for editing) give an
    untrained editor where they name no archive.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
    """
    settings, training = entry.settings_class, entry.training_class
    train = training is not None and isinstance(hparams, training)
    if settings is not None and isinstance(hparams, settings):
        train = False
    return editor_from_settings(entry, hparams, backbone, untrained="train" if train else "warn")


def check_archive(hparams: Any) -> None:
    """Raise :class:`CheckpointError`, before long work, if ``hparams.archive`` is no folder."""
    archive = getattr(hparams, "archive", None)
    if archive and not Path(archive).is_dir():
        raise CheckpointError(
            f"hparams.archive={archive} is not a folder",
            remedy="give the folder that save_pretrained or MultimodalTrainer wrote, or null",
        )


def trainer_of(entry: MethodEntry) -> Any:
    """The method's trainer.

    Raises:
        BridgeError: it has none.
    """
    if entry.trainer is None:
        raise BridgeError(
            f"{entry.name} has no trainer, so EasyEdit cannot train it",
            remedy="give its entry a trainer, or train it by its own means and set hparams.archive",
        )
    return entry.trainer_class
