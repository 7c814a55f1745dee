"""An MSCKE editor from hyperparameters: a trained one if there is one, else a fresh one."""

from __future__ import annotations

import logging

from ...backbones.base import Backbone
from ...backbones.zoo import ASSETS
from .config import MSCKEHyperParams, MSCKETrainingHyperParams
from .model import MSCKE

LOG = logging.getLogger(__name__)


def editor_from_hparams(
    hparams: MSCKEHyperParams | MSCKETrainingHyperParams, backbone: Backbone
) -> MSCKE:
    """The editor that ``hparams`` ask for, on ``backbone``.

    ``archive`` names a trained editor. Without one, editing takes the editor shipped for the
    backbone if there is one, and warns if there is none; training starts afresh.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
        ConfigError: a setting that cannot be used.
        BackboneError: the encoder's or the counterfactual model's weights cannot be had.
    """
    folder = hparams.archive
    if folder is None and isinstance(hparams, MSCKEHyperParams):
        shipped = ASSETS / f"mscke-{backbone.name}"
        if (shipped / "config.json").is_file():
            folder = str(shipped)
        else:
            LOG.warning(
                "no trained MSCKE editor is shipped for %s and archive is not set: this one is "
                "untrained and its answers mean nothing; train one and set archive to its folder",
                backbone.name,
            )
    if folder is not None:
        editor = MSCKE.from_pretrained(folder, backbone)
        editor.threshold = hparams.threshold
        return editor
    return MSCKE.from_config(backbone, hparams.scope, hparams.counterfactual, hparams.threshold)
