"""MEND's edits in memory: what one costs to make, to keep and to answer from.

    python benchmarks/mend.py [--backbone scenes-llava] [--sizes 1 10 100 1000] [--json FILE]

An edit is made by one forward and backward pass, many in one pass of up to 32, and kept as the
low-rank change of each edited weight. Measured: milliseconds an edit, one by one and together;
kilobytes an edit; and the forward pass of 32 questions, each under one of n edits, beside
the base model's.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from easyedit_mm_plugins import FGVEditDataset, load_backbone
from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.mend import Mend
from easyedit_mm_plugins.scenes.records import ensure_scenes


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Median time of ``call``, after one untimed."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="scenes-llava")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(args.backbone)
    files = ensure_scenes()
    records = FGVEditDataset(files.test, max(args.sizes), image_root=files.images, check="off")
    edits = [r.edit for r in records]
    questions = [r.out_scope[0] for r in records][:32]
    editor = Mend.from_pretrained(ASSETS / f"mend-{args.backbone}", backbone)
    rows = []
    with torch.no_grad():
        base = milliseconds(lambda: backbone.answer_logits(questions), args.rounds)
        one = milliseconds(lambda: editor.learn(edits[:1]), args.rounds)
        many = milliseconds(lambda: editor.learn(edits[:32]), args.rounds) / 32
        for n in args.sizes:
            ids = editor.add(edits[:n])
            tensors = [t for d in editor._deltas.values() for part in d.values() for t in part]
            size = sum(t.numel() * t.element_size() for t in tensors)
            own = [[ids[i % n]] for i in range(len(questions))]
            took = milliseconds(lambda own=own: editor.force(questions, visible=own), args.rounds)
            rows.append({"edits": n, "kib_an_edit": size / 1024 / n, "ms_of_32": took})
            editor.clear()
    print(f"{args.backbone}, 1 thread, torch {torch.__version__}, {platform.machine()}")
    print(
        f"an edit: {one:.1f} ms alone, {many:.1f} ms among 32; base model, 32 rows: {base:.1f} ms"
    )
    for row in rows:
        print(
            f"{row['edits']:5} edits  {row['kib_an_edit']:7.1f} KiB each  32 rows, each under one: "
            f"{row['ms_of_32']:7.1f} ms"
        )
    if args.json:
        write_json(args.json, {"ms_alone": one, "ms_of_32": many, "base_ms": base, "rows": rows})


if __name__ == "__main__":
    main()
