"""MEND's edits in memory: what one costs to make, to keep and to answer from.

    python benchmarks/mend.py [--backbone scenes-llava] [--sizes 1 10 100 1000] [--json FILE]

An edit is made by one forward and backward pass, many in one pass of up to 32, and kept as the
low-rank change of each edited weight. Measured: milliseconds an edit, one by one and together;
kilobytes an edit; and the forward pass of 32 questions, each under one of n edits, beside
the base model's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import finish, machine, parser, records, start

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.mend import Mend
from easyedit_mm_plugins.papers.cost import in_turns


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Median time of ``call``, after one untimed."""
    return in_turns({"call": call}, {}, rounds=rounds, warm_up=1)["call"].wall_ms


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=10)
    made.add_argument("--backbone", default="scenes-llava")
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000])
    args = start(made)
    backbone = load_backbone(args.backbone)
    some = records(args, max(*args.sizes, 32))
    edits = [r.edit for r in some]
    questions = [r.out_scope[0] for r in some][:32]
    editor = Mend.from_pretrained(ASSETS / f"mend-{args.backbone}", backbone)
    rows = []
    with torch.no_grad():
        base = milliseconds(lambda: backbone.answer_logits(questions), args.rounds)
        one = milliseconds(lambda: editor.learn(edits[:1]), args.rounds)
        many = milliseconds(lambda: editor.learn(edits[:32]), args.rounds) / 32
        for n in args.sizes:
            ids = editor.add(edits[:n])
            deltas = editor.deltas_for(n, [[one] for one in ids])
            tensors = [t for delta in deltas for part in delta.values() for t in part]
            size = sum(t.numel() * t.element_size() for t in tensors)
            own = [[ids[i % n]] for i in range(len(questions))]
            took = milliseconds(lambda own=own: editor.force(questions, visible=own), args.rounds)
            rows.append({"edits": n, "kib_an_edit": size / 1024 / n, "ms_of_32": took})
            editor.clear()
    print(f"{args.backbone}, {machine()}")
    print(
        f"an edit: {one:.1f} ms alone, {many:.1f} ms among 32; base model, 32 rows: {base:.1f} ms"
    )
    for row in rows:
        print(
            f"{row['edits']:5} edits  {row['kib_an_edit']:7.1f} KiB each  32 rows, each under one: "
            f"{row['ms_of_32']:7.1f} ms"
        )
    finish(args, {"ms_alone": one, "ms_of_32": many, "base_ms": base, "rows": rows})


if __name__ == "__main__":
    main()
