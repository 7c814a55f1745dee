"""Training the embedded editors: ``python -m easyedit_mm_plugins.recipes.mend``.

For each backbone, with the shipped hparams files, as users would run them:

1. ``mend-<backbone>``: :class:`MendTrainer`, with MEND's locality losses;
2. ``mscke-mend-<backbone>``: that MEND trained on for its place behind the scope classifier, which
   keeps other questions about the picture away from it, so that it need only answer. The classifier
   is the one shipped for MSCKE, noted by its place.

The last 300 training records choose the best state; test records are only looked at by evaluation.
A stopped run goes on, a finished one is kept.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbones import Backbone, load_backbone
from ..core.shipped import ASSETS, HPARAMS
from ..data import EditRecord
from ..methods.checkpoint import read_config
from ..methods.mend.config import MendTrainingHyperParams
from ..methods.mend.model import Mend
from ..methods.mend.mscke import MSCKEMEND, MSCKEMENDTrainingHyperParams
from ..methods.mend.training import MendTrainer
from ..methods.mscke.model import part_folders
from .mscke import records

LOG = logging.getLogger(__name__)
TRAINING = HPARAMS / "TRAINING"
BACKBONES = ("scenes-blip2", "scenes-llava", "scenes-minigpt4")
IN_SCOPE_STEPS = 400


def train_editor(
    backbone: Backbone,
    out: Path,
    data: tuple[Sequence[EditRecord], Sequence[EditRecord]],
    steps: int | None = None,
) -> Path:
    """A trained MEND in ``out``/mend-<backbone>."""
    folder = out / f"mend-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    hparams = MendTrainingHyperParams.from_hparams(TRAINING / "MEND" / backbone.name)
    if steps is not None:
        hparams = hparams.replace(max_iters=steps)
    torch.manual_seed(hparams.seed)
    editor = Mend(backbone, hparams.config)
    MendTrainer(editor, *data, hparams, out / f"run-{backbone.name}").run()
    editor.save_pretrained(folder)
    return folder


def train_in_scope(
    backbone: Backbone,
    mend: Path,
    out: Path,
    data: tuple[Sequence[EditRecord], Sequence[EditRecord]],
    steps: int = IN_SCOPE_STEPS,
) -> Path:
    """MSCKE-MEND's own MEND in ``out``/in-scope-<backbone>: ``mend`` trained on to answer in scope.

    Nothing is paid for other questions about the picture (``iloc`` 0), as the hparams files of
    MSCKE-MEND have it; the baseline has to keep them itself.
    """
    folder = out / f"in-scope-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    joint = MSCKEMENDTrainingHyperParams.from_hparams(TRAINING / "MSCKE-MEND" / backbone.name)
    hparams = MendTrainingHyperParams.from_hparams(TRAINING / "MEND" / backbone.name)
    hparams = hparams.replace(
        max_iters=steps,
        cloc=joint.cloc,
        iloc=joint.iloc,
        scope_questions=6,  # all that a record has
        early_stop_key="right/in_scope",
    )
    editor = Mend.from_pretrained(mend, backbone)
    MendTrainer(editor, *data, hparams, out / f"run-in-scope-{backbone.name}").run()
    editor.save_pretrained(folder)
    return folder


def join(backbone: Backbone, own: Path, root: Path, shipped: Path = ASSETS) -> Path:
    """MSCKE-MEND in ``root``/mscke-mend-<backbone>: the MEND in ``own`` behind the classifier of
    the MSCKE in ``shipped``, which is noted by its place.

    Raises:
        CheckpointError: one of the two is not there.
    """
    mscke = shipped.resolve() / f"mscke-{backbone.name}"
    # The classifier may lie in another editor's folder again.
    scope = part_folders(mscke, read_config(mscke / "config.json"))["scope"].resolve()
    folder = root.resolve() / f"mscke-mend-{backbone.name}"
    seen = Path(os.path.relpath(scope, folder)).as_posix()
    editor = MSCKEMEND.from_parts(backbone, scope, own)
    editor.save_pretrained(folder, parts={"scope": seen})
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/train-mend"))
    parser.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    parser.add_argument("--steps", type=int, help="instead of the hparams file's max_iters")
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = records(args.scenes)
    for name in args.backbones:
        backbone = load_backbone(name)
        mend = train_editor(backbone, args.out, data, args.steps)
        own = train_in_scope(backbone, mend, args.out, data)
        LOG.info("ready: %s and %s", mend, join(backbone, own, args.out))
        if args.ship:
            shutil.copytree(mend, ASSETS / mend.name, dirs_exist_ok=True)
            join(backbone, own, ASSETS)


if __name__ == "__main__":
    main()
