"""MSCKE's table 3: a scope classifier trained once, moved to another method and another model.

The classifier is one trained for the first backbone. In each cell it stands beside a retrained
one: same records and recipe, another seed. Here a classifier's training never looks at the base
model nor at the counterfactual model, so one retraining serves every cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backbones import check_backbones
from ..core.console import progress_bars
from ..core.environment import hardware_line
from ..core.errors import BridgeError, CheckpointError, UnknownNameError
from ..core.files import read_json, write_json
from ..data import load_records
from ..evaluation import Protocol, RunFolder, evaluate
from ..evaluation.grid import open_run
from ..evaluation.tables import PROTOCOL_TEXT
from ..methods.mscke import MSCKE, ScopeClassifier
from . import ExperimentSettings, published
from .classifiers import (
    SHIPPED,
    Variant,
    find_classifier,
    is_scenes,
    load_classifier,
    train_classifier,
    trained_folder,
)
from .scope_study import difference
from .shared_answers import remember
from .tables import Block, Line, is_embedded, papers_name, write_table

if TYPE_CHECKING:
    from ..backbones import Backbone

TABLE = "mscke-table3"
METRICS = ("reliability", "locality", "generality", "specificity")
METHODS = {"mscke": "MSCKE", "mscke-mend": "MSCKE-MEND"}
KINDS = ("transferred", "retrained")
CASES = 500
SCENES_VARIANT = Variant("dot-attention")
RETRAINED, RETRAINED_SEED = "retrained", 1  # its folder and seed


@dataclass(frozen=True)
class Cell:
    """A method on a backbone, with classifiers of one or both kinds."""

    method: str
    backbone: str
    kinds: tuple[str, ...]

    def row(self, kind: str) -> str:
        """What its row is called in the run."""
        return f"{self.method}/{kind}"


def cells(backbones: Sequence[str]) -> list[Cell]:
    """The paper's rows: the source as it was trained, then every move away from it."""
    source, *targets = backbones
    moved = [("mscke-mend", source), *((m, b) for b in targets for m in METHODS)]
    return [Cell("mscke", source, ("own",)), *(Cell(m, b, KINDS) for m, b in moved)]


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    The first of ``settings.backbones`` is the classifier's own, the others are moved to.

    Raises:
        CheckpointError: the source's editor or the retrained classifier is missing.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    names = settings.backbones or ["scenes-blip2", "scenes-minigpt4"]
    check_backbones(*names)
    from ..backbones import load_backbone

    scenes = settings.data == "scenes"
    limit = settings.limit or (CASES if scenes else None)
    records = load_records(
        settings.data, images=settings.images, limit=limit, allow_outside=settings.allow_outside
    )
    own = not any(is_embedded(name) for name in names)
    protocol = Protocol(settings.protocol or ("released" if own else "generated"))
    execution = {"device": settings.device, "dtype": settings.dtype or "float32"}
    opened = open_run(
        settings.out, records, protocol, execution=execution, overwrite=settings.overwrite
    )
    loaded = {n: load_backbone(n, device=settings.device, dtype=settings.dtype) for n in names}
    classifiers = _classifiers(loaded[names[0]], settings)
    plan, left_out = cells(names), {}
    with progress_bars() as bar:
        for cell in plan:
            backbone = loaded[cell.backbone]
            try:
                editor = _editor(cell.method, backbone)
            except (BridgeError, CheckpointError, UnknownNameError) as error:
                if cell.kinds == ("own",):
                    raise
                left_out[cell] = error.message
                continue
            remember(backbone, editor.counterfactual)
            for kind in cell.kinds:
                scope = classifiers[kind]
                made = MSCKE(backbone, scope, editor.counterfactual, editor.threshold)
                made.name = cell.row(kind)
                evaluate(
                    made,
                    records.records,
                    protocol,
                    run=opened,
                    dataset=records.name,
                    progress=bar(f"{made.name} on {cell.backbone}"),
                )
    write(opened, plan, left_out)


def _editor(method: str, backbone: Backbone) -> MSCKE:
    from ..methods.factory import make_editor

    return make_editor(method, backbone)


def _classifiers(backbone: Backbone, settings: ExperimentSettings) -> dict[str, ScopeClassifier]:
    """By kind; "own" is the transferred one at home.

    On scenes both are of table 2's recipe: the one compared there, and one of another seed.
    """
    if is_scenes(backbone):
        source = find_classifier(SCENES_VARIANT, backbone, settings)
    else:
        source = _editor("mscke", backbone).scope
    return {"own": source, "transferred": source, "retrained": _retrained(backbone, settings)}


