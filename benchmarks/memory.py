"""What do edits kept in force cost? Look-up, adding, removing, bytes, beside EasyEdit's SERAC.

    python benchmarks/memory.py [--backbone scenes-llava] [--sizes 1 1000 100000] [--json FILE]

One run, in turns, so that whatever else the machine does strikes all alike:

1. the store of edits with synthetic keys of the real width, MSCKE's keys of real edits with noise:
   look-up, add, remove, and the recall of the index against comparing with all keys;
2. MSCKE and SERAC asked the same question with 1 .. 1,000 edits in force (SERAC, EasyEdit's own
   code, encodes all edits again at every call); and adding 1,000 edits at once and one by one;
3. DualEdit: bytes an edit, and answers and time where an edit's values have to be made again;
4. what 1,000 edits take at the shapes of LLaVA-7B and BLIP-2, computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any

import torch
from common import finish, machine, parser, records, start
from torch import Tensor
from torch.nn.functional import normalize

from easyedit_mm_plugins import load_backbone, load_editor
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.key_index import available
from easyedit_mm_plugins.methods.keys import KeyTable
from easyedit_mm_plugins.methods.store import EditStore, Kept
from easyedit_mm_plugins.papers.cost import in_turns

NOISE = 0.3  # length of what is added to a real key, of length 1
# What DualEdit keeps of an edit: tokens of a sample, width of an adapter, adapters, bytes a number.
SHAPES = {"LLaVA-7B": (576 + 40, 1024, 2, 2), "BLIP-2 OPT 2.7B": (32 + 40, 1024, 2, 2)}
MIB = 2**20


def timed(calls: dict[Any, Callable[[], Any]], rounds: int) -> dict[Any, list[float]]:
    """Milliseconds of each call, in turns."""
    found: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            began = perf_counter()
            call()
            found[key].append((perf_counter() - began) * 1e3)
    return found


def like(real: Tensor, count: int) -> Tensor:
    """``count`` unit keys: real ones with noise."""
    chosen = real[torch.randint(len(real), (count,))]
    return noisy(chosen, 2 * NOISE)


def noisy(keys: Tensor, noise: float = NOISE) -> Tensor:
    """Unit keys near ``keys``."""
    return normalize(keys + noise * torch.randn_like(keys) / keys.shape[1] ** 0.5, dim=-1)


def stores(real: Tensor, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Part 1."""
    rows, calls, made = [], {}, {}
    for n in sizes:
        began = process_time()
        store = made[n] = EditStore(real.shape[1])
        store.add([Question(f"question {i}", None, "a") for i in range(n)], Kept(like(real, n)))
        rows.append({"edits": n, "built_s": process_time() - began})
        one, some = like(real, 1), [Question("one more question", None, "a")]
        entered: list[str] = []

        def look_up(store: EditStore = store, n: int = n) -> None:
            at = int(torch.randint(n, ()))
            store.now.table.nearest(noisy(store.now.keys[at : at + 1]))

        def add(
            store: EditStore = store,
            entered: list[str] = entered,
            one: Tensor = one,
            some: list[Question] = some,
        ) -> None:
            entered[:] = store.add(some, Kept(one))

        def remove(store: EditStore = store, entered: list[str] = entered) -> None:
            store.remove(entered)

        calls |= {("look-up", n): look_up, ("add", n): add, ("remove", n): remove}
    times = timed(calls, rounds)
    for row in rows:
        n, table = row["edits"], made[row["edits"]].now.table
        for name in ("look-up", "add", "remove"):
            row[name] = statistics.median(times[name, n])
            row[f"{name} least"] = min(times[name, n])
        row["recall"] = recall(table, 200)
    return rows


def recall(table: Any, asked: int) -> float:
    """The share of queries whose nearest key is found."""
    exact = KeyTable(table.tensor.shape[1], approximate=False)
    exact.replace(table.ids, table.tensor)
    queries = noisy(table.tensor[torch.randint(len(table), (asked,))])
    found = [near[0].score for q in queries for near in table.nearest(q[None])]
    right = [
        near[0].score
        for start in range(0, asked, 20)
        for near in exact.snapshot().nearest(queries[start : start + 20])
    ]
    return sum(abs(a - b) < 1e-5 for a, b in zip(found, right, strict=True)) / asked


