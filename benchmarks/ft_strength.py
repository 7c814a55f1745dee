"""Why fine-tuning lies above SERAC on Specificity on the embedded backbones: one cause varied.

    python benchmarks/ft_strength.py [--backbone scenes-blip2 ...] [--cases 100] [--out FOLDER]

The learning rate of FT-LLM and FT-Visual is multiplied by each factor, everything else stays as
shipped (15 steps). Questions in scope are split by whether their answer is the edit's own target
("same") or another one that follows from it ("other"). SERAC's row is measured on the same cases.
Every row is written as it is done; a stopped run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import finish, parser, records, start

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.core import jsonl
from easyedit_mm_plugins.core.errors import BridgeError, CheckpointError
from easyedit_mm_plugins.core.files import write_text
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.evaluation import CaseResult, Evaluation, evaluate
from easyedit_mm_plugins.evaluation.evaluator import fresh_answers
from easyedit_mm_plugins.methods.factory import make_editor
from easyedit_mm_plugins.recipes.job import embedded_backbones

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
TUNERS = ("ft-llm", "ft-visual")
METRICS = ("reliability", "locality", "specificity", "specificity_in", "specificity_out")


def by_answer(cases: Sequence[CaseResult]) -> dict[str, list[int]]:
    """Questions in scope answered right, and all of them, by whether the target is the edit's."""
    counts = {"same": [0, 0], "other": [0, 0]}
    for case in cases:
        own = case.edit["target"].strip().lower()
        for question in case.questions:
            if question.kind == "in_scope":
                kind = "same" if question.target.strip().lower() == own else "other"
                counts[kind][0] += bool(question.is_target)
                counts[kind][1] += 1
    return counts


def as_row(backbone: str, method: str, factor: float | None, found: Evaluation) -> dict[str, Any]:
    """One line of ``rows.jsonl``."""
    values = {name: found.metrics[name] for name in METRICS}
    interval = found.row.intervals["specificity"]
    about = {"backbone": backbone, "method": method, "factor": factor, "cases": len(found.cases)}
    return {**about, **values, "interval": interval, **by_answer(found.cases)}


def measure(name: str, some: Sequence[EditRecord], factors: Sequence[float], path: Path) -> None:
    """All rows of one backbone that are not yet in ``path``."""
    lines, _ = jsonl.load(path)
    known = {
        (r["method"], r["factor"])
        for r in lines
        if (r["backbone"], r["cases"]) == (name, len(some))
    }
    backbone, before = load_backbone(name), None
    todo = [(method, factor) for method in TUNERS for factor in factors] + [("serac", None)]
    for method, factor in todo:
        if (method, factor) in known:
            continue
        if factor is None:
            try:
                editor = make_editor(method, backbone)
            except (BridgeError, CheckpointError) as error:
                print(f"{method} left out: {error.message}")
                continue
        else:
            shipped = make_editor(method, backbone)
            config = replace(shipped.config, edit_lr=shipped.config.edit_lr * factor)
            editor = type(shipped)(backbone, config)
        before = before or fresh_answers(editor, "generated")
        found = evaluate(editor, some, "generated", base_answers=before)
        row = as_row(name, method, factor, found)
        jsonl.append(path, [row])
        print(line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    low, high = row["interval"]
    cells = [
        row["backbone"],
        row["method"],
        "" if row["factor"] is None else f"{row['factor']:g}",
        f"{row['reliability']:.0f}",
        f"{row['locality']:.0f}",
        f"{row['specificity']:.1f} ({low:.1f} to {high:.1f})",
        f"{row['specificity_in']:.0f}",
        f"{row['specificity_out']:.0f}",
        "{} of {}".format(*row["same"]),
        "{} of {}".format(*row["other"]),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| backbone | method | learning rate times | reliability | locality | specificity | in scope | "
    "out of scope | in scope, same answer | in scope, another |\n" + "|---" * 10 + "|"
)


def main() -> None:
    """Measure and print."""
    made = parser(__doc__)
    made.add_argument("--backbone", nargs="+", default=embedded_backbones())
    made.add_argument("--cases", type=int, default=100)
    made.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    made.add_argument("--out", type=Path, default=Path("runs/ft-strength"))
    args = start(made)
    some = records(args, args.cases)
    path = args.out / "rows.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.backbone:
        measure(name, some, args.factors, path)
    rows = [r for r in jsonl.load(path)[0] if r["cases"] == len(some)]
    write_text(args.out / "table.md", "\n".join([HEAD, *map(line, rows)]) + "\n")
    print((args.out / "table.md").read_text())
    finish(args, {"rows": rows})


if __name__ == "__main__":
    main()
