"""Train MSCKE's scope classifier on a backbone, then look at what it learned.

    python examples/train_mscke.py --out runs/my-editor [--steps 200] [--backbone scenes-llava]

A stopped training goes on where it was; the best editor is in OUT/best, for
``load_editor("mscke", backbone, "OUT/best")``, ``easyedit-mm evaluate --editor OUT/best`` or
``archive:`` in an hparams file.
"""

import argparse
from pathlib import Path

import easyedit_mm_plugins as mm
from easyedit_mm_plugins.scenes.records import ensure_scenes

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--backbone", default="scenes-llava")
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--data", help="records in FGVEdit's schema; the scenes by default")
parser.add_argument("--images", help="the folder that their image names start in")
given = parser.parse_args()

hparams = mm.MSCKETrainingHyperParams.from_hparams(f"TRAINING/MSCKE/{given.backbone}")
hparams = hparams.replace(train="scope", max_iters=given.steps, val_interval=given.steps)
data = given.data or ensure_scenes().train
records = list(mm.FGVEditDataset(data, image_root=given.images, extra=True))
held_back = max(1, len(records) // 20)

backbone = mm.load_backbone(given.backbone)
editor = mm.MSCKE.from_config(backbone, hparams.scope, hparams.counterfactual)
train, val = records[:-held_back], records[-held_back:]
final = mm.MSCKETrainer(editor, train, val, hparams, given.out).run()
for name, value in final.items():
    print(f"{name:24} {value:.4f}")
print(f"editor: {given.out / 'best'}")
