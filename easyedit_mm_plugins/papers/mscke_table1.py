"""MSCKE's table 1: seven methods and the unedited model, four metrics, every backbone."""

from __future__ import annotations

from pathlib import Path

from ..core.distributed import Ranks
from ..core.environment import hardware_line
from ..evaluation import Protocol, RunFolder
from ..evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
from ..evaluation.runner import run_grid
from ..evaluation.tables import PROTOCOL_TEXT
from . import EMBEDDED, ExperimentSettings, published
from .tables import Block, Line, block_title, is_embedded, papers_name, write_table

TABLE = "mscke-table1"
METHODS = {  # in the paper's order, behind the model as it is
    "unedited": "unedited",
    "ft-llm": "FT-LLM",
    "ft-visual": "FT-Visual",
    "ike": "IKE",
    "serac": "SERAC",
    "mscke": "MSCKE",
    "mend": "MEND",
    "mscke-mend": "MSCKE-MEND",
}
METRICS = ("reliability", "locality", "generality", "specificity")
CASES = 500  # of the scenes; of other data all


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        UnknownNameError, DataError, RunError: as :func:`run_grid`. TrainingError: with ``train``.
    """
    plan = grid(settings)
    if settings.train:
        from ..recipes.editors import train_editors

        labels = [backbone.label for backbone in plan.backbones]
        folders = train_editors(settings.out / "trained", plan.methods, labels)
        plan.specs = {
            backbone: {m: MethodSpec(m, folder=folder) for m, folder in found.items()}
            for backbone, found in folders.items()
        }
    run = run_grid(plan, settings.out, overwrite=settings.overwrite)
    if Ranks.here().first:
        write(run, [backbone.label for backbone in plan.backbones])


def grid(settings: ExperimentSettings) -> Grid:
    """What is to be measured."""
    scenes = settings.data.startswith("scenes")
    backbones = [
        BackboneSpec.parse(name, device=settings.device, dtype=settings.dtype)
        for name in settings.backbones or EMBEDDED
    ]
    # The paper's own base models are measured as the paper does it, others as users see them.
    own = not any(is_embedded(backbone.label) for backbone in backbones)
    data = DataSpec(
        "scenes-fgvedit" if settings.data == "scenes" else settings.data,
        str(settings.images) if settings.images else None,
        limit=settings.limit or (CASES if scenes else None),
        allow_outside=settings.allow_outside,
    )
    protocol = Protocol(settings.protocol or ("released" if own else "generated"))
    return Grid([*METHODS], backbones, [data], protocol)


def write(run: RunFolder, backbones: list[str]) -> None:
    """``table.md`` and the terminal, from a measured run."""
    rows, missing = run.rows(), run.status.missing()
    blocks = []
    for backbone in backbones:
        papers = papers_name(backbone)
        lines = [
            _line(method, label, [r for r in rows if r["backbone"] == backbone], papers)
            for method, label in METHODS.items()
        ]
        reasons = {m["method"]: m["reason"] for m in missing if m["backbone"] == backbone}
        lines = [
            Line(line.label, line.values, line.intervals, line.paper, reasons.get(method, ""))
            for line, method in zip(lines, METHODS, strict=True)
        ]
        printed = any(line.paper for line in lines)
        blocks.append(Block(block_title(backbone, printed=printed), lines))
    write_table(
        Path(run.path), "MSCKE, table 1: methods and base models", METRICS, blocks, notes(run)
    )


def _line(method: str, label: str, rows: list[dict], papers: str | None) -> Line:
    printed: dict[str, float | None] = {}
    if papers is not None and method != "unedited":
        found = published.find(TABLE, backbone=papers, method=method)
        printed = {number.metric: number.value for number in found}
    row = next((r for r in rows if r["method"] == method), None)
    if row is None:
        return Line(label, paper=printed)
    return Line(label, row["metrics"], row["intervals"], printed)


def notes(run: RunFolder) -> list[str]:
    """How the numbers came about."""
    rows = run.rows()
    name = (run.config.get("protocol") or {}).get("name", "")
    counts = sorted({row["n"] for row in rows})
    cases = " to ".join(str(n) for n in (counts[0], counts[-1])[: len(counts)]) if counts else "no"
    environment = run.environment()
    return [
        f"Percent, mean over {cases} cases; in brackets the 95 % bootstrap interval.",
        f"Protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}.",
        "The paper's numbers are of its own base models on FGVEdit (COCO pictures); those of an "
        "embedded backbone are of another model on other data and say how methods compare.",
        *(f"The paper: {note}" for note in published.notes(TABLE)),
        f"Run: {run.path}; {hardware_line(environment)}." if environment else f"Run: {run.path}.",
    ]
