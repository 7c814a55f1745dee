"""Training the embedded editors: ``python -m easyedit_mm_plugins.recipes.dualedit``.

:class:`DualEditTrainer` with the shipped hparams files, then :func:`calibrate` for thresholds of
the learned gate and of the paper's. The last 300 training records choose the best state and the
thresholds; test records are only looked at by evaluation. A stopped run goes on, a finished one is
kept. As in the paper, each task has an editor of its own. ``--gate-only`` fits the gate of trained
editors anew and leaves their adapters.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..backbones import Backbone, load_backbone
from ..core.shipped import ASSETS, HPARAMS
from ..data import EditRecord, FGVEditDataset
from ..methods.dualedit.calibration import calibrate
from ..methods.dualedit.config import DualEditTrainingHyperParams
from ..methods.dualedit.model import DualEdit
from ..methods.dualedit.training import MEMORY, DualEditTrainer
from ..scenes.captions import caption_records
from ..scenes.records import ensure_scenes

LOG = logging.getLogger(__name__)
TRAINING = HPARAMS / "TRAINING"
BACKBONES = ("scenes-blip2", "scenes-llava", "scenes-minigpt4")
HELD_BACK = 300
TASKS = ("vqa", "captions")


@dataclass(frozen=True)
class Method:
    """What is trained: DualEdit, or a method built on it."""

    editor: type[DualEdit] = DualEdit
    hparams: type[DualEditTrainingHyperParams] = DualEditTrainingHyperParams
    trainer: type[DualEditTrainer] = DualEditTrainer


def records(
    scenes: str | Path | None, task: str = "vqa"
) -> tuple[list[EditRecord], list[EditRecord]]:
    """Scenes training records of a task, and others held back to choose state and threshold."""
    files = ensure_scenes(scenes)
    found = FGVEditDataset(files.train, image_root=files.images, check="off").records
    if task == "captions":
        found = caption_records(found, "train")
    return found[:-HELD_BACK], found[-HELD_BACK:]


def train_editor(
    backbone: Backbone,
    out: Path,
    data: tuple[Sequence[EditRecord], Sequence[EditRecord]],
    steps: int | None = None,
    method: Method | None = None,
    suffix: str = "",
) -> Path:
    """A trained and calibrated editor in ``out``/dualedit-<backbone>, or another method's."""
    method = method or Method()
    folder = editor_folder(out, method, backbone, suffix)
    if (folder / "config.json").is_file():
        return folder
    hparams = hparams_for(method, backbone)
    if steps is not None:
        hparams = hparams.replace(max_iters=steps)
    torch.manual_seed(hparams.seed)
    editor = method.editor(backbone, hparams.config)
    run = out / f"run-{folder.name}"
    method.trainer(editor, data[0], data[1], hparams, run).run()
    if editor.config.gate.kind != "off":
        set_thresholds(editor, data[1])
    editor.save_pretrained(folder)
    return folder


def editor_folder(out: Path, method: Method, backbone: Backbone, suffix: str) -> Path:
    """Where an editor lies in ``out``; ``suffix`` tells tasks apart."""
    return out / f"{method.editor.name}-{backbone.name}{suffix}"


def hparams_for(method: Method, backbone: Backbone) -> DualEditTrainingHyperParams:
    """The shipped training settings."""
    return method.hparams.from_hparams(TRAINING / method.editor.easyedit_name / backbone.name)


def refit_gate(
    backbone: Backbone, folder: Path, data: tuple[Sequence[EditRecord], Sequence[EditRecord]]
) -> Path:
    """Fit the learned gate of the DualEdit editor in ``folder`` anew; it is written there."""
    hparams = hparams_for(Method(), backbone)
    torch.manual_seed(hparams.seed)  # the gate begins as in training
    editor = DualEdit.from_pretrained(folder, backbone, fresh_gate=True)
    DualEditTrainer(editor, data[0], data[1], hparams, folder / "run").fit_gate()
    set_thresholds(editor, data[1])
    editor.save_pretrained(folder)
    return folder


def set_thresholds(editor: DualEdit, records: Sequence[EditRecord]) -> None:
    """Calibrate the editor's gate, with a learned one for a memory of edits, and the paper's."""
    kind = editor.config.gate.kind
    for other in dict.fromkeys(("prompt-end", kind)):
        others = min(MEMORY, len(records)) - 1 if other == "learned" else 0
        found = calibrate(editor.with_gate(other), records, others=others)
        LOG.info(
            "gate %s: threshold %.3f, balanced accuracy %.4f, ROC area %.5f",
            *(other, found.threshold, found.balanced_accuracy, found.auc),
        )
        editor.thresholds[other] = round(found.threshold, 3)
    editor.threshold = editor.thresholds.pop(kind)


def main(argv: Sequence[str] | None = None, method: Method | None = None) -> None:
    """The command line; see the module's docstring."""
    method = method or Method()
    own = method.editor.name
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path(f"runs/train-{own}"))
    parser.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    parser.add_argument("--task", choices=TASKS, default="vqa")
    parser.add_argument("--steps", type=int, help="instead of the hparams file's max_iters")
    parser.add_argument("--gate-only", action="store_true", help="of the editors in --out")
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = records(args.scenes, args.task)
    suffix = "" if args.task == "vqa" else f"-{args.task}"
    for name in args.backbones:
        backbone = load_backbone(name)
        if args.gate_only:
            folder = refit_gate(backbone, editor_folder(args.out, method, backbone, suffix), data)
        else:
            folder = train_editor(backbone, args.out, data, args.steps, method, suffix)
        LOG.info("ready: %s", folder)
        if args.ship:
            shutil.copytree(folder, ASSETS / folder.name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
