"""EasyEdit's own BLIP-2 OPT-2.7B under MSCKE: edit, ask, evaluate, undo.

python examples/blip2.py --hparams MSCKE/blip2 --data test_data.json --images COCO
"""

import argparse

import easyedit_mm_plugins as mm

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--hparams", default="MSCKE/blip2", help="a name or a YAML file")
parser.add_argument("--data", required=True, help="records in FGVEdit's schema")
parser.add_argument("--images", help="the folder that their image names start in")
parser.add_argument("--cases", type=int, default=20)
given = parser.parse_args()

hparams = mm.MSCKEHyperParams.from_hparams(given.hparams)
records = list(mm.FGVEditDataset(given.data, given.cases, image_root=given.images))
case = records[0]

mm.register()
from easyeditor import MultimodalEditor  # noqa: E402  (either generation; register() came first)

editor = MultimodalEditor.from_hparams(hparams)
metrics, edited, _ = editor.edit(
    prompts=case.edit.text, targets=case.edit.answer, image=str(case.edit.image), verbose=False
)
asked = [case.edit, *case.rephrase, *case.in_scope, *case.out_scope, *case.text_loc]
after = edited.generate(asked)
edited.undo()  # bit for bit the base model again
before = editor.backbone.generate(asked)
for question, old, new in zip(asked, before, after, strict=True):
    print(f"{question.text:60} {old:>14} -> {new}")

result = mm.evaluate(edited.editor, records, "generated", batch_size=8)
for name, value in result.metrics.items():
    print(f"{name:20} {'-' if value is None else f'{value:.1f}'}")
mm.unregister()
