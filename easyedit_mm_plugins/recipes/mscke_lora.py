"""Training the embedded LoRA editors: ``python -m easyedit_mm_plugins.recipes.mscke_lora``.

:class:`MSCKELoRATrainer` with the shipped hparams files, as users would run it, and once more with
more in-scope questions, which are learned late; in front of it the scope classifier that is shipped
for the backbone, which stays as it is. The last 300 training records choose the best state; test
records are only looked at by evaluation. A stopped run goes on, a finished one is kept. What is
shipped is the adapter; its folder says where the classifier lies.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone, load_backbone
from ..core.shipped import ASSETS, HPARAMS
from ..methods.checkpoint import read_config
from ..methods.mscke.classifier import ScopeClassifier
from ..methods.mscke.counterfactual import new_counterfactual
from ..methods.mscke.lora_editor import MSCKELoRA, MSCKELoRATrainer, MSCKELoRATrainingHyperParams
from ..methods.mscke.model import part_folders
from .mscke import BACKBONES, Data, records

LOG = logging.getLogger(__name__)
TRAINING = HPARAMS / "TRAINING/MSCKE-LORA"
# What each stage changes in the hparams file.
STAGES: tuple[dict[str, Any], ...] = (
    {},
    {"max_iters": 400, "scope_questions": 6, "cfr_lr": 3e-3},
)


def train_editor(backbone: Backbone, out: Path, data: Data, steps: int | None = None) -> Path:
    """A trained editor in ``out``/mscke-lora-<backbone>, whole.

    Raises:
        CheckpointError: no scope classifier is shipped for the backbone.
    """
    folder = out / f"mscke-lora-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    hparams = MSCKELoRATrainingHyperParams.from_hparams(TRAINING / backbone.name)
    hparams = hparams.replace(train="counterfactual")
    scope = ScopeClassifier.from_pretrained(shipped_scope(backbone.name))
    torch.manual_seed(hparams.seed)
    model = new_counterfactual(backbone, hparams.counterfactual)
    editor = MSCKELoRA(backbone, scope, model, hparams.threshold)
    for number, changes in enumerate(STAGES, 1):
        stage = hparams.replace(**changes)
        stage = stage.replace(max_iters=steps or stage.max_iters)
        MSCKELoRATrainer(editor, *data, stage, out / f"run-{backbone.name}-{number}").run()
    editor.save_pretrained(folder)
    return folder


def ship(folder: Path, backbone: Backbone) -> Path:
    """The adapter into the package, with the shipped classifier by reference."""
    target = ASSETS / folder.name
    editor = MSCKELoRA.from_pretrained(folder, backbone)
    shutil.rmtree(target, ignore_errors=True)
    scope = os.path.relpath(shipped_scope(backbone.name), target)
    editor.save_pretrained(target, parts={"scope": Path(scope).as_posix()})
    return target


def shipped_scope(backbone: str) -> Path:
    """The folder of the scope classifier that the MSCKE editor shipped for a backbone uses."""
    folder = ASSETS / f"mscke-{backbone}"
    at = part_folders(folder, read_config(folder / "config.json"))["scope"]
    return at.resolve()


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/train-mscke-lora"))
    parser.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    parser.add_argument("--steps", type=int, help="of each stage, instead of its max_iters")
    parser.add_argument("--ship", action="store_true", help="copy the results into the package")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    data = records(args.scenes)
    for name in args.backbones:
        backbone = load_backbone(name)
        folder = train_editor(backbone, args.out, data, args.steps)
        LOG.info("ready: %s", ship(folder, backbone) if args.ship else folder)


if __name__ == "__main__":
    main()
