"""MSCKE's table 2: how the scope classifier fuses text and image, and on which encoder.

Every classifier is trained on the same records with the same recipe and seed, then measured in one
MSCKE editor with the same counterfactual model. Specificity is the paper's number; the scope
accuracy beside it is the classifier's own, over many more questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.console import progress_bars
from ..core.errors import CheckpointError
from ..evaluation import RunFolder, evaluate
from ..methods.mscke import MSCKE
from ..recipes.classifiers import FUSIONS, TEXT, VARIANTS, Variant
from . import ExperimentSettings, published
from .classifiers import Gap, add_to_summary, common, find_classifier, shipped_editor, specificity
from .scope_study import ScoreFile, accuracy, balanced
from .shared_answers import remember
from .tables import (
    INTERVAL,
    Block,
    Line,
    Table,
    heading,
    is_papers_own,
    paper_notes,
    papers_name,
    protocol_note,
    protocol_of,
    run_note,
    with_kind,
)

TABLE = "mscke-table2"
PAPERS_FUSIONS = {"concat": "concatenation"}  # what the paper calls otherwise
ENCODERS = {"small": "ViT-B/32", "large": "ViT-L/14"}
METRICS = ("specificity", "scope_accuracy")
CASES = 500  # for Specificity; the classifier alone is asked about twice as many


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        CheckpointError: no classifier is there and ``train`` is not set; single ones that are
            missing are named in the table.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    name = settings.names(["scenes-blip2"])[0]
    backbone = settings.load_backbone(name)
    limit = settings.cases(CASES)
    records = settings.records(limit)
    wider = settings.records(2 * limit if limit else None, extra=True)
    protocol = settings.protocol_for([name])
    opened = settings.open_run(records, protocol)
    if settings.overwrite:
        (settings.out / "scores.jsonl").unlink(missing_ok=True)
    scores = ScoreFile(settings.out / "scores.jsonl")
    counterfactual = shipped_editor(backbone).counterfactual
    remember(backbone, counterfactual)
    missing: dict[Variant, CheckpointError] = {}
    with progress_bars() as bar:
        for variant in VARIANTS:
            try:
                scope = find_classifier(variant, backbone, settings)
            except CheckpointError as error:
                missing[variant] = error
                continue
            editor = MSCKE(backbone, scope, counterfactual)
            editor.name = row_name(variant)
            progress = bar(f"{variant.name}: scope")
            scores.score(variant.name, editor, wider.records, progress=progress)
            evaluate(
                editor,
                records.records,
                protocol,
                run=opened,
                dataset=records.name,
                progress=bar(editor.name),
            )
    if len(missing) == len(VARIANTS):
        raise missing[TEXT]
    write(opened, scores, name, len(wider.records), {v: e.message for v, e in missing.items()})


def row_name(variant: Variant) -> str:
    """What the variant's row is called in the run."""
    return f"mscke/{variant.name}"


def write(
    run: RunFolder,
    scores: ScoreFile,
    backbone: str,
    asked: int,
    missing: Mapping[Variant, str],
) -> None:
    """``summary.json``, ``table.md`` and the terminal, from what was measured."""
    rows = {row["method"]: row for row in run.summarise() if row["backbone"] == backbone}
    judged = {v: accuracy(found) for v in VARIANTS if (found := scores.of(v.name))}
    papers, blocks = papers_name(backbone), []
    for size, encoder in ENCODERS.items():
        lines = []
        for variant in (v for v in VARIANTS if v is TEXT or v.size == size):
            label = "text alone" if variant is TEXT else variant.fusion
            if variant in missing:
                lines.append(Line(label, note=missing[variant]))
                continue
            row, (scope, intervals) = rows[row_name(variant)], judged[variant]
            values = {"specificity": row["metrics"]["specificity"]}
            bounds = {"specificity": row["intervals"]["specificity"]}
            values["scope_accuracy"] = scope["balanced"]
            bounds["scope_accuracy"] = intervals["balanced"]
            fusion = PAPERS_FUSIONS.get(variant.fusion, variant.fusion)  # none for text alone
            printed = published.printed(TABLE, backbone=papers, fusion=fusion, encoder=encoder)
            lines.append(Line(label, values, bounds, printed))
        blocks.append(Block(_title(backbone, size, encoder), lines))
    gaps = differences(run, scores, backbone)
    accuracies = [
        {"classifier": v.name, "cases": len(scores.of(v.name))}
        | {"values": values, "intervals": intervals}
        for v, (values, intervals) in judged.items()
    ]
    add_to_summary(run, scope=accuracies, differences=[gap.summary() for gap in gaps])
    title = "MSCKE, table 2: fusion and encoder of the scope classifier"
    below = notes(run, gaps, asked)
    Table(title, METRICS, blocks, below, first="fusion").write(run.path)


def _title(backbone: str, size: str, encoder: str) -> str:
    if is_papers_own(backbone):
        return f"{backbone}, {encoder}"
    name = Variant(FUSIONS[0], size).encoder(embedded=True)[0]
    beside = "beside it the paper's BLIP-2 OPT and " if papers_name(backbone) == "blip2-opt" else ""
    return f"{with_kind(backbone)}, encoder {name} ({beside or 'for '}{encoder})"


def differences(run: RunFolder, scores: ScoreFile, backbone: str) -> list[Gap]:
    """Case by case: dot-attention minus the others, and the large encoder minus the small."""
    pairs = [
        (Variant("dot-attention", size), other)
        for size in ENCODERS
        for other in (Variant("concat", size), Variant("cross-attention", size), TEXT)
    ]
    pairs.append((Variant("dot-attention", "large"), Variant("dot-attention", "small")))
    gaps = []
    for a, b in pairs:
        rows = common(*(specificity(run, backbone, row_name(v)) for v in (a, b)))
        if rows[0]:
            scope = [balanced(scores.of(v.name)) for v in (a, b)]
            for metric, values in zip(METRICS, (rows, scope), strict=True):
                gaps.append(Gap.between(*values, first=a.name, second=b.name, metric=metric))
    return gaps


def notes(run: RunFolder, gaps: Sequence[Gap], asked: int) -> list[str]:
    """How the numbers were measured."""
    said = [
        gap.text(f"{of['first']} minus {of['second']}, {heading(of['metric']).lower()}:")
        for gap in gaps
        for of in [gap.about]
    ]
    protocol = protocol_note(protocol_of(run))
    return [
        f"Percent; {INTERVAL} over cases. Specificity over {run.rows()[0]['n']} cases, "
        f"{protocol[0].lower()}{protocol[1:]}",
        "Scope accuracy: right decisions at 0.5 on questions in and out of visual scope, mean of "
        f"both sides, {asked} cases with all their questions.",
        "All classifiers: same records, steps and seed, the encoder fine-tuned along; the "
        "counterfactual model is the same for all. Text alone has no image encoder.",
        "Differences case by case: " + "; ".join(said) + ".",
        *paper_notes(TABLE),
        run_note(run.path, run.environment()),
    ]
