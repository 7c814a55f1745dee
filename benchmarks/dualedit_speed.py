"""DualEdit's training step beside the straightforward one, and what the gate costs. One run.

    python benchmarks/dualedit_speed.py [--backbone scenes-llava] [--batch-size 4] [--json FILE]
        [--clock wall|processor]

Straightforward: every sample its own full forward pass with the output head on all positions, the
base model's output on locality samples likewise, and the edit sample once more for the adapters.
Here: all samples of a step in one pass above the first edited layer. "first" has each question for
the first time, "again" finds the lower layers' outputs in the cache, as later epochs do. All three
take turns, so that whatever else the machine does strikes them alike; the losses must be equal.

Gate: the answer to a question that no edit concerns, with edits in memory, over the base model's;
"new picture" is the whole forward pass, from pixels to the answer, "known picture" the language
model's alone, when the picture's embeddings are at hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from common import finish, machine, parser, records, start
from torch import Tensor

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.backbones.partial import capture
from easyedit_mm_plugins.backbones.splice import Batch, answer_logits, hidden_states
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.methods.dualedit import DualEdit
from easyedit_mm_plugins.methods.dualedit.adapters import pad_memory
from easyedit_mm_plugins.methods.dualedit.edited_pass import Chosen, EditedPass
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import LOC, draw, losses, total
from easyedit_mm_plugins.methods.training_run import training_settings
from easyedit_mm_plugins.papers.cost import in_turns


def straightforward(editor: DualEdit, some: Sequence[EditRecord], hparams: object) -> Tensor:
    """The loss of eq. 5, sample by sample; backward has run."""
    backbone, config = editor.backbone, editor.config
    lm, decoder = backbone.language_model, editor.backbone.decoder
    by_kind: dict[str, list[Tensor]] = {}

    def logits(batch: Batch) -> Tensor:
        return lm.get_output_embeddings()(hidden_states(lm, batch))[0]

    for record in some:
        edit = backbone.batch([record.edit], with_answers=True)
        with torch.no_grad(), capture(decoder, [a.layer for a in config.adapters]) as states:
            hidden_states(lm, edit)
        memory = [
            pad_memory([adapter.memory(states[a.layer][0])])
            for adapter, a in zip(editor.adapters, config.adapters, strict=True)
        ]
        for asked in draw([record]):
            batch = backbone.batch([asked.question], with_answers=True)
            at = batch.answer_mask[0].nonzero().flatten() - 1
            chosen = Chosen(torch.tensor([0]), memory)
            edited = EditedPass(decoder, config, editor.adapters, batch, lambda _, c=chosen: c)
            with edited.running():
                own = logits(batch)
            own = own[at].log_softmax(-1)
            if asked.kind in LOC:
                with torch.no_grad():
                    base = logits(batch)[at].log_softmax(-1)
                term = (base.exp() * (base - own)).sum()
            else:
                term = -own.gather(-1, torch.tensor(batch.answers[0])[:, None]).sum()
            by_kind.setdefault(asked.kind, []).append(term)
    loss = total({kind: torch.stack(terms).mean() for kind, terms in by_kind.items()}, hparams)
    loss.backward()
    return loss.detach()


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def gate_cost(
    editor: DualEdit, some: Sequence[EditRecord], size: int, case: str, rounds: int, clock: str
) -> float:
    """Time of questions that leave the gate shut over the base model's, in turns."""
    backbone = editor.backbone
    asked = [r.text_loc[0] if i % 4 == 3 else r.edit for i, r in enumerate(some[10:])]
    asked = (asked * size)[:size]

    @torch.no_grad()
    def forward(edited: bool) -> None:
        batch = known
        if case == "new":
            backbone.clear_cache()
            batch = backbone.batch(asked, with_answers=True)
        with editor._edited(batch, None) if edited else nullcontext():
            answer_logits(backbone.language_model, batch)

    known = backbone.batch(asked, with_answers=True)
    parts = {name: partial(forward, name == "edited") for name in ("base", "edited")}
    times = in_turns(parts, {}, rounds=(16 if size == 1 else 3) * rounds, warm_up=0)
    base, edited = (found.wall if clock == "wall" else found.work for found in times.values())
    return statistics.median(edited) / statistics.median(base)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=10)
    made.add_argument("--backbone", default="scenes-llava")
    made.add_argument("--batch-size", type=int, default=4)
    made.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="processor: where other work runs beside"
    )
    args = start(made)
    clock = CLOCKS[args.clock]
    backbone = load_backbone(args.backbone)
    hparams = training_settings("dualedit", args.backbone)
    torch.manual_seed(0)
    editor = DualEdit(backbone, hparams.config)
    # Ten edits stand in the memory while the gate is timed, and others are asked about.
    some = records(args, max(20, args.batch_size * (args.rounds + 1)), "train")
    store = FrozenStates(editor, 2**30)
    # The whole of eq. 5: no row is spared because a gate is shut.

    def ours(batch: Sequence[EditRecord]) -> Tensor:
        loss = total(losses(editor, store, draw(batch))[0], hparams)
        loss.backward()
        return loss.detach()

    def timed(step: Callable[..., Tensor], batch: Sequence[EditRecord]) -> tuple[float, Tensor]:
        begin = clock()
        loss = step(batch)
        return clock() - begin, loss

    def plain(batch: Sequence[EditRecord]) -> Tensor:
        return straightforward(editor, batch, hparams)

    steps: dict[str, list[float]] = {"straightforward": [], "first": [], "again": []}
    for turn in range(args.rounds + 1):
        batch = some[turn * args.batch_size : (turn + 1) * args.batch_size]
        backbone.rows([q for r in batch for qs in r.questions().values() for q in qs])  # images
        found = {"straightforward": timed(plain, batch)}
        found |= {name: timed(ours, batch) for name in ("first", "again")}
        for name, (seconds, loss) in found.items():
            assert torch.allclose(loss, found["first"][1], rtol=1e-3), (name, loss)
            if turn:  # the first round warms up
                steps[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in steps.items()}
    print(f"{args.backbone}, batch {args.batch_size}, {args.clock} time, {machine()}")
    for name, seconds in medians.items():
        ratio = medians["straightforward"] / seconds
        print(f"  {name:16} {seconds * 1000:8.1f} ms a step, {ratio:.1f} times as fast")

    gate: dict[str, float] = {}
    for kind in ("prompt-end", "learned"):
        gated = editor.with_gate(kind, 1.0)  # shut
        gated.add([r.edit for r in some[:10]])
        for size in (1, 32):
            for case in ("new", "known"):
                name = f"{kind}, batch {size}, {case} picture"
                gate[name] = gate_cost(gated, some, size, case, args.rounds, args.clock)
                print(f"  gate {name}: {100 * (gate[name] - 1):+.1f} % of the base forward")
    finish(args, {"backbone": args.backbone, "steps": medians, "gate": gate})


if __name__ == "__main__":
    main()
