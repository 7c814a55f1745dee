"""A DualEdit editor from hyperparameters: a trained one if there is one, else a fresh one."""

from __future__ import annotations

import logging

from ...backbones.base import Backbone
from ...core.shipped import ASSETS
from .config import DualEditHyperParams, DualEditTrainingHyperParams
from .model import DualEdit

LOG = logging.getLogger(__name__)


def editor_from_hparams(
    hparams: DualEditHyperParams | DualEditTrainingHyperParams,
    backbone: Backbone,
    cls: type[DualEdit] = DualEdit,
) -> DualEdit:
    """The editor that ``hparams`` ask for, on ``backbone``.

    ``archive`` names a trained editor, whose adapters are taken as they are; in editing the gate's
    kind is the one that ``hparams`` name, and a threshold there replaces the editor's own. Without
    one, editing takes the editor shipped for the backbone if there is one, and warns if there is
    none; training starts afresh.

    Raises:
        CheckpointError: the archive is missing, damaged, or for another backbone.
        ConfigError: a setting that cannot be used.
    """
    folder = hparams.archive
    if folder is None and isinstance(hparams, DualEditHyperParams):
        shipped = ASSETS / f"{cls.name}-{backbone.name}"
        if (shipped / "config.json").is_file():
            folder = str(shipped)
        else:
            LOG.warning(
                "no trained %s editor is shipped for %s and archive is not set: this one is "
                "untrained and its answers mean nothing; train one and set archive to its folder",
                *(cls.name, backbone.name),
            )
    if folder is None:
        return cls(backbone, hparams.config)
    editor = cls.from_pretrained(folder, backbone)
    kind, threshold = hparams.gate.kind, hparams.gate.threshold
    if isinstance(hparams, DualEditHyperParams) and kind != editor.config.gate.kind:
        return editor.with_gate(kind, threshold)
    if threshold is not None:
        editor.threshold = threshold
    return editor
