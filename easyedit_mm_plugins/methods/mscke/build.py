"""An MSCKE editor from hyperparameters: a trained one if there is one, else a fresh one."""

from __future__ import annotations

import logging
from typing import TypeVar

from ...backbones.base import Backbone
from ...core.shipped import ASSETS
from .config import MSCKEHyperParams, MSCKETrainingHyperParams
from .model import MSCKE

LOG = logging.getLogger(__name__)
Made = TypeVar("Made", bound=MSCKE)


def editor_from_hparams(
    hparams: MSCKEHyperParams | MSCKETrainingHyperParams,
    backbone: Backbone,
    cls: type[Made] = MSCKE,
) -> Made:
    """The editor of class ``cls`` that ``hparams`` ask for, on ``backbone``.

    ``archive`` names a trained editor. Without one, editing takes the editor shipped for the
    backbone if there is one, and warns if there is none; training starts afresh.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
        ConfigError: a setting that cannot be used.
        BackboneError: the encoder's or the counterfactual model's weights cannot be had.
    """
    folder = hparams.archive
    if folder is None and isinstance(hparams, MSCKEHyperParams):
        folder = shipped_archive(cls.name, backbone)
    if folder is not None:
        editor = cls.from_pretrained(folder, backbone)
        editor.threshold = hparams.threshold
        return editor
    return cls.from_config(backbone, hparams.scope, hparams.counterfactual, hparams.threshold)


def shipped_archive(method: str, backbone: Backbone) -> str | None:
    """The folder of the editor that is shipped for ``backbone``; ``None``, with a warning, if there
    is none."""
    shipped = ASSETS / f"{method}-{backbone.name}"
    if (shipped / "config.json").is_file():
        return str(shipped)
    LOG.warning(
        "no trained %s editor is shipped for %s and archive is not set: this one is "
        "untrained and its answers mean nothing; train one and set archive to its folder",
        method,
        backbone.name,
    )
    return None
