"""MEND and MSCKE-MEND from hyperparameters: a trained editor if there is one, else a fresh one."""

from __future__ import annotations

from ...backbones.base import Backbone
from ..mscke.build import editor_from_hparams, shipped_archive
from .config import MendHyperParams, MendTrainingHyperParams
from .model import Mend
from .mscke import MSCKEMEND, MSCKEMENDHyperParams, MSCKEMENDTrainingHyperParams


def mend_from_hparams(
    hparams: MendHyperParams | MendTrainingHyperParams, backbone: Backbone
) -> Mend:
    """The MEND that ``hparams`` ask for, on ``backbone``.

    ``archive`` names a trained one. Without it, editing takes the one shipped for the backbone if
    there is one, and warns if there is none; training starts afresh.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
        ConfigError: a setting that cannot be used, a name in ``inner_params`` that fits no module.
    """
    folder = hparams.archive
    if folder is None and isinstance(hparams, MendHyperParams):
        folder = shipped_archive("mend", backbone)
    if folder is not None:
        return Mend.from_pretrained(folder, backbone)
    return Mend(backbone, hparams.config)


def mscke_mend_from_hparams(
    hparams: MSCKEMENDHyperParams | MSCKEMENDTrainingHyperParams, backbone: Backbone
) -> MSCKEMEND:
    """The MSCKE-MEND that ``hparams`` ask for; see :func:`mend_from_hparams`."""
    return editor_from_hparams(hparams, backbone, MSCKEMEND)
