"""Many edits in force at once: how many questions still find their own edit, or none.

    python benchmarks/many_edits.py [--backbone scenes-llava] [--method mscke ...] [--cases 200]
        [--sizes 1 10 100 1000] [--json FILE]

At every size the same ``cases`` records are asked about. Where fewer edits are in force than that,
they are asked block by block, each with its own edits alone; where more are, the further edits are
those of the next records. Right is a question in scope that its own edit answers, and one out of
scope that the base model answers. Percent by kind of question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common import finish, parser, records, start

from easyedit_mm_plugins import load_backbone, load_editor
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.methods import Editor

INSIDE = ("edit", "rephrase", "in_scope", "image_rephrase")
OUTSIDE = ("out_scope", "text_loc", "image_loc")
BATCH = 32


def blocks(
    every: Sequence[EditRecord], cases: int, size: int
) -> Iterator[tuple[Sequence[EditRecord], Sequence[EditRecord]]]:
    """Records whose edits are in force, and those of them that are asked about."""
    for begin in range(0, cases, size):
        inside = every[begin : begin + size]
        yield inside, inside[: cases - begin]


def routed(
    editor: Editor, every: Sequence[EditRecord], cases: int, size: int
) -> dict[str, float | None]:
    """Percent of questions of each kind that are answered from where they should be."""
    right: dict[str, list[bool]] = {kind: [] for kind in INSIDE + OUTSIDE}
    for inside, asked in blocks(every, cases, size):
        ids = editor.add([record.edit for record in inside])
        todo = [
            (kind, question, own if kind in INSIDE else None)
            for own, record in zip(ids, asked, strict=False)
            for kind, questions in record.questions().items()
            for question in questions
        ]
        for at in range(0, len(todo), BATCH):
            some = todo[at : at + BATCH]
            answers = editor.generate([question for _, question, _ in some], max_new_tokens=1)
            for (kind, _, own), answer in zip(some, answers, strict=True):
                right[kind].append(answer.route == own)
        editor.remove(ids)
    return {kind: 100 * sum(v) / len(v) for kind, v in right.items() if v}


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--backbone", default="scenes-llava")
    made.add_argument("--method", nargs="+", default=["mscke", "dualedit"])
    made.add_argument("--cases", type=int, default=200, help="records asked about at every size")
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000])
    args = start(made)
    every = records(args, max(args.cases, *args.sizes))
    backbone = load_backbone(args.backbone)
    rows = []
    for method in args.method:
        editor = load_editor(method, backbone)
        for size in args.sizes:
            right = routed(editor, every, args.cases, size)
            about = {"backbone": args.backbone, "method": method, "edits": size, "n": args.cases}
            rows.append({**about, "right": right})
            print(about, {kind: round(value, 1) for kind, value in right.items()}, flush=True)
    finish(args, {"rows": rows})


if __name__ == "__main__":
    main()
