"""Training the embedded editors: ``python -m easyedit_mm_plugins.recipes.mscke``.

Four steps, each skipped if its result is there, each continued if it was stopped:

1. ``scenes-clip``: the small CLIP is pre-trained on procedural scenes (``scenes_clip.py``);
2. ``scope``: the scope classifier is trained on the scenes training records;
3. it is trained on at a lower rate, with 9,000 more records from training scenes (what is shipped
   had this; ``make demo TRAIN=1`` leaves it out);
4. ``mscke-<backbone>``: a counterfactual model per backbone, saved together with the classifier.
   From the second backbone on it begins at the first one's language model, with whose vocabulary
   its own begins.

Steps 2 to 4 are :class:`MSCKETrainer` with the shipped hparams files, as users would run it. The
last 300 training records choose the best state; test records are only looked at by evaluation.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone, load_backbone
from ..core.shipped import ASSETS, HPARAMS
from ..data import EditRecord, FGVEditDataset
from ..methods.checkpoint import read_tensors
from ..methods.mscke.classifier import ScopeClassifier
from ..methods.mscke.config import MSCKETrainingHyperParams
from ..methods.mscke.counterfactual import SmallLM, new_counterfactual
from ..methods.mscke.model import MSCKE
from ..methods.mscke.training import MSCKETrainer
from ..scenes.records import ensure_scenes, write_scenes
from .scenes_clip import pretrain

LOG = logging.getLogger(__name__)
TRAINING = HPARAMS / "TRAINING/MSCKE"
BACKBONES = ("scenes-blip2", "scenes-llava", "scenes-minigpt4")
HELD_BACK = 300
MORE, MORE_SEED = 9000, 1
# Open questions are learned at once, yes/no questions late: the second stage, and the only one of
# a model that begins at another's weights, draws many more of them.
STAGES: tuple[dict[str, Any], ...] = (
    {"max_iters": 700, "batch_size": 16},
    {"max_iters": 500, "batch_size": 10, "scope_questions": 7, "warmup": 20},
)
BEGUN: tuple[dict[str, Any], ...] = ({**STAGES[-1], "max_iters": 400, "cfr_lr": 1e-3},)


Data = tuple[Sequence[EditRecord], Sequence[EditRecord]]


def records(scenes: str | Path | None) -> tuple[list[EditRecord], list[EditRecord]]:
    """The scenes training records, and those held back to choose the best state."""
    files = ensure_scenes(scenes)
    found = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    return found[:-HELD_BACK], found[-HELD_BACK:]


def more_records(folder: str | Path) -> list[EditRecord]:
    """Further records of training scenes, drawn with another seed."""
    files = write_scenes(folder, n_train=MORE, n_test=2, seed=MORE_SEED)
    found = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    return [replace(record, case_id=f"more-{record.case_id}") for record in found]


def train_scope(
    backbone: Backbone, encoder: Path, out: Path, data: Data, steps: int = 1000, seed: int = 0
) -> ScopeClassifier:
    """The scope classifier on the pre-trained ``encoder``, saved in ``out``/scope.

    It never looks at the backbone, which only lends its frame; one classifier serves all. Another
    ``seed`` gives another classifier: other weights to begin with, other batches.
    """
    if (out / "scope/config.json").is_file():
        return ScopeClassifier.from_pretrained(out / "scope")
    hparams = MSCKETrainingHyperParams.from_hparams(TRAINING / backbone.name)
    hparams.scope.encoder = str(encoder)
    hparams = hparams.replace(
        train="scope", max_iters=steps, early_stop_key="scope/balanced", seed=seed
    )
    torch.manual_seed(hparams.seed)
    editor = MSCKE.from_config(backbone, hparams.scope, hparams.counterfactual)
    MSCKETrainer(editor, *data, hparams, out / "run-scope").run()
    editor.scope.config.encoder = "scenes-clip"
    editor.scope.save_pretrained(out / "scope")
    return editor.scope


def refine_scope(
    backbone: Backbone,
    scope: ScopeClassifier,
    out: Path,
    data: Data,
    steps: int = 1000,
    seed: int = 0,
) -> ScopeClassifier:
    """``scope`` trained on with more records, saved in ``out``/scope-refined."""
    folder = out / "scope-refined"
    if (folder / "config.json").is_file():
        return ScopeClassifier.from_pretrained(folder)
    hparams = MSCKETrainingHyperParams.from_hparams(TRAINING / backbone.name)
    hparams = hparams.replace(
        train="scope", max_iters=steps, lr=6e-4, early_stop_key="scope/balanced", seed=seed
    )
    train = [*data[0], *more_records(out / "more-scenes")]
    editor = MSCKE(backbone, scope, new_counterfactual(backbone, hparams.counterfactual))
    MSCKETrainer(editor, train, data[1], hparams, out / "run-scope-refined").run()
    scope.save_pretrained(folder)
    return scope


def train_editor(
    backbone: Backbone,
    scope: ScopeClassifier,
    out: Path,
    data: Data,
    stages: Sequence[dict[str, Any]] = STAGES,
    start: Path | None = None,
) -> Path:
    """A counterfactual model for ``backbone``, saved with ``scope`` in ``out``/mscke-<name>.

    Args:
        stages: settings of one training run after the other.
        start: an editor of another backbone with the same words in its vocabulary, whose language
            model the new one begins at.
    """
    folder = out / f"mscke-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    hparams = MSCKETrainingHyperParams.from_hparams(TRAINING / backbone.name)
    hparams = hparams.replace(train="counterfactual", val_batch_size=20, val_steps=150)
    torch.manual_seed(hparams.seed)
    model = new_counterfactual(backbone, hparams.counterfactual)
    if start is not None:
        begin_at(model, start)
    editor = MSCKE(backbone, scope, model, hparams.threshold)
    for number, settings in enumerate(stages, 1):
        run = out / f"run-{backbone.name}-{number}"
        MSCKETrainer(editor, *data, hparams.replace(**settings), run).run()
    editor.save_pretrained(folder)
    return folder


@torch.no_grad()
def begin_at(model: SmallLM, editor: Path) -> None:
    """Give ``model`` the language model of a saved ``editor``'s counterfactual model.

    MiniGPT-4's vocabulary has further tokens at its end: their embeddings stay as they are.
    """
    own = model.state_dict()
    for name, saved in read_tensors(editor / "counterfactual/model.safetensors").items():
        if name.startswith("lm."):
            common = min(len(saved), len(own[name]))
            own[name][:common] = saved[:common]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/train-mscke"))
    parser.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    parser.add_argument("--clip", type=Path, help="folder of a pre-trained scenes-clip to start at")
    parser.add_argument("--start", type=Path, help="an editor to begin the first model at")
    parser.add_argument("--seed", type=int, default=0, help="of the scope classifier")
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = records(args.scenes)
    clip = args.clip or args.out / "scenes-clip"
    if not (clip / "config.json").is_file():
        pretrain(clip)
    made: list[Path] = []
    for name in args.backbones:
        backbone = load_backbone(name)
        scope = train_scope(backbone, clip, args.out, data, seed=args.seed)
        scope = refine_scope(backbone, scope, args.out, data, seed=args.seed)
        start = made[0] if made else args.start
        stages = STAGES if start is None else BEGUN
        made.append(train_editor(backbone, scope, args.out, data, stages, start))
    made.append(clip)
    for folder in made:
        LOG.info("ready: %s", folder)
        if args.ship:
            shutil.copytree(folder, ASSETS / folder.name, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
