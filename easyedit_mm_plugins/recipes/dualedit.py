"""DualEdit and VisEdit: the adapters, then the gate's threshold on the records held back.

As in the paper, each task has an editor of its own: ``--data scenes-eic`` trains one for captions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbones import Backbone
from ..data import EditRecord
from ..methods.dualedit.calibration import calibrate
from ..methods.dualedit.model import DualEdit
from ..methods.dualedit.training import MEMORY, DualEditTrainer
from .job import Job, train_method

LOG = logging.getLogger(__name__)


def train(method: str, backbone: Backbone, job: Job) -> Path:
    """An editor with calibrated thresholds; with ``--gate-only`` a trained one with a new gate."""
    if job.gate_only:
        return refit_gate(backbone, job.folder(method, backbone), job)
    return train_method(method, backbone, job, extra=False, then=set_thresholds)


def refit_gate(backbone: Backbone, folder: Path, job: Job) -> Path:
    """Fit the learned gate of the DualEdit editor in ``folder`` again; its adapters stay."""
    settings, data = job.settings("dualedit", backbone), job.records(extra=False)
    torch.manual_seed(settings.seed)  # the gate begins as in training
    editor = DualEdit.from_pretrained(folder, backbone, fresh_gate=True)
    DualEditTrainer(editor, *data, settings, folder / "run").fit_gate()
    set_thresholds(editor, data[1])
    editor.save_pretrained(folder)
    return folder


def set_thresholds(editor: DualEdit, records: Sequence[EditRecord]) -> None:
    """Calibrate the editor's gate, a learned one among many edits in memory, and the paper's."""
    kind = editor.config.gate.kind
    if kind == "off":
        return
    for other in dict.fromkeys(("prompt-end", kind)):
        others = min(MEMORY, len(records)) - 1 if other == "learned" else 0
        found = calibrate(editor.with_gate(other), records, others=others)
        LOG.info(
            "gate %s: threshold %.3f, balanced accuracy %.4f, ROC area %.5f",
            *(other, found.threshold, found.balanced_accuracy, found.auc),
        )
        editor.thresholds[other] = round(found.threshold, 3)
    editor.threshold = editor.thresholds.pop(kind)
