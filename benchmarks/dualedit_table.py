"""DualEdit on the scenes test records: the gate's forms, the adapters apart, many edits at once.

    python benchmarks/dualedit_table.py [--backbone scenes-llava] [--cases 500] [--variants 300]

Generated answers, the metrics of DualEdit section 3.1. The trained editor is measured on ``cases``
records behind its own gate and the paper's; on the first ``variants`` of them also with the gate
off, with the released gate, with the paper's threshold and with one adapter alone (the same
weights, not trained anew), and with 100 edits in memory at once instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import finish, parser, records, start

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.evaluation import Evaluation, evaluate, same_answer
from easyedit_mm_plugins.evaluation.evaluator import fresh_answers
from easyedit_mm_plugins.methods.dualedit import DualEdit
from easyedit_mm_plugins.methods.dualedit.gate import paper_threshold

KINDS = {"edit": "reliability", "rephrase": "t_gen", "image_rephrase": "v_gen"}
KINDS |= {"text_loc": "t_loc", "image_loc": "m_loc"}


def alone(editor: DualEdit, number: int) -> DualEdit:
    """``editor`` with one adapter; the gate stays where it is and the weights are shared."""
    config = editor.config
    gate = replace(config.gate, layer=config.gate_layer, threshold=editor.threshold)
    made = DualEdit(editor.backbone, replace(config, adapters=[config.adapters[number]], gate=gate))
    made.adapters[0], made.gate = editor.adapters[number], editor.gate
    return made


def together(editor: DualEdit, some: Sequence[EditRecord], base: object) -> dict[str, float]:
    """The metrics with 100 records' edits in memory at once, every question seeing them all."""
    right: dict[str, list[bool]] = {}
    for begin in range(0, len(some), 100):
        part = some[begin : begin + 100]
        with editor.edited([r.edit for r in part]):
            for kind, metric in KINDS.items():
                asked = [q for r in part for q in r.questions()[kind]]
                for i in range(0, len(asked), 32):
                    rows = asked[i : i + 32]
                    wanted = [q.answer for q in rows]
                    if kind.endswith("loc"):
                        wanted = [reply.text for reply in base.get(rows, 32)]
                    said = [a.text for a in editor.generate(rows)]
                    right.setdefault(metric, []).extend(map(same_answer, said, wanted))
    means = {name: 100 * sum(values) / len(values) for name, values in right.items()}
    return means | {"average": sum(means.values()) / len(means)}


def opened(result: Evaluation) -> float:
    """Percent of edits whose own question, as a user asks it, opens the gate."""
    own = [q.route != "base" for case in result.cases for q in case.questions if q.kind == "edit"]
    return 100 * sum(own) / len(own)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--backbone", default="scenes-llava")
    made.add_argument("--editor", type=Path, help="folder; by default the shipped one")
    made.add_argument("--cases", type=int, default=500)
    made.add_argument("--variants", type=int, default=300)
    args = start(made)
    every = records(args, args.cases)
    backbone = load_backbone(args.backbone)
    folder = args.editor or ASSETS / f"dualedit-{args.backbone}"
    editor = DualEdit.from_pretrained(folder, backbone)
    base = fresh_answers(editor, "generated")
    rows: list[dict[str, Any]] = []

    def note(label: str, metrics: dict[str, float | None], cases: int) -> None:
        rows.append({"label": label, "cases": cases, "metrics": metrics})
        values = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        print(f"{label:42} {values}", flush=True)

    def measure(label: str, subject: DualEdit, some: Sequence[EditRecord]) -> None:
        result = evaluate(subject, some, suite="evqa", base_answers=base)
        note(label, result.metrics | {"gate_opens_for_edit": opened(result)}, len(some))

    print(f"{args.backbone}: {editor.describe()}")
    kinds = dict.fromkeys((editor.config.gate.kind, "prompt-end"))
    gates = {kind: editor.with_gate(kind) for kind in kinds}
    for kind, subject in gates.items():
        measure(f"{kind}, {subject.threshold:.3g} (calibrated)", subject, every)
    some = every[: args.variants]
    paper = paper_threshold(backbone)
    for kind, subject in gates.items():
        note(f"{kind}, 100 at once", together(subject, some, base), len(some))
    measure("off", editor.with_gate("off"), some)
    for kind in ("released", "prompt-end"):
        measure(f"{kind}, {paper} (paper)", editor.with_gate(kind, paper), some)
    own = editor.config.gate.kind
    for number, adapter in enumerate(editor.config.adapters):
        measure(f"{own}, {adapter.tokens} adapter alone", alone(editor, number), some)
    about = {"backbone": args.backbone, "settings": editor.describe()}
    finish(args, {**about, "rows": rows})


if __name__ == "__main__":
    main()
