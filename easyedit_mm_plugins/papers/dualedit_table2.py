"""DualEdit's table 2: editing methods on E-VQA and E-IC, five metrics and their average.

A data set is a run of its own below the run folder, with its own protocol: answers of a word are
generated, captions are read under teacher forcing, as the paper reads both. ``summary.json`` of the
run folder holds the rows of all data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..core.distributed import Ranks
from ..core.files import write_json
from ..data.entries import CAPTIONS, DATASETS, task_of
from ..evaluation import Protocol, RunFolder, run_files
from ..evaluation.grid import Grid, MethodSpec
from ..evaluation.metrics import EVQA
from ..evaluation.runner import run_grid
from . import ExperimentSettings, published
from .tables import (
    INTERVAL,
    Block,
    Table,
    block_title,
    is_papers_own,
    method_label,
    method_lines,
    paper_notes,
    papers_name,
    protocol_note,
    protocol_of,
    run_note,
)

TABLE = "dualedit-table2"
# In the paper's order, after the unedited model.
METHODS = (
    *("unedited", "ft-visual", "ft-llm", "ke", "ike", "serac", "mend"),
    *("t-patcher", "lte", "visedit", "dualedit"),
)
PAPERS_LABELS = {"ft-visual": "FT-V", "ft-llm": "FT-L"}
METRICS = EVQA.columns
BACKBONES = ("scenes-blip2", "scenes-llava")
SCENES = ("scenes-evqa", "scenes-eic")
CASES = 500
CAPTION = 40  # tokens that a generated caption may have


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        UnknownNameError, DataError, RunError: as :func:`run_grid`. TrainingError: with ``train``.
    """
    plans = grids(settings)
    labels = [b.label for b in next(iter(plans.values())).backbones]
    if settings.train:
        trained = settings.trained(METHODS, labels)
        for plan in plans.values():
            plan.specs = trained
    runs = {
        name: run_grid(plan, settings.out / name, overwrite=settings.overwrite)
        for name, plan in plans.items()
    }
    if Ranks.here().first:
        write(settings.out, runs, labels)


def grids(settings: ExperimentSettings) -> dict[str, Grid]:
    """What is to be measured, by data set."""
    backbones = settings.backbone_specs(BACKBONES)
    labels = [backbone.label for backbone in backbones]
    found = {}
    for name in SCENES if settings.data == "scenes" else (settings.data,):
        data = settings.data_spec(name, suite="evqa", limit=settings.cases(CASES))
        protocol = protocol_for(name, labels, settings.protocol)
        specs = {label: given_editors(settings, label, task_of(name)) for label in labels}
        plan = Grid([*METHODS], backbones, [data], protocol, specs=specs)
        found[Path(name.partition(":")[2] or name).stem] = plan
    return found


def protocol_for(data: str, backbones: Sequence[str], name: str | None = None) -> Protocol:
    """``name``, or as the module says; the paper's own base models as the paper does it."""
    captions = task_of(data) == CAPTIONS
    own = all(map(is_papers_own, backbones))
    name = name or ("released" if own else "teacher-forced" if captions else "generated")
    generated = captions and name == "generated"
    return Protocol(name, max_new_tokens=CAPTION) if generated else Protocol(name)


def papers_data(data: str) -> str:
    """The published data set that ``data``, a name or a file's stem, is or stands for."""
    name = data.partition(":")[0]
    if name in DATASETS:
        return DATASETS.get(name).paper or "e-vqa"
    return next((e.paper for e in DATASETS if e.paper and data in e.released), "e-vqa")


def given_editors(
    settings: ExperimentSettings, backbone: str, task: str | None = None
) -> dict[str, MethodSpec]:
    """Trained editors in ``settings.editors``, folders METHOD-BACKBONE or METHOD-BACKBONE-TASK."""
    found: dict[str, MethodSpec] = {}
    for name in (backbone, f"{backbone}-{task}") if settings.editors is not None else ():
        folders = {m: Path(settings.editors) / f"{m}-{name}" for m in METHODS}
        found |= {m: MethodSpec(m, folder=str(f)) for m, f in folders.items() if f.is_dir()}
    return found


def write(out: Path, runs: Mapping[str, RunFolder], backbones: Sequence[str]) -> None:
    """``summary.json``, ``table.md`` and the terminal, from measured runs."""
    rows = [row for run in runs.values() for row in run.rows()]
    missing = [m for run in runs.values() for m in run.status.missing()]
    summary: dict[str, Any] = {"format": run_files.FORMAT, "rows": rows}
    write_json(out / "summary.json", summary | ({"failed": missing} if missing else {}))
    labels = {m: PAPERS_LABELS.get(m, method_label(m)) for m in METHODS}
    blocks = []
    for backbone in backbones:
        for name, run in runs.items():
            data = papers_data((run.config.get("dataset") or {}).get("name", name))
            printed = partial(
                published.printed, TABLE, backbone=papers_name(backbone), dataset=data
            )
            lines = method_lines(run, backbone, labels, printed)
            counts = sorted(row["n"] for row in run.rows() if row["backbone"] == backbone)
            about = f"{counts[0] if counts else 'no'} cases, {protocol_of(run)}"
            title = f"{block_title(backbone)}: {data.upper()}, {about}"
            blocks.append(Block(title, [x for x in lines if x.values or x.paper or x.note]))
    Table("DualEdit, table 2: main results", METRICS, blocks, notes(runs)).write(out)


def notes(runs: Mapping[str, RunFolder]) -> list[str]:
    """How the numbers were measured."""
    found = [
        f"Percent, mean over cases; {INTERVAL}.",
        *map(protocol_note, dict.fromkeys(map(protocol_of, runs.values()))),
        "The paper's numbers are of its own base models on E-VQA and E-IC (COCO pictures), read "
        "under teacher forcing; those of an embedded backbone are of another model on other data "
        "and say how methods compare.",
        "Captions: a method whose editor is shipped for captions too takes that one, any other "
        "the one trained on questions.",
    ]
    for run in runs.values():
        for row in run.rows():
            gate = (row.get("settings") or {}).get("gate")
            if gate is not None:
                found.append(
                    f"{row['method']} on {row['backbone']}, {row['dataset']}: gate {gate}, "
                    f"threshold {row['settings'].get('threshold')}."
                )
    where = ", ".join(str(run.path) for run in runs.values())
    environment = next(iter(runs.values())).environment()
    return [*found, *paper_notes(TABLE), run_note(where, environment, "Runs")]
