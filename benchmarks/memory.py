"""Does a forward pass slow down as the edit memory grows? MSCKE beside EasyEdit's SERAC, one run.

    python benchmarks/memory.py [--backbone scenes-llava] [--sizes 1 10 100 1000] [--json FILE]

Both editors route and answer the same question with 1 .. 1,000 edits in memory, in turns, so that
whatever else the machine does strikes both alike. MSCKE encodes an edit once, when it is added;
SERAC's classifier (EasyEdit's own code) encodes all of them again at every call. The figure that
counts is the growth, time at the largest size over time at 1, as the median over rounds.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from pathlib import Path

import torch

from easyedit_mm_plugins import FGVEditDataset, load_backbone, load_editor
from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.scenes.records import ensure_scenes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="scenes-llava")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(args.backbone)
    files = ensure_scenes()
    records = FGVEditDataset(files.test, max(args.sizes), image_root=files.images, check="off")
    edits = [r.edit for r in records]
    question = records[0].out_scope[0]
    editors = {
        (name, n): load_editor(name, backbone) for name in ("mscke", "serac") for n in args.sizes
    }
    for (_, n), editor in editors.items():
        editor.threshold = 1.0  # the base model answers in every case, however near an edit comes
        editor.add(edits[:n])
    times: dict[tuple[str, int], list[float]] = {key: [] for key in editors}
    order, rng = list(editors.items()), random.Random(0)
    for turn in range(args.rounds + 3):
        rng.shuffle(order)  # a call is slower right after a big one; nobody always follows the same
        for key, editor in order:
            editor.force([question])  # untimed, for the same reason
            start = time.perf_counter()
            editor.force([question])
            if turn >= 3:  # the first rounds warm up
                times[key].append(time.perf_counter() - start)
    base = []
    for _ in range(args.rounds):
        with torch.no_grad():
            backbone.answer_logits([question])
            start = time.perf_counter()
            backbone.answer_logits([question])
        base.append(time.perf_counter() - start)
    first = args.sizes[0]
    rows = []
    for name in ("mscke", "serac"):
        for n in args.sizes:
            grown = [a / b for a, b in zip(times[name, n], times[name, first], strict=True)]
            rows.append(
                {
                    "method": name,
                    "edits": n,
                    "ms": 1000 * statistics.median(times[name, n]),
                    "growth": statistics.median(grown),
                }
            )
    print(f"{args.backbone}, 1 thread, torch {torch.__version__}, {platform.machine()}")
    print(f"base model alone: {1000 * statistics.median(base):.2f} ms")
    for row in rows:
        print(
            f"{row['method']:6} {row['edits']:5} edits  {row['ms']:8.2f} ms  x{row['growth']:.2f}"
        )
    if args.json:
        write_json(args.json, {"base_ms": 1000 * statistics.median(base), "rows": rows})


if __name__ == "__main__":
    main()
