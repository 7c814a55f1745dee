"""One run of a recipe: its folder, its records, and the steps that all recipes share.

A result is a folder METHOD-BACKBONE below the run's folder and is kept once it is there. A trainer
works in ``run-RESULT`` and resumes from its last checkpoint. The last 300 training records choose
the best checkpoint and the thresholds; no recipe trains on test records.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone
from ..backbones.entries import BACKBONES
from ..core.files import read_json
from ..core.shipped import ASSETS
from ..data import EditRecord, load_records
from ..data.entries import task_of
from ..methods.checkpoint import change_header, read_config
from ..methods.entries import METHODS
from ..methods.mscke.model import part_folders
from ..methods.training_run import training_settings

HELD_BACK = 300
Data = tuple[Sequence[EditRecord], Sequence[EditRecord]]


def embedded_backbones() -> list[str]:
    """The backbones whose weights are shipped, in the order of tables."""
    return [entry.name for entry in BACKBONES if entry.embedded]


def is_embedded(backbone: str) -> bool:
    """Whether a backbone's weights are shipped."""
    return backbone in BACKBONES and BACKBONES.get(backbone).embedded


def split_records(data: str, *, extra: bool = False) -> Data:
    """The training records of a data set, and those held back for validation.

    Args:
        extra: with the further scope questions (``fg_extra``).
    """
    records = load_records(data, split="train", extra=extra).records
    return records[:-HELD_BACK], records[-HELD_BACK:]


@dataclass
class Job:
    """What a recipe is asked for.

    Attributes:
        out: folder of the results.
        names: the backbones that are trained for, or the results that are made.
        data: the records, as :func:`load_records` takes them.
        steps: of each stage of training, instead of the recipe's own number.
        seed: of what is not a method's training: backbones and scope classifiers.
        brief: train as ``--train`` of the demo and the tables does: each backbone by itself, and
            without the second stage of the scope classifier.
        mscke: folder of the MSCKE editors whose scope classifiers other methods use.
        clip: MSCKE: folder of a pre-trained ``scenes-clip``.
        start: MSCKE: an editor with whose language model the first new one begins.
        gate_only: DualEdit: fit the gate of trained editors again; their adapters stay.
        minutes, tower_steps, vision_from, leg, lr, vision_share, hidden: backbones: see
            :class:`backbone.Recipe`.
    """

    out: Path
    names: Sequence[str] = ()
    data: str = "scenes"
    steps: int | None = None
    seed: int = 0
    brief: bool = False
    mscke: Path = ASSETS
    clip: Path | None = None
    start: Path | None = None
    gate_only: bool = False
    minutes: float | None = None
    tower_steps: int | None = None
    vision_from: str | None = None
    leg: Path | None = None
    lr: float | None = None
    vision_share: float | None = None
    hidden: float = 0.0

    @property
    def test(self) -> str:
        """The test records that belong to :attr:`data`: of a file ``train.json`` those beside."""
        at = Path(self.data)
        return str(at.with_name("test.json")) if at.name == "train.json" else self.data

    def records(self, *, extra: bool = True) -> Data:
        """See :func:`split_records`."""
        return split_records(self.data, extra=extra)

    def folder(self, method: str, backbone: Backbone) -> Path:
        """Where an editor lies; one for another task than questions has the task in its name."""
        task = task_of(self.data)
        return self.out / (f"{method}-{backbone.name}" + (f"-{task}" if task else ""))

    def settings(self, method: str, backbone: Backbone, **changes: Any) -> Any:
        """The shipped training settings with ``changes``, and with the job's number of steps."""
        if self.steps is not None:
            changes["max_iters"] = self.steps
        return training_settings(method, backbone.name).replace(**changes)

    def train(self, method: str, editor: Any, data: Data, settings: Any, name: str) -> None:
        """Train ``editor`` in place with the method's trainer, in the folder ``run-NAME``."""
        METHODS.get(method).trainer_class(editor, *data, settings, self.out / f"run-{name}").run()


def finished(folder: Path) -> bool:
    """Whether a result is there: its ``config.json`` is written last."""
    return (folder / "config.json").is_file()


def train_method(
    method: str,
    backbone: Backbone,
    job: Job,
    *,
    extra: bool = True,
    then: Callable[[Any, Sequence[EditRecord]], None] | None = None,
) -> Path:
    """A new editor, trained once with the method's shipped settings.

    Args:
        extra: see :func:`split_records`.
        then: called with the trained editor and the records held back, before it is saved.
    """
    folder = job.folder(method, backbone)
    if not finished(folder):
        settings, data = job.settings(method, backbone), job.records(extra=extra)
        torch.manual_seed(settings.seed)
        make: Any = METHODS.get(method).trained_class
        editor = make(backbone, settings.config)
        job.train(method, editor, data, settings, folder.name)
        if then is not None:
            then(editor, data[1])
        editor.save_pretrained(folder)
    return folder


def part_of(folder: Path, name: str) -> Path:
    """Where a part of the editor in ``folder`` lies; that may be in another editor.

    Raises:
        CheckpointError: there is no editor.
    """
    return part_folders(folder, read_config(folder / "config.json"))[name].resolve()


def scope_folder(job: Job, backbone: Backbone) -> Path:
    """The folder of the scope classifier that the backbone's MSCKE editor in ``job.mscke`` uses.

    Raises:
        CheckpointError: there is no such editor.
    """
    return part_of(job.mscke / f"mscke-{backbone.name}", "scope")


def relative(part: Path, folder: Path) -> str:
    """The path of a part of the editor in ``folder`` as ``parts`` in its ``config.json`` has it."""
    return Path(os.path.relpath(part.resolve(), folder.resolve())).as_posix()


def ship(folder: Path, target: Path) -> None:
    """Copy a result into the package; what its ``config.json`` refers to is still found there.

    Where a neighbour of the result that it refers to was copied before, that is referred to.
    """
    shutil.copytree(
        folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint", "run")
    )
    config = read_json(folder / "config.json")
    if "parts" in config:
        parts = {}
        for name, at in config["parts"].items():
            own = (folder / at).resolve()
            beside = target.parent / Path(os.path.relpath(own, folder.parent.resolve()))
            parts[name] = relative(beside if beside.exists() else own, target)
        change_header(target, parts=parts)
