"""LTE: the adapter that follows facts before a question, taught once for all edits; and LTE-Self,
which is made of it and of the scope of MSCKE-Self."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backbones import Backbone
from ..methods.entries import METHODS
from ..methods.factory import editor_from_settings
from ..methods.training_run import training_settings
from .job import Job, finished, part_of, relative
from .mscke_self import trained


def train(method: str, backbone: Backbone, job: Job) -> Path:
    """An editor, trained once with the method's shipped settings."""
    folder = job.folder(method, backbone)
    if not finished(folder):
        settings, entry = job.settings(method, backbone), METHODS.get(method)
        editor: Any = editor_from_settings(entry, settings, backbone, untrained="train")
        job.train(method, editor, job.records(), settings, folder.name)
        editor.save_pretrained(folder)
    return folder


def join(method: str, backbone: Backbone, job: Job) -> Path:
    """LTE-Self: the adapter of the backbone's LTE behind the scope of its MSCKE-Self.

    Raises:
        CheckpointError: one of the two is missing.
    """
    folder, entry = job.folder(method, backbone), METHODS.get(method)
    lte, heads = trained(job, "lte", backbone), trained(job, "mscke-self", backbone)
    settings = training_settings("lte", backbone.name).replace(
        archive=str(lte), scope_of=str(heads)
    )
    editor: Any = editor_from_settings(entry, settings, backbone)
    parts = {"adapter": lte / "adapter", "scope": part_of(heads, "scope")}
    editor.save_pretrained(folder, parts={n: relative(at, folder) for n, at in parts.items()})
    return folder
