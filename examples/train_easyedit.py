"""Train MSCKE through EasyEdit's own ``MultimodalTrainer``, as its users train SERAC and MEND.

    python examples/train_easyedit.py --hparams TRAINING/MSCKE/blip2 \\
        --train train_data.json --val test_data.json --images COCO
"""

import argparse

import easyedit_mm_plugins as mm

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--hparams", default="TRAINING/MSCKE/blip2", help="a name or a file")
parser.add_argument("--train", required=True, help="records in FGVEdit's schema")
parser.add_argument("--val", required=True)
parser.add_argument("--images")
parser.add_argument("--steps", type=int, help="instead of the file's")
given = parser.parse_args()

hparams = mm.MSCKETrainingHyperParams.from_hparams(given.hparams)
if given.steps:
    hparams = hparams.replace(max_iters=given.steps, max_epochs=None)
train, val = (mm.FGVEditDataset(p, image_root=given.images) for p in (given.train, given.val))

mm.register()
from easyeditor import MultimodalTrainer  # noqa: E402  (either generation; register() came first)

trainer = MultimodalTrainer(config=hparams, train_set=train, val_set=val)
trainer.run()
print(f"for archive in an hparams file: {trainer.save_path}")
mm.unregister()
