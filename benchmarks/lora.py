"""MSCKE's LoRA counterfactual model beside the small second language model: quality, memory, time.

    python benchmarks/lora.py [BACKBONE ...] [--limit 500] [--rounds 12] [--json FILE]

One run per backbone, one thread. Both editors have the same scope classifier, so that quality
differs by what answers in scope. Quality: the FGVEdit metrics under the protocol ``generated``.
Weights: what the counterfactual model adds to the base model, in memory and on disk. Time: of an
in-scope question's greedy answer, its picture known, alone and in batches of 32; the two models
take turns, processor time counts. Peak: what such a call holds beyond what was there before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import finish, parser, records, start

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.core.environment import cpu_name
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.evaluation.evaluator import fresh_answers
from easyedit_mm_plugins.methods import load_editor, shipped_editor
from easyedit_mm_plugins.methods.mscke import MSCKE
from easyedit_mm_plugins.papers.cost import in_turns, profile, weight_bytes
from easyedit_mm_plugins.recipes.job import embedded_backbones

METHODS = {"mscke": "small model", "mscke-lora": "LoRA"}
BATCHES = (1, 32)
QUALITY = ("reliability", "generality", "locality", "specificity_in", "specificity")


def quality(editors: dict[str, MSCKE], some: Sequence[EditRecord]) -> dict[str, dict[str, Any]]:
    """By method its metrics in percent; the base model's answers are asked for once."""
    base = fresh_answers(next(iter(editors.values())), "generated")
    found = {}
    for name, editor in editors.items():
        metrics = evaluate(editor, some, "generated", base_answers=base).metrics
        found[name] = {key: metrics[key] for key in QUALITY}
    return found


@torch.no_grad()
def cost(
    editors: dict[str, MSCKE], some: Sequence[EditRecord], rounds: int
) -> dict[str, dict[str, float]]:
    """By method megabytes, and milliseconds a question by batch size."""
    asked = [(r.edit, r.in_scope[0]) for r in some if r.in_scope][: max(BATCHES)]

    def answer(model: Any, n: int) -> Callable[[], Any]:
        edits, queries = zip(*asked[:n], strict=True)
        return partial(model.generate, list(edits), list(queries))

    found = {}
    for name, editor in editors.items():
        model = editor.counterfactual
        at = ASSETS / f"{name}-{editor.backbone.name}/counterfactual/model.safetensors"
        found[name] = {
            "weights_mb": weight_bytes(model) / 1e6,
            "file_mb": at.stat().st_size / 1e6,
            "base_mb": weight_bytes(editor.backbone.model) / 1e6,
            **{f"peak_mb_{n}": profile(answer(model, n)).peak_mb for n in BATCHES},
        }
    for n in BATCHES:
        parts = {name: answer(editor.counterfactual, n) for name, editor in editors.items()}
        for name, timing in in_turns(parts, {}, rounds=rounds).items():
            found[name][f"ms_{n}"] = timing.work_ms / n
    return found


def main() -> None:
    """See the module's docstring."""
    made = parser(__doc__, rounds=12)
    shipped = [name for name in embedded_backbones() if shipped_editor("mscke-lora", name)]
    made.add_argument("backbones", nargs="*", default=shipped, help="those with an adapter")
    made.add_argument("--limit", type=int, default=500, help="cases to measure quality on")
    args = start(made)
    every = records(args, extra=True)
    # One in-scope and one out-of-scope question a case, as the benchmark has it; time takes any.
    some = records(args, args.limit)
    figures: dict[str, Any] = {}
    print(f"{cpu_name()}, one thread, {len(some)} cases, torch {torch.__version__}")
    for name in args.backbones:
        backbone = load_backbone(name)
        editors = {method: load_editor(method, backbone) for method in METHODS}
        costs, qualities = cost(editors, every, args.rounds), quality(editors, some)
        figures[name] = {m: {**qualities[m], **costs[m]} for m in METHODS}
        for method, title in METHODS.items():
            row = " ".join(f"{k} {v:.2f}" for k, v in figures[name][method].items())
            print(f"{name} {title}: {row}", flush=True)
    finish(args, {"cases": len(some), "cpu": cpu_name(), "backbones": figures})


if __name__ == "__main__":
    main()
