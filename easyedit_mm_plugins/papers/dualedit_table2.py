"""DualEdit's table 2: editing methods on E-VQA and E-IC, five metrics and their average.

A data set is a run of its own below the run folder, with its own protocol: answers of a word are
generated, captions are read under teacher forcing, as the paper reads both. ``summary.json`` of the
whole holds the rows of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.distributed import Ranks
from ..core.environment import hardware_line
from ..core.files import write_json
from ..data.entries import CAPTIONS, DATASETS, task_of
from ..evaluation import Protocol, RunFolder, run_files
from ..evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
from ..evaluation.metrics import EVQA
from ..evaluation.runner import run_grid
from ..evaluation.tables import PROTOCOL_TEXT
from . import ExperimentSettings, published
from .tables import Block, Line, block_title, is_embedded, papers_name, write_table

TABLE = "dualedit-table2"
METHODS = {  # in the paper's order, behind the model as it is
    "unedited": "unedited",
    "ft-visual": "FT-V",
    "ft-llm": "FT-L",
    "ike": "IKE",
    "serac": "SERAC",
    "mend": "MEND",
    "visedit": "VisEdit",
    "dualedit": "DualEdit",
}
ABSENT = {"ke": "KE", "tp": "T-Patcher", "lte": "LTE"}  # printed, and not part of this package
METRICS = EVQA.columns
BACKBONES = ("scenes-blip2", "scenes-llava")
SCENES = ("scenes-evqa", "scenes-eic")
CASES = 500  # of the scenes; of other data all
CAPTION = 40  # tokens that a generated caption may have


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        UnknownNameError, DataError, RunError: as :func:`run_grid`. TrainingError: with ``train``.
    """
    plans = grids(settings)
    if settings.train:
        from ..recipes.editors import train_editors

        labels = [b.label for b in next(iter(plans.values())).backbones]
        folders = train_editors(settings.out / "trained", list(METHODS), labels)
        for plan in plans.values():
            plan.specs = {
                backbone: {m: MethodSpec(m, folder=folder) for m, folder in found.items()}
                for backbone, found in folders.items()
            }
    runs = {
        name: run_grid(plan, settings.out / name, overwrite=settings.overwrite)
        for name, plan in plans.items()
    }
    if Ranks.here().first:
        labels = [b.label for b in next(iter(plans.values())).backbones]
        write(settings.out, runs, labels)


def grids(settings: ExperimentSettings) -> dict[str, Grid]:
    """What is to be measured, by data set."""
    names = SCENES if settings.data == "scenes" else (settings.data,)
    backbones = [
        BackboneSpec.parse(name, device=settings.device, dtype=settings.dtype)
        for name in settings.backbones or BACKBONES
    ]
    found = {}
    for name in names:
        data = DataSpec(
            name,
            str(settings.images) if settings.images else None,
            suite="evqa",
            limit=settings.limit or (CASES if name.startswith("scenes") else None),
            allow_outside=settings.allow_outside,
        )
        protocol = protocol_for(name, [b.label for b in backbones], settings.protocol)
        specs = {b.label: given_editors(settings, b.label, task_of(name)) for b in backbones}
        plan = Grid([*METHODS], backbones, [data], protocol, specs=specs)
        found[Path(name.partition(":")[2] or name).stem] = plan
    return found


def protocol_for(data: str, backbones: Sequence[str], name: str | None = None) -> Protocol:
    """``name``, or as the module says; the paper's own base models as the paper does it."""
    captions = task_of(data) == CAPTIONS
    own = not any(is_embedded(backbone) for backbone in backbones)
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
    blocks = []
    for backbone in backbones:
        for name, run in runs.items():
            mine = [r for r in run.rows() if r["backbone"] == backbone]
            failed = [m for m in run.status.missing() if m["backbone"] == backbone]
            reasons = {m["method"]: m["reason"] for m in failed}
            papers, data = papers_name(backbone), papers_data(_data(run, name))
            lines = [
                _line(method, label, mine, reasons, papers, data)
                for method, label in {**METHODS, **ABSENT}.items()
            ]
            title = f"{block_title(backbone)}: {data.upper()}, {_about(run, mine)}"
            blocks.append(Block(title, [x for x in lines if x.values or x.paper or x.note]))
    write_table(out, "DualEdit, table 2: main results", METRICS, blocks, notes(runs))


def _protocol(run: RunFolder) -> str:
    return (run.config.get("protocol") or {}).get("name", "")


def _data(run: RunFolder, name: str) -> str:
    found = run.config.get("dataset") or {}
    return found.get("name", name)


def _about(run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({row["n"] for row in rows})
    return f"{counts[0] if counts else 'no'} cases, {_protocol(run)}"


def _line(
    method: str,
    label: str,
    rows: Sequence[Mapping[str, Any]],
    reasons: Mapping[str, str],
    papers: str | None,
    data: str,
) -> Line:
    printed: dict[str, float | None] = {}
    if papers is not None and method != "unedited":
        found = published.find(TABLE, backbone=papers, dataset=data, method=method)
        printed = {number.metric: number.value for number in found}
    row = next((r for r in rows if r["method"] == method), None)
    if row is None:
        note = "" if method in ABSENT else reasons.get(method, "not measured yet")
        return Line(label, paper=printed, note=note)
    return Line(label, row["metrics"], row["intervals"], printed)


def notes(runs: Mapping[str, RunFolder]) -> list[str]:
    """How the numbers came about."""
    names = dict.fromkeys(
        (run.config.get("protocol") or {}).get("name", "") for run in runs.values()
    )
    environment = next(iter(runs.values())).environment()
    found = [
        "Percent, mean over cases; in brackets the 95 % bootstrap interval.",
        *(f"Protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}." for name in names),
        "The paper's numbers are of its own base models on E-VQA and E-IC (COCO pictures), read "
        "under teacher forcing; those of an embedded backbone are of another model on other data "
        "and say how methods compare.",
        f"{', '.join(ABSENT.values())}: the paper's numbers only; they are not part of this "
        "package.",
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
    found += [f"The paper: {note}" for note in published.notes(TABLE)]
    where = ", ".join(str(run.path) for run in runs.values())
    hardware = f"; {hardware_line(environment)}" if environment else ""
    found.append(f"Runs: {where}{hardware}.")
    return found
