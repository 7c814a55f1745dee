"""One edit on the embedded LLaVA: ask, edit, ask again, undo. The README shows what it prints."""

from easyedit_mm_plugins import FGVEditDataset, load_backbone, load_editor
from easyedit_mm_plugins.scenes.records import ensure_scenes

scenes = ensure_scenes()  # drawn once
case = FGVEditDataset(scenes.test, size=1)[0]
editor = load_editor("mscke", load_backbone("scenes-llava"))
asked = [case.edit, *case.rephrase, *case.in_scope, *case.out_scope, *case.text_loc]
before = editor.generate(asked)
with editor.edited([case.edit]):  # in force in here, gone after
    for question, old, new in zip(asked, before, editor.generate(asked), strict=True):
        print(f"{question.text:52} {old.text:>12} -> {new.text:12} {new.route or 'base':5}")
assert editor.generate(asked) == before
