"""Training the embedded editors: ``python -m easyedit_mm_plugins.methods.mscke.train_scenes``.

Three steps, each skipped if its result is there, each continued if it was stopped:

1. ``scenes-clip``: the small CLIP is pre-trained on procedural scenes (``scenes_clip.py``);
2. ``scope``: the scope classifier is trained on the scenes training records;
3. ``mscke-<backbone>``: a counterfactual model per backbone, saved together with the classifier.

Steps 2 and 3 are :class:`MSCKETrainer` with the shipped hparams files, as users would run it. The
last 300 training records choose the best state; test records are only looked at by evaluation.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ...backbones import Backbone, load_backbone
from ...backbones.zoo import ASSETS
from ...data import EditRecord, FGVEditDataset
from ...scenes.records import ensure_scenes
from .classifier import ScopeClassifier
from .config import MSCKETrainingHyperParams
from .counterfactual import new_counterfactual
from .model import MSCKE
from .scenes_clip import pretrain
from .training import MSCKETrainer

LOG = logging.getLogger(__name__)
HPARAMS = Path(__file__).parents[2] / "hparams/TRAINING/MSCKE"
BACKBONES = ("scenes-blip2", "scenes-llava")
HELD_BACK = 300
SCOPE_STEPS, COUNTERFACTUAL_STEPS = 1500, 1200


def records(scenes: str | Path | None) -> tuple[list[EditRecord], list[EditRecord]]:
    """The scenes training records, and those held back to choose the best state."""
    files = ensure_scenes(scenes)
    found = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    return found[:-HELD_BACK], found[-HELD_BACK:]


def train_scope(
    backbone: Backbone,
    encoder: Path,
    out: Path,
    data: tuple[Sequence[EditRecord], Sequence[EditRecord]],
    steps: int = SCOPE_STEPS,
) -> ScopeClassifier:
    """The scope classifier on the pre-trained ``encoder``, saved in ``out``/scope.

    It never looks at the backbone, which only lends its frame; one classifier serves all.
    """
    if (out / "scope/config.json").is_file():
        return ScopeClassifier.from_pretrained(out / "scope")
    hparams = MSCKETrainingHyperParams.from_hparams(HPARAMS / backbone.name)
    hparams.scope.encoder = str(encoder)
    hparams = hparams.replace(train="scope", max_iters=steps, early_stop_key="scope/balanced")
    torch.manual_seed(hparams.seed)
    editor = MSCKE.from_config(backbone, hparams.scope, hparams.counterfactual)
    MSCKETrainer(editor, *data, hparams, out / "run-scope").run()
    editor.scope.config.encoder = "scenes-clip"
    editor.scope.save_pretrained(out / "scope")
    return editor.scope


def train_editor(
    backbone: Backbone,
    scope: ScopeClassifier,
    out: Path,
    data: tuple[Sequence[EditRecord], Sequence[EditRecord]],
    steps: int = COUNTERFACTUAL_STEPS,
) -> Path:
    """A counterfactual model for ``backbone``, saved with ``scope`` in ``out``/mscke-<name>."""
    folder = out / f"mscke-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    hparams = MSCKETrainingHyperParams.from_hparams(HPARAMS / backbone.name)
    hparams = hparams.replace(train="counterfactual", max_iters=steps)
    torch.manual_seed(hparams.seed)
    model = new_counterfactual(backbone, hparams.counterfactual)
    editor = MSCKE(backbone, scope, model, hparams.threshold)
    MSCKETrainer(editor, *data, hparams, out / f"run-{backbone.name}").run()
    editor.save_pretrained(folder)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/train-mscke"))
    parser.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    parser.add_argument("--clip", type=Path, help="folder of a pre-trained scenes-clip to start at")
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = records(args.scenes)
    clip = args.clip or args.out / "scenes-clip"
    if not (clip / "config.json").is_file():
        pretrain(clip)
    made = [clip]
    for name in args.backbones:
        backbone = load_backbone(name)
        scope = train_scope(backbone, clip, args.out, data)
        made.append(train_editor(backbone, scope, args.out, data))
    for folder in made:
        LOG.info("ready: %s", folder)
        if args.ship:
            shutil.copytree(folder, ASSETS / folder.name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
