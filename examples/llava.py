"""LLaVA-1.5 7B with DualEdit, without EasyEdit: a picture, an edit, and any question.

python examples/llava.py --editor results/DUALEDIT/llava/best IMAGE QUESTION ANSWER ASK [ASK ...]
"""

import argparse

import easyedit_mm_plugins as mm

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("image")
parser.add_argument("question")
parser.add_argument("answer", help="the new one")
parser.add_argument("ask", nargs="+", help="what to ask before and after")
parser.add_argument("--method", default="dualedit")
parser.add_argument("--editor", help="folder of a trained editor; the shipped one by default")
parser.add_argument("--backbone", default="llava", help="or scenes-llava, or a model folder")
parser.add_argument("--device", default="cpu")
parser.add_argument("--dtype", help="bfloat16 for a 7B model on a GPU")
given = parser.parse_args()

backbone = mm.load_backbone(given.backbone, device=given.device, dtype=given.dtype)
editor = mm.load_editor(given.method, backbone, given.editor)
edit = mm.Question(given.question, given.image, given.answer)
asked = [mm.Question(text, given.image) for text in (given.question, *given.ask)]
before = editor.generate(asked)
with editor.edited([edit]):
    after = editor.generate(asked)
assert editor.generate(asked) == before  # undone
for question, old, new in zip(asked, before, after, strict=True):
    how = "" if new.score is None else f"   score {new.score:.3f}, {new.route or 'base model'}"
    print(f"{question.text:60} {old.text:>14} -> {new.text:14}{how}")
