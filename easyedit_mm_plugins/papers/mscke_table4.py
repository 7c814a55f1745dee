"""MSCKE's table 4: time and memory of the classifier, the base and the counterfactual model.

Each is one forward pass over the same questions, with teacher-forced answers, on one CPU thread or
on the GPU. The base model's greedy answer, which is what a user waits for, is measured too. Three
situations:

* ``benchmark``: a case's questions after its edit, as FGVEdit asks them. The edit's picture was
  encoded when the edit was added, so the classifier has it; the base model has not seen it.
* ``new pictures``: each question on a picture that neither has seen.
* ``known pictures``: each question on a picture that both have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

import torch

from ..backbones import check_backbones
from ..core import jsonl
from ..core.console import CONSOLE
from ..core.files import read_json, write_json
from ..data import EditRecord, Question
from ..evaluation.results import records_identity
from ..recipes.job import embedded_backbones
from . import FULL_SIZE, ExperimentSettings, full_size, published
from .classifiers import shipped_editor
from .cost import in_turns, profile, share, weight_bytes
from .tables import Block, Line, Table, block_title, paper_notes, papers_name, run_note

if TYPE_CHECKING:
    from ..methods.mscke import MSCKE

TABLE = "mscke-table4"
METRICS = ("time_ms", "wall_ms", "share_of_base", "weights_mb", "peak_mb")
SITUATIONS = ("benchmark", "new pictures", "known pictures")
CHEAPEST = "benchmark"  # the only one at full size and batch 32
BATCHES = (1, 32)
PARTS = {
    "classifier": "classifier",
    "base": "base, one pass",
    "answer": "base, greedy answer",
    "counterfactual": "counterfactual, one pass",
}
ROUNDS = {1: 40, 32: 12}
# At full size one call takes seconds to minutes on a CPU.
FULL_ROUNDS = {1: 3, 32: 1}
FULL_PARTS = {1: ("classifier", "base", "counterfactual"), 32: ("classifier", "base")}
CASES = 64


@dataclass(frozen=True)
class QuestionGroup:
    """The questions of one round, and the edits in force."""

    questions: Sequence[Question]
    edits: Sequence[Question]


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    ``full-size`` among the backbones is BLIP-2 OPT-2.7B's shape with random weights.

    Raises:
        CheckpointError: no MSCKE editor for a backbone.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    names = settings.backbones or embedded_backbones()
    check_backbones(*(name for name in names if name != FULL_SIZE))
    records = settings.records(settings.limit or CASES, extra=True)
    out = settings.open_folder({"dataset": records_identity(records)}, ("costs.jsonl",))
    path = out / "costs.jsonl"
    done, _ = jsonl.load(path)
    for name in names:
        full = name == FULL_SIZE
        wanted = [
            (b, s) for b in BATCHES for s in SITUATIONS if not full or b == 1 or s == CHEAPEST
        ]
        known = {(row["batch"], row["situation"]) for row in done if row["backbone"] == name}
        if set(wanted) <= known:
            continue
        editor = _editor(name, settings)
        for batch, situation in wanted:
            if (batch, situation) in known:
                continue
            CONSOLE.print(f"{name}, batch {batch}, {situation}", markup=False)
            rounds = (FULL_ROUNDS if full else ROUNDS)[batch]
            # Few cases, few rounds: a quick look.
            rounds = min(rounds, settings.limit or rounds)
            parts = FULL_PARTS[batch] if full else tuple(PARTS)
            row = measure(editor, _short(records.records, full), batch, situation, rounds, parts)
            jsonl.append(path, [{"backbone": name, **row}])
            done.append({"backbone": name, **row})
    write(settings, [row for row in done if row["backbone"] in names], names)


def _short(records: Sequence[EditRecord], full: bool) -> Sequence[EditRecord]:
    """At full size without the further scope questions of a case."""
    if not full:
        return records
    return [replace(r, in_scope=r.in_scope[:1], out_scope=r.out_scope[:1]) for r in records]


def _editor(name: str, settings: ExperimentSettings) -> MSCKE:
    if name == FULL_SIZE:
        dtype = getattr(torch, settings.dtype or "bfloat16")
        return full_size.build_editor(dtype, settings.device)
    return shipped_editor(settings.load_backbone(name))


def workload(records: Sequence[EditRecord], batch: int, situation: str) -> list[QuestionGroup]:
    """The groups of questions; a round asks one of them.

    In the benchmark at batch 1 a group is a case whose questions are asked one after the other.
    """
    cases = [[r.edit, *r.rephrase, *r.in_scope, *r.out_scope] for r in records]
    if situation != "benchmark":
        # Each its own picture, the first question after the edit; the edit is another picture's.
        singles = [(case[1], i - 1) for i, case in enumerate(cases)]
        groups = _full_groups(singles, batch)
        return [QuestionGroup([q for q, _ in g], [records[g[0][1]].edit]) for g in groups]
    if batch == 1:
        return [QuestionGroup(case, [r.edit]) for case, r in zip(cases, records, strict=True)]
    flat = [(q, i) for i, case in enumerate(cases) for q in case]
    return [
        QuestionGroup([q for q, _ in g], [records[i].edit for i in sorted({i for _, i in g})])
        for g in _full_groups(flat, batch)
    ]


def _full_groups(
    questions: list[tuple[Question, int]], size: int
) -> list[list[tuple[Question, int]]]:
    """Groups of ``size`` questions, each with its case; one smaller group if there are fewer."""
    groups = [questions[i : i + size] for i in range(0, len(questions), size)]
    return [group for group in groups if len(group) == size] or [questions]


@torch.no_grad()
def measure(
    editor: MSCKE,
    records: Sequence[EditRecord],
    batch: int,
    situation: str,
    rounds: int,
    asked: Sequence[str] = tuple(PARTS),
) -> dict[str, Any]:
    """Times, shares and memory of the parts ``asked`` for, as one row of ``costs.jsonl``."""
    backbone, device = editor.backbone, editor.backbone.device
    groups = workload(records, batch, situation)
    one_by_one = situation == "benchmark" and batch == 1
    meter = _Meter(editor, groups, one_by_one, known=situation == "known pictures")
    patient = rounds > 3  # else a call takes so long that a warm-up makes no difference
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        memory = {
            name: profile(
                partial(meter.first, name),
                partial(meter.prepare, name),
                device,
                warm_up=patient,
            )
            for name in asked
        }
        timings = in_turns(
            {name: partial(meter.ask, name) for name in asked},
            {name: partial(meter.prepare, name) for name in asked},
            rounds=rounds,
            warm_up=3 if patient else 0,  # the profiler has run all of it
            device=device,
        )
    finally:
        torch.set_num_threads(threads)
        editor.clear()
    per = sum(len(g.questions) for g in groups) / len(groups) if one_by_one else 1
    own = {"classifier": editor.scope, "counterfactual": editor.counterfactual}
    parts = {
        name: {
            "time_ms": timing.work_ms / per,
            "wall_ms": timing.wall_ms / per,
            "share_of_base": share(timing, timings["base"]),
            "weights_mb": weight_bytes(own.get(name, backbone.model)) / 1e6,
            "peak_mb": memory[name].peak_mb,
            "operations": memory[name].operations,
            "slowest": memory[name].slowest,
        }
        for name, timing in timings.items()
    }
    dtype = str(backbone.dtype).removeprefix("torch.")
    about = {"rounds": rounds, "device": str(device), "dtype": dtype}
    return {"batch": batch, "situation": situation, **about, "parts": parts}


class _Meter:
    """The parts' calls; every part sees the groups in the same order."""

    def __init__(
        self, editor: MSCKE, groups: Sequence[QuestionGroup], one_by_one: bool, known: bool
    ) -> None:
        self.editor, self.one_by_one, self.known = editor, one_by_one, known
        self.groups = {name: cycle(groups) for name in PARTS}
        self.now: dict[str, QuestionGroup] = {}

    def prepare(self, part: str) -> None:
        """Untimed: edits into the memory, and who has seen which picture."""
        group = self.now[part] = next(self.groups[part])
        editor = self.editor
        editor.clear()
        if self.known:
            editor.backbone.image_features([q.image for q in group.questions])
            editor.scope.regions([q.image for q in group.questions])
        else:
            editor.backbone.clear_cache()
            editor.scope.seen.clear()
        editor.add(group.edits)

    def ask(self, part: str) -> None:
        """Timed: the group's questions, at once or one after the other."""
        group = self.now[part]
        if not self.one_by_one:
            return self._call(part, group, group.questions)
        for question in group.questions:
            self._call(part, group, [question])
        return None

    def first(self, part: str) -> None:
        """One call: what the profiler looks at."""
        group = self.now[part]
        self._call(part, group, group.questions[:1] if self.one_by_one else group.questions)

    def _call(self, part: str, group: QuestionGroup, questions: Sequence[Question]) -> None:
        editor = self.editor
        if part == "classifier":
            editor.route(questions)
        elif part == "base":
            editor.backbone.answer_logits(questions)
        elif part == "answer":
            editor.backbone.generate(questions)
        else:
            edits = [group.edits[0]] * len(questions)
            editor.counterfactual.answer_logits(edits, questions)


