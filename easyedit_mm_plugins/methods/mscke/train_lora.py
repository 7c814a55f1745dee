"""Training the embedded LoRA editors: ``python -m easyedit_mm_plugins.methods.mscke.train_lora``.

:class:`MSCKELoRATrainer` with the shipped hparams files, as users would run it, in front of it the
scope classifier that is shipped for the backbone, which stays as it is. The last 300 training
records choose the best state; test records are only looked at by evaluation. A stopped run goes on,
a finished one is kept. What is shipped is the adapter; its folder says where the classifier lies.
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
from .classifier import ScopeClassifier
from .counterfactual import new_counterfactual
from .lora_editor import MSCKELoRA, MSCKELoRATrainer, MSCKELoRATrainingHyperParams
from .train_scenes import BACKBONES, Data, records

LOG = logging.getLogger(__name__)
HPARAMS = Path(__file__).parents[2] / "hparams/TRAINING/MSCKE-LORA"


def train_editor(backbone: Backbone, out: Path, data: Data, steps: int | None = None) -> Path:
    """A trained editor in ``out``/mscke-lora-<backbone>, whole.

    Raises:
        CheckpointError: no scope classifier is shipped for the backbone.
    """
    folder = out / f"mscke-lora-{backbone.name}"
    if (folder / "config.json").is_file():
        return folder
    hparams = MSCKELoRATrainingHyperParams.from_hparams(HPARAMS / backbone.name)
    hparams = hparams.replace(train="counterfactual", max_iters=steps or hparams.max_iters)
    scope = ScopeClassifier.from_pretrained(ASSETS / f"mscke-{backbone.name}/scope")
    torch.manual_seed(hparams.seed)
    model = new_counterfactual(backbone, hparams.counterfactual)
    editor = MSCKELoRA(backbone, scope, model, hparams.threshold)
    MSCKELoRATrainer(editor, *data, hparams, out / f"run-{backbone.name}").run()
    editor.save_pretrained(folder)
    return folder


def ship(folder: Path, backbone: Backbone) -> Path:
    """The adapter into the package, with the shipped classifier by reference."""
    target = ASSETS / folder.name
    editor = MSCKELoRA.from_pretrained(folder, backbone)
    shutil.rmtree(target, ignore_errors=True)
    editor.save_pretrained(target, parts={"scope": f"../mscke-{backbone.name}/scope"})
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("backbones", nargs="*", default=list(BACKBONES), help="scenes-blip2, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/train-mscke-lora"))
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
        folder = train_editor(backbone, args.out, data, args.steps)
        LOG.info("ready: %s", ship(folder, backbone) if args.ship else folder)


if __name__ == "__main__":
    main()