def dualedit(backbone: Any, edits: Sequence[Question], asked: Sequence[Question]) -> dict[str, Any]:
    """Part 3."""
    kept, anew = load_editor("dualedit", backbone), load_editor("dualedit", backbone)
    anew.memory.kept.limit = 0
    usual = anew.memory.__class__(backbone.model).kept.limit
    kept.memory.kept.limit = 2**40
    for editor in (kept, anew):
        editor.add(list(edits))
    each = kept.memory.kept.used / len(edits)
    key = kept.store.now.keys[0].nbytes
    questions = [*edits[:100], *asked[:100]]
    answers = [[(a.text, a.route) for a in e.generate(questions)] for e in (kept, anew)]
    held = {n: (min(usual, each * n) / n + key) for n in (len(edits), 10_000)}
    calls = {"kept": lambda: kept.force(edits[:1]), "made again": lambda: anew.force(edits[:1])}
    times = {name: statistics.median(own) for name, own in timed(calls, 15).items()}
    halves = kept.memory.kept.get(next(iter(kept.store.now.payloads.values())))
    return {
        "bytes kept whole": each,
        "bytes in half precision": each * 2 / halves[0][0].element_size(),
        "budget": usual,
        "bytes an edit": held,
        "questions": len(questions),
        "answers that differ": sum(a != b for a, b in zip(*answers, strict=True)),
        "ms": times,
    }


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=30)
    made.add_argument("--backbone", default="scenes-llava")
    sizes = [1, 1000, 10_000, 100_000, 1_000_000]
    made.add_argument("--sizes", type=int, nargs="+", default=sizes)
    made.add_argument("--serac", type=int, nargs="*", default=[1, 10, 100, 1000])
    args = start(made)
    torch.manual_seed(0)
    backbone = load_backbone(args.backbone)
    some = records(args, 1000)
    edits, question = [r.edit for r in some], some[0].out_scope[0]
    figures: dict[str, Any] = {}
    print(f"{args.backbone}, {machine()}, index {'on' if available() else 'not installed'}")

    mscke = load_editor("mscke", backbone)
    real = mscke.encode(edits).keys
    mscke.clear()
    if args.sizes:
        print(f"\nThe store, keys of width {real.shape[1]}; ms as median (least)")
        figures["store"] = stores(real, args.sizes, 4 * args.rounds)
        for row in figures["store"]:
            cells = "  ".join(
                f"{name} {row[name]:.3f} ({row[f'{name} least']:.3f})"
                for name in ("look-up", "add", "remove")
            )
            print(
                f"{row['edits']:9,} edits  {cells}  recall {100 * row['recall']:.1f} %  "
                f"built in {row['built_s']:.1f} s of processor time"
            )

    ways = {
        "at once": lambda: mscke.remove(mscke.add(edits)),
        "one by one": lambda: mscke.remove([i for e in edits for i in mscke.add([e])]),
    }
    mscke.remove(mscke.add(edits))  # pictures are decoded
    adding = {name: min(own) / 1e3 for name, own in timed(ways, 2).items()}
    factor = adding["one by one"] / adding["at once"]
    figures["adding 1,000"] = adding
    print(
        f"\nMSCKE adds {len(edits):,} edits at once in {adding['at once']:.2f} s, one by one in "
        f"{adding['one by one']:.2f} s: x{factor:.1f}"
    )

    editors = {}
    for name in ("mscke", "serac") if args.serac else ():
        for n in args.serac:
            editors[f"{name} {n}"] = editor = load_editor(name, backbone)
            # The base model answers, however near the question is to an edit.
            editor.threshold = 1.0
            editor.add(edits[:n])
    calls = {key: lambda e=e: e.force([question]) for key, e in editors.items()}
    # Each call runs once untimed before: a call is slower right after a big one.
    times = in_turns(calls, calls, rounds=args.rounds)
    base = in_turns({"base": lambda: backbone.answer_logits([question])}, {}, rounds=args.rounds)
    figures["base_ms"], figures["rows"] = base["base"].wall_ms, []
    print(f"\nA question out of scope; base model alone {figures['base_ms']:.2f} ms")
    for key, own in times.items():
        name, n = key.split()
        first = times[f"{name} {args.serac[0]}"].wall
        grown = statistics.median(a / b for a, b in zip(own.wall, first, strict=True))
        row = {"method": name, "edits": int(n), "ms": own.wall_ms, "growth": grown}
        figures["rows"].append(row)
        print(f"{name:6} {row['edits']:5} edits  {row['ms']:8.2f} ms  x{grown:.2f}")

    found = figures["dualedit"] = dualedit(backbone, edits, [r.in_scope[0] for r in some])
    print(
        f"\nDualEdit: {found['bytes kept whole'] / 1e3:.0f} kB an edit if all is kept, "
        f"{found['bytes in half precision'] / 1e3:.0f} in half precision; with a budget of "
        f"{found['budget'] / MIB:.0f} MiB "
        + ", ".join(f"{v / 1e3:.1f} kB at {n:,} edits" for n, v in found["bytes an edit"].items())
        + f"\nan edit that is kept {found['ms']['kept']:.1f} ms, that is made again "
        f"{found['ms']['made again']:.1f} ms; of {found['questions']} answers "
        f"{found['answers that differ']} differ"
    )
    figures["shapes"] = {}
    print("\nOne thousand edits, computed from shapes")
    for name, (tokens, width, adapters, size) in SHAPES.items():
        one = tokens * width * adapters * 2 * size
        figures["shapes"][name] = {"an edit": one, "1,000 edits": 1000 * one, "keys": 1000 * 512}
        print(
            f"{name:16} {one / 1e6:.2f} MB an edit, {one / 1e6:,.0f} GB if all is kept; "
            f"keys {1000 * 512 / MIB:.1f} MiB and the budget as it is"
        )
    finish(args, figures)


if __name__ == "__main__":
    main()
