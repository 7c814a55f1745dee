"""MEND, and MSCKE-MEND: MEND behind a scope classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..backbones import Backbone
from ..methods.mend.model import Mend
from ..methods.mend.mscke import MSCKEMEND
from .job import Job, finished, relative, scope_folder, train_method

IN_SCOPE_STEPS = 400


def train_in_scope(backbone: Backbone, mend: Path, job: Job) -> Path:
    """The MEND in ``mend`` trained further to answer in scope, in ``in-scope-<backbone>``.

    The scope classifier keeps other questions about the picture away from it. So, as in the
    settings of MSCKE-MEND, its loss has no term for image locality (``iloc`` is 0).
    """
    folder = job.out / f"in-scope-{backbone.name}"
    if not finished(folder):
        joint = job.settings("mscke-mend", backbone)
        settings = job.settings(
            "mend",
            backbone,
            max_iters=IN_SCOPE_STEPS,
            cloc=joint.cloc,
            iloc=joint.iloc,
            scope_questions=6,  # all that a record has
            early_stop_key="right/in_scope",
        )
        editor = Mend.from_pretrained(mend, backbone)
        job.train("mend", editor, job.records(), settings, folder.name)
        editor.save_pretrained(folder)
    return folder


def train_mscke_mend(method: str, backbone: Backbone, job: Job) -> Path:
    """MSCKE-MEND: the MEND of :func:`train_in_scope` behind the classifier of an MSCKE editor,
    which stays in its folder.

    Raises:
        CheckpointError: there is no MSCKE editor for the backbone.
    """
    mend = train_method("mend", backbone, replace(job, steps=None))
    folder, scope = job.folder(method, backbone), scope_folder(job, backbone)
    editor = MSCKEMEND.from_parts(backbone, scope, train_in_scope(backbone, mend, job))
    editor.save_pretrained(folder, parts={"scope": relative(scope, folder)})
    return folder
