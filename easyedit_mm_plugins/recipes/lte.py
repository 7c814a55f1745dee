"""LTE: the adapter that follows facts before a question, taught once for all edits."""

from __future__ import annotations

from pathlib import Path

from ..backbones import Backbone
from ..methods.entries import METHODS
from ..methods.factory import editor_from_settings
from .job import Job, finished


def train(method: str, backbone: Backbone, job: Job) -> Path:
    """An editor, trained once with the method's shipped settings."""
    folder = job.folder(method, backbone)
    if not finished(folder):
        settings, entry = job.settings(method, backbone), METHODS.get(method)
        editor = editor_from_settings(entry, settings, backbone, untrained="train")
        job.train(method, editor, job.records(), settings, folder.name)
        editor.save_pretrained(folder)
    return folder
