"""The same through EasyEdit's own ``MultimodalEditor``, as in an existing EasyEdit project."""

import easyedit_mm_plugins as mm
from easyedit_mm_plugins.scenes.records import ensure_scenes

mm.register()
from easyeditor import MultimodalEditor  # noqa: E402  (either generation; register() first is enough)

case = mm.FGVEditDataset(ensure_scenes().test, size=1)[0]

hparams = mm.MSCKEHyperParams.from_hparams("MSCKE/scenes-blip2")
editor = MultimodalEditor.from_hparams(hparams)
metrics, edited_model, _ = editor.edit(
    prompts=case.edit.text,
    targets=case.edit.answer,
    image=str(case.edit.image),
    rephrase_prompts=case.rephrase[0].text,
    rephrase_image=str(case.image_rephrase[0].image),
    locality_inputs={
        "text": {"prompt": case.text_loc[0].text, "ground_truth": case.text_loc[0].answer},
        "vision": {
            "prompt": case.image_loc[0].text,
            "ground_truth": case.image_loc[0].answer,
            "image": str(case.image_loc[0].image),
        },
    },
    verbose=False,
)
print(f"{case.edit.text} -> {case.edit.answer}")
for when in ("pre", "post"):
    print(when, {name: round(float(value), 2) for name, value in metrics[0][when].items()})
edited_model.undo()
mm.unregister()
