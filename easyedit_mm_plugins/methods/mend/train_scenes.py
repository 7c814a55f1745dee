"""Training the embedded editors: ``python -m easyedit_mm_plugins.methods.mend.train_scenes``.

:class:`MendTrainer` with the shipped hparams files, as users would run it. The last 300 training
records choose the best state; test records are only looked at by evaluation. A stopped run goes on,
a finished one is kept. MSCKE-MEND is then the shipped scope classifier in front of it: its folder
holds a ``config.json`` that says where the two lie.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from ...backbones import Backbone, load_backbone
from ...backbones.zoo import ASSETS
from ...data import EditRecord
from ..checkpoint import read_config
from ..mscke.model import part_folders
from ..mscke.train_scenes import records
from .config import MendTrainingHyperParams
from .model import Mend
from .mscke import MSCKEMEND
from .training import MendTrainer

LOG = logging.getLogger(__name__)
HPARAMS = Path(__file__).parents[2] / "hparams/TRAINING/MEND"
BACKBONES = ("scenes-blip2", "scenes-llava", "scenes-minigpt4")


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
    hparams = MendTrainingHyperParams.from_hparams(HPARAMS / backbone.name)
    if steps is not None:
        hparams = hparams.replace(max_iters=steps)
    torch.manual_seed(hparams.seed)
    editor = Mend(backbone, hparams.config)
    MendTrainer(editor, *data, hparams, out / f"run-{backbone.name}").run()
    editor.save_pretrained(folder)
    return folder


def join(backbone: Backbone, root: Path) -> Path:
    """MSCKE-MEND in ``root``/mscke-mend-<backbone>, of the MSCKE and the MEND beside it.

    Raises:
        CheckpointError: one of the two is not there.
    """
    root = root.resolve()
    mscke, folder = root / f"mscke-{backbone.name}", root / f"mscke-mend-{backbone.name}"
    # The classifier may lie in another editor's folder again.
    scope = part_folders(mscke, read_config(mscke / "config.json"))["scope"].resolve()
    mend = root / f"mend-{backbone.name}"
    editor = MSCKEMEND.from_parts(backbone, scope, mend)
    parts = {"scope": scope, "counterfactual": mend}
    seen = {name: Path(os.path.relpath(path, folder)).as_posix() for name, path in parts.items()}
    editor.save_pretrained(folder, parts=seen)
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
        folder = train_editor(backbone, args.out, data, args.steps)
        LOG.info("ready: %s", folder)
        if args.ship:
            shutil.copytree(folder, ASSETS / folder.name, dirs_exist_ok=True)
            LOG.info("ready: %s", join(backbone, ASSETS))


if __name__ == "__main__":
    main()
