"""MEND, and MSCKE-MEND: MEND behind a scope classifier, with as much training.

1. ``begun-<backbone>``: a MEND, trained as its settings say; the start of both;
2. ``mend-<backbone>``: trained further with the same loss and more scope questions;
3. ``mscke-mend-<backbone>``: trained further, for as many steps, to answer in scope.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone
from ..methods.mend.model import Mend
from ..methods.mend.mscke import MSCKEMEND
from .job import Job, finished, relative, scope_folder

FURTHER_STEPS = 200  # of steps 2 and 3 each
FURTHER = {"max_iters": FURTHER_STEPS, "scope_questions": 4}


def begin(backbone: Backbone, job: Job) -> Mend:
    """The MEND with which both go on."""
    folder = job.out / f"begun-{backbone.name}"
    if finished(folder):
        return Mend.from_pretrained(folder, backbone)
    settings = job.settings("mend", backbone)
    torch.manual_seed(settings.seed)
    editor = Mend(backbone, settings.config)
    job.train("mend", editor, job.records(), settings, folder.name)
    editor.save_pretrained(folder)
    return editor


def further(backbone: Backbone, job: Job, folder: Path, **changes: Any) -> Path:
    """The MEND of :func:`begin` trained further with ``changes`` of the settings."""
    if not finished(folder):
        editor = begin(backbone, job)
        settings = job.settings("mend", backbone, **{**FURTHER, **changes})
        job.train("mend", editor, job.records(), settings, folder.name)
        editor.save_pretrained(folder)
    return folder


def train_mend(method: str, backbone: Backbone, job: Job) -> Path:
    """MEND, which must keep other questions about the picture by itself."""
    return further(backbone, job, job.folder(method, backbone))


def train_mscke_mend(method: str, backbone: Backbone, job: Job) -> Path:
    """MSCKE-MEND: a MEND that answers in scope, behind the classifier of an MSCKE editor, which
    stays in its folder.

    The scope classifier keeps other questions about the picture away from it. So, as in the
    settings of MSCKE-MEND, its loss has no term for image locality (``iloc`` is 0).

    Raises:
        CheckpointError: there is no MSCKE editor for the backbone.
    """
    scope, folder = scope_folder(job, backbone), job.folder(method, backbone)
    if finished(folder):
        return folder
    joint = job.settings("mscke-mend", backbone)
    inside = further(
        *(backbone, job, job.out / f"in-scope-{backbone.name}"),
        cloc=joint.cloc,
        iloc=joint.iloc,
        early_stop_key="right/in_scope",
    )
    editor = MSCKEMEND.from_parts(backbone, scope, inside)
    editor.save_pretrained(folder, parts={"scope": relative(scope, folder)})
    return folder
