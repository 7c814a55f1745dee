"""MSCKE's table 3: a scope classifier trained once, moved to another method and another model.

The classifier is one trained for the first backbone. In each cell it stands beside a retrained
one: same records and recipe, another seed. Here a classifier's training never looks at the base
model nor at the counterfactual model, so one retraining serves every cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.console import progress_bars
from ..core.errors import BridgeError, CheckpointError, UnknownNameError
from ..evaluation import RunFolder, evaluate
from ..methods.mscke import MSCKE
from ..recipes.classifiers import RETRAINED, RETRAINED_SEED, Variant
from . import ExperimentSettings, published
from .classifiers import Gap, add_to_summary, common, find_classifier, shipped_editor, specificity
from .shared_answers import remember
from .tables import (
    INTERVAL,
    TITLES,
    Block,
    Line,
    Table,
    is_embedded,
    method_label,
    paper_notes,
    papers_name,
    protocol_note,
    protocol_of,
    run_note,
)

TABLE = "mscke-table3"
METRICS = ("reliability", "locality", "generality", "specificity")
METHODS = ("mscke", "mscke-mend")
KINDS = ("transferred", "retrained")
CASES = 500


@dataclass(frozen=True)
class Cell:
    """A method on a backbone, with classifiers of one or both kinds."""

    method: str
    backbone: str
    kinds: tuple[str, ...]

    def row(self, kind: str) -> str:
        """What its row is called in the run."""
        return f"{self.method}/{kind}"

    @property
    def label(self) -> str:
        """In the table."""
        return f"{method_label(self.method)} on {self.backbone}"


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
    names = settings.names(["scenes-blip2", "scenes-minigpt4"])
    records = settings.records(settings.cases(CASES))
    protocol = settings.protocol_for(names)
    opened = settings.open_run(records, protocol)
    loaded = {name: settings.load_backbone(name) for name in names}
    source = loaded[names[0]]
    # On scenes both are of table 2's recipe: the one compared there, and one of another seed.
    scenes = is_embedded(source.name)
    variant = Variant("dot-attention", "small" if scenes else "large")
    own = find_classifier(variant, source, settings) if scenes else shipped_editor(source).scope
    retrained = find_classifier(variant, source, settings, RETRAINED, seed=RETRAINED_SEED)
    classifiers = {"own": own, "transferred": own, "retrained": retrained}
    plan, left_out = cells(names), {}
    with progress_bars() as bar:
        for cell in plan:
            backbone = loaded[cell.backbone]
            try:
                editor = shipped_editor(backbone, cell.method)
            except (BridgeError, CheckpointError, UnknownNameError) as error:
                if cell.kinds == ("own",):
                    raise
                left_out[cell] = error.message
                continue
            remember(backbone, editor.counterfactual)
            for kind in cell.kinds:
                made = MSCKE(backbone, classifiers[kind], editor.counterfactual, editor.threshold)
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


def write(run: RunFolder, plan: Sequence[Cell], left_out: Mapping[Cell, str]) -> None:
    """``summary.json``, ``table.md`` and the terminal, from what was measured."""
    rows = {(row["method"], row["backbone"]): row for row in run.summarise()}
    source, blocks, gaps = plan[0], [], []
    for cell in plan:
        lines = []
        for kind in cell.kinds:
            which = {"backbone": papers_name(cell.backbone), "method": cell.method}
            printed = published.printed(TABLE, **which, classifier=kind)
            row = rows.get((cell.row(kind), cell.backbone))
            lines.append(Line.of(kind, row, printed, left_out.get(cell, "")))
        moved = "" if cell is source else f"MSCKE on {source.backbone} to "
        blocks.append(Block(f"{moved}{cell.label}{_beside(cell)}", lines))
        sides = common(*(specificity(run, cell.backbone, cell.row(kind)) for kind in KINDS))
        if sides[0]:
            about = {"method": cell.method, "backbone": cell.backbone, "metric": "specificity"}
            gaps.append(Gap.between(*sides, **about, cases=len(sides[0])))
    add_to_summary(run, differences=[gap.summary() for gap in gaps])
    title = "MSCKE, table 3: moving a trained scope classifier"
    Table(title, METRICS, blocks, notes(run, gaps), first="classifier").write(run.path)


def _beside(cell: Cell) -> str:
    if not is_embedded(cell.backbone):
        return ""
    papers = papers_name(cell.backbone)
    if not published.printed(TABLE, backbone=papers, method=cell.method):
        return " (embedded)"
    return f" (embedded; beside it the paper's {TITLES[papers or '']})"


def notes(run: RunFolder, gaps: Sequence[Gap]) -> list[str]:
    """How the numbers were measured."""
    said = [
        gap.text(f"{method_label(of['method'])} on {of['backbone']}")
        for gap in gaps
        for of in [gap.about]
    ]
    return [
        f"Percent, mean over {run.rows()[0]['n']} cases; {INTERVAL}. "
        f"{protocol_note(protocol_of(run))}",
        f"Transferred minus retrained, Specificity: {'; '.join(said) or 'nothing to compare'}.",
        "Retrained: same records and recipe, another seed; on scenes both have table 2's recipe. "
        "Training a classifier involves neither the base model nor the counterfactual model here, "
        "so one retrained one serves all cells.",
        *paper_notes(TABLE),
        run_note(run.path, run.environment()),
    ]