def write(settings: ExperimentSettings, rows: Sequence[dict[str, Any]], names: list[str]) -> None:
    """``summary.json``, ``table.md`` and the terminal, from what was measured."""
    blocks = []
    for name in names:
        for row in (r for r in rows if r["backbone"] == name):
            lines = [_line(name, row, p, label) for p, label in PARTS.items() if p in row["parts"]]
            blocks.append(Block(_title(name, row), lines))
    write_json(settings.out / "summary.json", {"format": 1, "costs": list(rows)})
    device = "processor time of one thread" if settings.device == "cpu" else "time on the device"
    notes = [
        f"Medians after a warm-up, parts in turns, in milliseconds a batch: time is {device}, wall "
        "what a clock shows beside whatever else ran. Share: of the base model's one pass.",
        "Benchmark: a case's questions after its edit (at batch 1 one after the other, mean a "
        "question); the classifier encoded the picture when the edit came. New pictures: seen by "
        "neither. Known: seen by both. Memory in MB: weights, and the profiler's peak of one call.",
        *paper_notes(TABLE),
        run_note(settings.out, read_json(settings.out / "env.json")),
    ]
    title = "MSCKE, table 4: cost of the scope classifier"
    Table(title, METRICS, blocks, notes, first="part").write(settings.out)


def _title(name: str, row: dict[str, Any]) -> str:
    where = f"batch {row['batch']}, {row['situation']}"
    if name == FULL_SIZE:
        return f"BLIP-2 OPT-2.7B's shape, random weights, {row['dtype']}: {where}"
    return f"{block_title(name, printed=False)}: {where}"


def _line(name: str, row: dict[str, Any], part: str, label: str) -> Line:
    values = {metric: row["parts"][part][metric] for metric in METRICS}
    printed: dict[str, float | None] = {}
    blip2 = name == FULL_SIZE or papers_name(name) == "blip2-opt"
    if blip2 and row["batch"] == 1 and row["situation"] == "benchmark" and part != "answer":
        found = {n.metric: n.value for n in published.find(TABLE, part=part)}
        base = published.find(TABLE, part="base", metric="inference_ms")[0].value
        printed = {
            "time_ms": found["inference_ms"],
            "share_of_base": round(100 * found["inference_ms"] / base, 1),
            "weights_mb": 1000 * found["model_size_gb"],
        }
    return Line(label, values, paper=printed)