def _retrained(backbone: Backbone, settings: ExperimentSettings) -> ScopeClassifier:
    folder = trained_folder(settings, RETRAINED)
    if settings.train:
        return retrain(backbone, folder, settings)
    shipped = SHIPPED / RETRAINED
    for place in (folder / "scope", shipped):
        if (place / "config.json").is_file() and (is_scenes(backbone) or place != shipped):
            return load_classifier(place, backbone)
    raise CheckpointError(
        f"no retrained classifier for {backbone.name} is shipped or in {folder}",
        remedy="add --train",
    )


def retrain(backbone: Backbone, folder: Path, settings: ExperimentSettings) -> ScopeClassifier:
    """The same classifier trained with another seed; what is finished in ``folder`` is loaded."""
    variant = SCENES_VARIANT if is_scenes(backbone) else Variant("dot-attention", "large")
    return train_classifier(variant, backbone, folder, settings, seed=RETRAINED_SEED)


def write(run: RunFolder, plan: Sequence[Cell], left_out: Mapping[Cell, str]) -> None:
    """``summary.json``, ``table.md`` and the terminal, from what was measured."""
    rows = {(row["method"], row["backbone"]): row for row in run.summarise()}
    source, blocks = plan[0], []
    for cell in plan:
        lines = []
        for kind in cell.kinds:
            row = rows.get((cell.row(kind), cell.backbone), {})
            measured = (row.get("metrics", {}), row.get("intervals", {}))
            lines.append(Line(kind, *measured, _paper(cell, kind), left_out.get(cell, "")))
        where = f"{METHODS[cell.method]} on {cell.backbone}"
        moved = where if cell is source else f"MSCKE on {source.backbone} to {where}"
        blocks.append(Block(f"{moved}{_beside(cell)}", lines))
    gaps = [gap for cell in plan if (gap := _gap(run, cell))]
    summary = read_json(run.path / "summary.json")
    summary["differences"] = gaps
    write_json(run.path / "summary.json", summary)
    write_table(
        run.path,
        "MSCKE, table 3: moving a trained scope classifier",
        METRICS,
        blocks,
        notes(run, gaps),
        first="classifier",
    )


def _paper(cell: Cell, kind: str) -> dict[str, float | None]:
    papers = papers_name(cell.backbone)
    if papers is None:
        return {}
    found = published.find(TABLE, backbone=papers, method=cell.method, classifier=kind)
    return {number.metric: number.value for number in found}


def _beside(cell: Cell) -> str:
    if not is_embedded(cell.backbone):
        return ""
    papers = {"blip2-opt": "BLIP-2 OPT", "minigpt4": "MiniGPT-4"}.get(
        papers_name(cell.backbone) or ""
    )
    return f" (embedded; beside it the paper's {papers})" if papers else " (embedded)"


def _gap(run: RunFolder, cell: Cell) -> dict[str, Any] | None:
    """Transferred minus retrained in Specificity, case by case."""
    found = {
        kind: {
            case.case: case.metrics["specificity"]
            for case in run.cases
            if (case.method, case.backbone) == (cell.row(kind), cell.backbone)
        }
        for kind in KINDS
    }
    common = [case for case in found["transferred"] if case in found["retrained"]]
    if not common:
        return None
    gap, interval = difference(*([found[kind][case] for case in common] for kind in KINDS))
    where = {"method": cell.method, "backbone": cell.backbone, "metric": "specificity"}
    return {**where, "cases": len(common), "difference": gap, "interval": interval}


def notes(run: RunFolder, gaps: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the numbers came about."""
    rows, environment = run.rows(), run.environment()
    name = (run.config.get("protocol") or {}).get("name", "")
    said = [
        f"{METHODS[g['method']]} on {g['backbone']} {g['difference']:+.1f} "
        f"({g['interval'][0]:+.1f} to {g['interval'][1]:+.1f})"
        for g in gaps
    ]
    return [
        f"Percent, mean over {rows[0]['n']} cases; in brackets the 95 % bootstrap interval. "
        f"Protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}.",
        f"Transferred minus retrained, Specificity: {'; '.join(said) or 'nothing to compare'}.",
        "Retrained: same records and recipe, another seed; on scenes both have table 2's recipe. "
        "Training a classifier involves neither the base model nor the counterfactual model here, "
        "so one retrained one serves all cells.",
        *(f"The paper: {note}" for note in published.notes(TABLE)),
        f"Run: {run.path}; {hardware_line(environment)}.",
    ]
