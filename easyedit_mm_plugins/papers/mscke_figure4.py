"""MSCKE's figure 4: the multimodal and SERAC's text classifier, as confusion matrices.

Two tasks on the same records (paper, section 5.3). Text: edit and questions without their picture,
the rephrased question is in scope, the text-only locality question is not. Text and image: the
questions in and out of visual scope, on the edit's picture. The paper draws the figure without
numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..backbones import check_backbones
from ..core.console import CONSOLE, progress_bars
from ..core.environment import hardware_line
from ..core.errors import BridgeError, CheckpointError, UnknownNameError
from ..core.files import atomic_path, read_json, write_json, write_text
from ..data import EditRecord, Question, load_records
from ..evaluation import run_files
from ..evaluation.results import records_identity
from . import ExperimentSettings
from .run_folder import open_folder
from .scope_study import ScoredCase, ScoreFile, Task, accuracy, visual_task
from .tables import Block, Line, is_embedded, write_table

TITLE = "MSCKE, figure 4: scope accuracy of the multimodal and of a text classifier"
METHODS = {"mscke": "MSCKE's scope classifier", "serac": "SERAC's classifier"}
METRICS = ("scope_accuracy", "in_scope", "out_of_scope")


def text_task(record: EditRecord) -> Task:
    """The edit and its rephrase without the picture; the locality question."""
    return _blind(record.edit), [_blind(q) for q in record.rephrase], record.text_loc


def _blind(question: Question) -> Question:
    return replace(question, image=None)


TASKS = {"text": text_task, "text and image": visual_task}
HARD = "text and image, hard pairs alone"


def run(settings: ExperimentSettings) -> None:
    """Score the records with both classifiers; draw ``figure4.png`` and write ``figure4.csv``.

    Raises:
        CheckpointError: no MSCKE editor for the backbone.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    name = (settings.backbones or ["scenes-blip2"])[0]
    check_backbones(name)
    from ..backbones import load_backbone
    from ..methods.factory import make_editor

    records = load_records(
        settings.data,
        images=settings.images,
        limit=settings.limit,
        extra=True,
        allow_outside=settings.allow_outside,
    )
    config = {"dataset": records_identity(records), "backbone": name}
    out = open_folder(settings, config, ("scores.jsonl", "figure4.png", "figure4.csv"))
    scores = ScoreFile(out / "scores.jsonl")
    backbone = load_backbone(name, device=settings.device, dtype=settings.dtype)
    left_out: dict[str, str] = {}
    with progress_bars() as bar:
        for method in METHODS:
            try:
                editor = make_editor(method, backbone)
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
            values, bounds = accuracy(found[method, task])
            names = dict(zip(METRICS, ("balanced", "in", "out"), strict=True))
            values = {name: values[key] for name, key in names.items()}
            bounds = {name: bounds[key] for name, key in names.items()}
            lines.append(Line(label, values, bounds))
            rows.append(
                {"method": method, "backbone": backbone, "task": task, "values": values}
                | {"intervals": bounds, "confusion": confusion(found[method, task])}
                | {"cases": len(found[method, task])}
            )
        where = f"{backbone} (embedded)" if is_embedded(backbone) else backbone
        blocks.append(Block(f"{task}, {where}", lines))
    write_json(out / "summary.json", {"format": run_files.FORMAT, "figure": rows})
    write_text(out / "figure4.csv", _csv(counts))
    drawn = _draw(out / "figure4.png", counts)
    environment = read_json(out / "env.json")
    notes = [
        "Percent of right decisions at 0.5, mean over cases; in brackets the 95 % bootstrap "
        "interval; scope accuracy is the mean of both sides.",
        "Text: the edit without its picture; the rephrase is in scope, text-only locality is not. "
        "Text and image: all questions in and out of visual scope, on the edit's picture. Hard "
        "pairs: the benchmark's own question on each side, without further ones.",
        "The paper draws this figure without numbers: both classifiers right on text, SERAC's "
        "taking most text-image questions for in scope.",
        f"Run: {out}; {hardware_line(environment)}.",
    ]
    write_table(out, TITLE, METRICS, blocks, notes, first="classifier")
    CONSOLE.print(f"{'picture: ' + str(drawn) if drawn else 'no picture'}", markup=False)


def _csv(counts: dict[tuple[str, str], list[list[int]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["classifier", "task", "truth", "decided", "count", "share_of_truth"])
    for (method, task), matrix in counts.items():
        for truth, row in zip(("in", "out"), matrix, strict=True):
            for decided, count in zip(("in", "out"), row, strict=True):
                share = f"{count / sum(row):.4f}" if sum(row) else ""
                writer.writerow([method, task, truth, decided, count, share])
    return text.getvalue()


def _draw(path: Path, counts: dict[tuple[str, str], list[list[int]]]) -> Path | None:
    """One matrix a classifier and task; ``None`` where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        CONSOLE.print("[yellow]note[/] no picture: matplotlib is not installed")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = [m for m in METHODS if any(m == key[0] for key in counts)]
    size = (3.3 * len(TASKS) + 0.6, 3.2 * len(methods) + 0.5)
    figure, grid = pyplot.subplots(
        len(methods), len(TASKS), figsize=size, dpi=130, squeeze=False, layout="constrained"
    )
    for row, method in zip(grid, methods, strict=True):
        for axes, task in zip(row, TASKS, strict=True):
            matrix = counts[method, task]
            shares = [[100 * n / max(1, sum(line)) for n in line] for line in matrix]
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
            axes.set_title(f"{METHODS[method]}\n{task}", fontsize=10)
            axes.set_xticks((0, 1), ("in scope", "out of scope"), fontsize=8)
            axes.set_yticks((0, 1), ("in scope", "out of scope"), fontsize=8)
            axes.set_xlabel("decided", fontsize=8)
            axes.set_ylabel("truth", fontsize=8)
            for i in range(2):
                for j in range(2):
                    ink = "white" if shares[i][j] > 55 else "black"
                    text = f"{shares[i][j]:.1f} %\n{matrix[i][j]}"
                    axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)
    return path
