"""MSCKE-Self, and MSCKE-MEND-Self, which is made of trained parts.

MSCKE-Self's heads are trained on what the frozen backbone says, and calibrated with
:data:`EDITS` edits in force: those of the records held back, whose questions are asked, and
training ones. What answers in scope stays in the folder of the MSCKE or MSCKE-MEND editor.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ..backbones import Backbone
from ..core.errors import CheckpointError
from ..methods.mend.mscke_self import MSCKEMENDSelf
from ..methods.mscke_self.model import MSCKESelf
from ..methods.mscke_self.parts import trained_counterfactual
from .job import Job, finished, part_of, relative

EDITS = 1000


def train(method: str, backbone: Backbone, job: Job) -> Path:
    """MSCKE-Self: new heads before the counterfactual model of the backbone's MSCKE editor.

    Raises:
        CheckpointError: there is no MSCKE editor for the backbone.
    """
    folder = job.folder(method, backbone)
    if finished(folder):
        return folder
    answers = trained(job, "mscke", backbone)
    settings, (records, held_back) = job.settings(method, backbone), job.records()
    torch.manual_seed(settings.seed)
    model = trained_counterfactual(answers, backbone)
    editor = MSCKESelf.from_config(backbone, settings.scope, model)
    job.train(method, editor, (records, held_back), settings, folder.name)
    more = [record.edit for record in records[: max(0, EDITS - len(held_back))]]
    editor.calibrate(held_back, edits=len(held_back) + len(more), more=more)
    return save(editor, folder, counterfactual=part_of(answers, "counterfactual"))


def join(method: str, backbone: Backbone, job: Job) -> Path:
    """MSCKE-MEND-Self: the heads of the backbone's MSCKE-Self before the MEND of its MSCKE-MEND.

    Raises:
        CheckpointError: one of the two is missing.
    """
    heads, answers = trained(job, "mscke-self", backbone), trained(job, "mscke-mend", backbone)
    editor = MSCKEMENDSelf.from_parts(backbone, heads, answers)
    parts = {"scope": part_of(heads, "scope"), "counterfactual": part_of(answers, "counterfactual")}
    return save(editor, job.folder(method, backbone), **parts)


def trained(job: Job, method: str, backbone: Backbone) -> Path:
    """The folder of a trained editor, in the job's results or where it finds others' editors.

    Raises:
        CheckpointError: it is in neither.
    """
    name = f"{method}-{backbone.name}"
    for place in (job.out, job.mscke):
        if finished(place / name):
            return place / name
    raise CheckpointError(
        f"there is no {name} in {job.out} or {job.mscke}",
        remedy=f"train it first: python -m {__package__} {method} {backbone.name}",
    )


def save(editor: MSCKESelf, folder: Path, **elsewhere: Path) -> Path:
    """Write an editor of which some parts lie elsewhere."""
    parts = {name: relative(at, folder) for name, at in elsewhere.items()}
    editor.save_pretrained(folder, parts=parts)
    return folder
