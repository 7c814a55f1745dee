"""MSCKE's table 1: seven methods and the unedited model, four metrics, every backbone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..core.distributed import Ranks
from ..evaluation import RunFolder
from ..evaluation.grid import Grid
from ..evaluation.runner import run_grid
from ..recipes.job import embedded_backbones
from . import ExperimentSettings, published
from .tables import (
    INTERVAL,
    Block,
    Table,
    block_title,
    method_label,
    method_lines,
    paper_notes,
    papers_name,
    protocol_note,
    protocol_of,
    run_note,
)

TABLE = "mscke-table1"
# In the paper's order, after the unedited model.
METHODS = ("unedited", "ft-llm", "ft-visual", "ike", "serac", "mscke", "mend", "mscke-mend")
METRICS = ("reliability", "locality", "generality", "specificity")
CASES = 500


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        UnknownNameError, DataError, RunError: as :func:`run_grid`. TrainingError: with ``train``.
    """
    plan = grid(settings)
    labels = [backbone.label for backbone in plan.backbones]
    if settings.train:
        plan.specs = settings.trained(plan.methods, labels)
    run = run_grid(plan, settings.out, overwrite=settings.overwrite)
    if Ranks.here().first:
        write(run, labels)


def grid(settings: ExperimentSettings) -> Grid:
    """What is to be measured."""
    backbones = settings.backbone_specs(embedded_backbones())
    name = "scenes-fgvedit" if settings.data == "scenes" else settings.data
    data = settings.data_spec(name, limit=settings.cases(CASES))
    protocol = settings.protocol_for([backbone.label for backbone in backbones])
    return Grid([*METHODS], backbones, [data], protocol)


def write(run: RunFolder, backbones: Sequence[str]) -> None:
    """``table.md`` and the terminal, from a measured run."""
    labels = {method: method_label(method) for method in METHODS}
    blocks = []
    for backbone in backbones:
        papers = papers_name(backbone)
        lines = method_lines(
            run,
            backbone,
            labels,
            partial(published.printed, TABLE, backbone=papers),
        )
        printed = any(line.paper for line in lines)
        blocks.append(Block(block_title(backbone, printed=printed), lines))
    title = "MSCKE, table 1: methods and base models"
    Table(title, METRICS, blocks, notes(run)).write(Path(run.path))


def notes(run: RunFolder) -> list[str]:
    """How the numbers were measured."""
    counts = sorted({row["n"] for row in run.rows()})
    cases = " to ".join(str(n) for n in (counts[0], counts[-1])[: len(counts)]) if counts else "no"
    return [
        f"Percent, mean over {cases} cases; {INTERVAL}.",
        protocol_note(protocol_of(run)),
        "The paper's numbers are of its own base models on FGVEdit (COCO pictures); those of an "
        "embedded backbone are of another model on other data and say how methods compare.",
        *paper_notes(TABLE),
        run_note(run.path, run.environment()),
    ]
