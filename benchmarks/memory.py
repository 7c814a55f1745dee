"""Does a forward pass slow down as the edit memory grows? MSCKE beside EasyEdit's SERAC, one run.

    python benchmarks/memory.py [--backbone scenes-llava] [--sizes 1 10 100 1000] [--json FILE]

Both editors route and answer the same question with 1 .. 1,000 edits in memory, in turns, so that
whatever else the machine does strikes both alike. MSCKE encodes an edit once, when it is added;
SERAC's classifier (EasyEdit's own code) encodes all of them again at every call. The figure that
counts is the growth, time at the largest size over time at 1, as the median over rounds.
"""

from __future__ import annotations

import statistics

from common import finish, machine, parser, records, start

from easyedit_mm_plugins import load_backbone, load_editor
from easyedit_mm_plugins.papers.cost import in_turns


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=30)
    made.add_argument("--backbone", default="scenes-llava")
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000])
    args = start(made)
    backbone = load_backbone(args.backbone)
    some = records(args, max(args.sizes))
    question = some[0].out_scope[0]
    editors = {}
    for name in ("mscke", "serac"):
        for n in args.sizes:
            editors[f"{name} {n}"] = editor = load_editor(name, backbone)
            editor.threshold = (
                1.0  # the base model answers, however near the question is to an edit
            )
            editor.add([r.edit for r in some[:n]])
    calls = {key: lambda e=e: e.force([question]) for key, e in editors.items()}
    # Each call runs once untimed before: a call is slower right after a big one.
    times = in_turns(calls, calls, rounds=args.rounds)
    base = in_turns({"base": lambda: backbone.answer_logits([question])}, {}, rounds=args.rounds)
    rows = []
    for name in ("mscke", "serac"):
        first = times[f"{name} {args.sizes[0]}"].wall
        for n in args.sizes:
            own = times[f"{name} {n}"]
            grown = statistics.median(a / b for a, b in zip(own.wall, first, strict=True))
            rows.append({"method": name, "edits": n, "ms": own.wall_ms, "growth": grown})
    print(f"{args.backbone}, {machine()}")
    print(f"base model alone: {base['base'].wall_ms:.2f} ms")
    for row in rows:
        print(
            f"{row['method']:6} {row['edits']:5} edits  {row['ms']:8.2f} ms  x{row['growth']:.2f}"
        )
    finish(args, {"base_ms": base["base"].wall_ms, "rows": rows})


if __name__ == "__main__":
    main()
