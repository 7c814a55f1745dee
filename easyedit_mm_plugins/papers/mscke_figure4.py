"""MSCKE's figure 4: the multimodal and SERAC's text classifier, as confusion matrices.

Two tasks on the same records (paper, section 5.3). Text: edit and questions without their picture,
the rephrased question is in scope, the text-only locality question is not. Text and image: the
questions in and out of visual scope, on the edit's picture. The paper draws the figure without
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from ..core.console import CONSOLE, progress_bars
from ..core.errors import BridgeError, CheckpointError, UnknownNameError
from ..core.files import read_json, write_json
from ..data import EditRecord, Question
from ..evaluation import run_files
from ..evaluation.results import records_identity
from . import ExperimentSettings
from .plots import draw, write_csv
from .scope_study import ScoredCase, ScoreFile, Task, accuracy, visual_task
from .tables import INTERVAL, Block, Line, Table, run_note, with_kind

TITLE = "MSCKE, figure 4: scope accuracy of the multimodal and of a text classifier"
METHODS = {"mscke": "MSCKE's scope classifier", "serac": "SERAC's classifier"}
METRICS = ("scope_accuracy", "in_scope", "out_of_scope")


def text_task(record: EditRecord) -> Task:
    """The edit and its rephrase without the picture; the locality question."""
    rephrased = [_without_picture(q) for q in record.rephrase]
    return _without_picture(record.edit), rephrased, record.text_loc


def _without_picture(question: Question) -> Question:
    return replace(question, image=None)


TASKS = {"text": text_task, "text and image": visual_task}
HARD = "text and image, hard pairs alone"


def run(settings: ExperimentSettings) -> None:
    """Score the records with both classifiers; draw ``figure4.png`` and write ``figure4.csv``.

    Raises:
        CheckpointError: no MSCKE editor for the backbone.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    from ..methods import factory

    name = settings.names(["scenes-blip2"])[0]
    records = settings.records(settings.limit, extra=True)
    config = {"dataset": records_identity(records), "backbone": name}
    out = settings.open_folder(config, ("scores.jsonl", "figure4.png", "figure4.csv"))
    scores = ScoreFile(out / "scores.jsonl")
    backbone = settings.load_backbone(name)
    left_out: dict[str, str] = {}
    with progress_bars() as bar:
        for method in METHODS:
            try:
                editor = factory.make_editor(method, backbone)
            except (BridgeError, UnknownNameError, CheckpointError) as error:
                if method == "mscke":
                    raise
                left_out[method] = error.message
                continue
            for task, questions in TASKS.items():
                label = f"{method}/{task}"
                scores.score(label, editor, records.records, questions, progress=bar(label))
    write(out, scores, name, left_out)


def confusion(cases: Sequence[ScoredCase]) -> list[list[int]]:
    """Counts: rows are truly in scope, truly out; columns decided in, decided out."""
    counts = [[0, 0], [0, 0]]
    for case in cases:
        for truth, values in enumerate((case.inside, case.outside)):
            for score in values:
                counts[truth][score < case.threshold] += 1
    return counts


def write(out: Path, scores: ScoreFile, backbone: str, left_out: dict[str, str]) -> None:
    """``figure4.png``, ``figure4.csv``, ``summary.json``, ``table.md`` and the terminal."""
    found = {
        (method, task): cases
        for method in METHODS
        for task in TASKS
        if (cases := scores.of(f"{method}/{task}"))
    }
    counts = {key: confusion(cases) for key, cases in found.items()}
    for method in METHODS:
        cases = found.get((method, "text and image"), [])
        if any(len(case.inside) > 1 for case in cases):  # a case's own pair is of the hard kind
            first = [replace(c, inside=c.inside[:1], outside=c.outside[:1]) for c in cases]
            found[method, HARD] = first
    blocks, rows = [], []
    for task in [*TASKS, *dict.fromkeys(task for _, task in found if task == HARD)]:
        lines = []
        for method, label in METHODS.items():
            if (method, task) not in found:
                lines.append(Line(label, note=left_out.get(method, "")))
                continue
            measured, intervals = accuracy(found[method, task])
            names = dict(zip(METRICS, ("balanced", "in", "out"), strict=True))
            values = {metric: measured[key] for metric, key in names.items()}
            bounds = {metric: intervals[key] for metric, key in names.items()}
            lines.append(Line(label, values, bounds))
            rows.append(
                {"method": method, "backbone": backbone, "task": task, "values": values}
                | {"intervals": bounds, "confusion": confusion(found[method, task])}
                | {"cases": len(found[method, task])}
            )
        blocks.append(Block(f"{task}, {with_kind(backbone)}", lines))
    write_json(out / "summary.json", {"format": run_files.FORMAT, "figure": rows})
    header = ["classifier", "task", "truth", "decided", "count", "share_of_truth"]
    cells = [
        (*key, truth, decided, count, f"{count / sum(row):.4f}" if sum(row) else "")
        for key, matrix in counts.items()
        for truth, row in zip(("in", "out"), matrix, strict=True)
        for decided, count in zip(("in", "out"), row, strict=True)
    ]
    write_csv(out / "figure4.csv", header, cells)
    methods = [m for m in METHODS if any(m == key[0] for key in counts)]
    shown = list(product(methods, TASKS))

    def paint(_: Any, axes: Sequence[Any]) -> None:
        for place, key in zip(axes, shown, strict=True):
            _paint(place, f"{METHODS[key[0]]}\n{key[1]}", counts[key])

    size = (3.3 * len(TASKS) + 0.6, 3.2 * len(methods) + 0.5)
    drawn = draw(out / "figure4.png", paint, size=size, rows=len(methods), columns=len(TASKS))
    notes = [
        f"Percent of right decisions at 0.5, mean over cases; {INTERVAL}; scope accuracy is the "
        "mean of both sides.",
        "Text: the edit without its picture; the rephrase is in scope, text-only locality is not. "
        "Text and image: all questions in and out of visual scope, on the edit's picture. Hard "
        "pairs: the benchmark's own question on each side, without further ones.",
        "The paper draws this figure without numbers: both classifiers right on text, SERAC's "
        "taking most text-image questions for in scope.",
        run_note(out, read_json(out / "env.json")),
    ]
    Table(TITLE, METRICS, blocks, notes, first="classifier").write(out)
    CONSOLE.print(f"{'picture: ' + str(drawn) if drawn else 'no picture'}", markup=False)


def _paint(axes: Any, title: str, matrix: Sequence[Sequence[int]]) -> None:
    """One matrix: share of each true side in percent, and counts."""
    shares = [[100 * n / max(1, sum(line)) for n in line] for line in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_title(title, fontsize=10)
    axes.set_xticks((0, 1), ("in scope", "out of scope"), fontsize=8)
    axes.set_yticks((0, 1), ("in scope", "out of scope"), fontsize=8)
    axes.set_xlabel("decided", fontsize=8)
    axes.set_ylabel("truth", fontsize=8)
    for i, j in product(range(2), range(2)):
        ink = "white" if shares[i][j] > 55 else "black"
        text = f"{shares[i][j]:.1f} %\n{matrix[i][j]}"
        axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=9)
