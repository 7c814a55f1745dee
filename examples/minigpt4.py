"""EasyEdit's own MiniGPT-4 7B under MSCKE-MEND, case after case as EasyEdit's users do it.

python examples/minigpt4.py --data test_data.json --images COCO
"""

import argparse

import easyedit_mm_plugins as mm

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--hparams", default="MSCKE-MEND/minigpt4", help="a name or a file")
parser.add_argument("--data", required=True, help="records in FGVEdit's schema")
parser.add_argument("--images", help="the folder that their image names start in")
parser.add_argument("--cases", type=int, default=3)
given = parser.parse_args()

mm.register()
from easyeditor import MultimodalEditor  # noqa: E402  (either generation; register() came first)

hparams = mm.MSCKEMENDHyperParams.from_hparams(given.hparams)
editor = MultimodalEditor.from_hparams(hparams)
for case in mm.FGVEditDataset(given.data, given.cases, image_root=given.images):
    metrics, edited, _ = editor.edit(
        prompts=case.edit.text,
        targets=case.edit.answer,
        image=str(case.edit.image),
        rephrase_prompts=case.rephrase[0].text,
        verbose=False,
    )
    print(f"\n{case.edit.text} -> {case.edit.answer}")
    for when in ("pre", "post"):
        print(when, {name: round(float(value), 2) for name, value in metrics[0][when].items()})
    for question in (*case.in_scope, *case.out_scope):
        print(f"  {question.text:58} {edited.generate(question)[0]}")
    edited.undo()
mm.unregister()
