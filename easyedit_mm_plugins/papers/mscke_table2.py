"""MSCKE's table 2: how the scope classifier fuses text and image, and on which encoder.

Every classifier is trained on the same records with the same recipe and seed, then takes its turn
in one MSCKE editor with the same counterfactual model. Specificity is the paper's number; the
scope accuracy beside it is the classifier's own, over many more questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..backbones import check_backbones
from ..core.console import progress_bars
from ..core.environment import hardware_line
from ..core.errors import CheckpointError
from ..core.files import read_json, write_json
from ..data import load_records
from ..evaluation import Protocol, RunFolder, evaluate
from ..evaluation.grid import open_run
from ..evaluation.tables import PROTOCOL_TEXT
from ..methods.mscke import MSCKE
from . import ExperimentSettings, published
from .classifiers import Variant, find_classifier
from .scope_study import ScoreFile, accuracy, balanced, difference
from .shared_answers import remember
from .tables import Block, Line, heading, is_embedded, papers_name, write_table

if TYPE_CHECKING:
    from ..backbones import Backbone

TABLE = "mscke-table2"
FUSIONS = {  # here: in the paper
    "concat": "concatenation",
    "cross-attention": "cross-attention",
    "dot-attention": "dot-attention",
}
ENCODERS = {"small": "ViT-B/32", "large": "ViT-L/14"}
TEXT = Variant("text")  # no image encoder: the same for both
VARIANTS = (TEXT, *(Variant(fusion, size) for size in ENCODERS for fusion in FUSIONS))
METRICS = ("specificity", "scope_accuracy")
CASES = 500  # for Specificity; the classifier alone is asked about twice as many


def run(settings: ExperimentSettings) -> None:
    """Measure the table into ``settings.out`` and print it beside the paper's.

    Raises:
        CheckpointError: no classifier is there and ``train`` is not set; single ones that are
            missing are named in the table.
        DataError, RunError, UnknownNameError: as an evaluation's.
    """
    name = (settings.backbones or ["scenes-blip2"])[0]
    check_backbones(name)
    from ..backbones import load_backbone

    backbone = load_backbone(name, device=settings.device, dtype=settings.dtype)
    scenes = settings.data == "scenes"
    limit = settings.limit or (CASES if scenes else None)
    where = {"images": settings.images, "allow_outside": settings.allow_outside}
    records = load_records(settings.data, limit=limit, **where)
    wider = load_records(settings.data, limit=2 * limit if limit else None, extra=True, **where)
    own = not is_embedded(name)
    protocol = Protocol(settings.protocol or ("released" if own else "generated"))
    execution = {"device": settings.device, "dtype": settings.dtype or "float32"}
    opened = open_run(
        settings.out, records, protocol, execution=execution, overwrite=settings.overwrite
    )
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
            scores.score(
                variant.name, editor, wider.records, progress=bar(f"{variant.name}: scope")
            )
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


def shipped_editor(backbone: Backbone) -> MSCKE:
    """The MSCKE editor for ``backbone``: shipped, or the archive of its hparams file.

    Raises:
        CheckpointError: neither is there.
    """
    from ..methods.factory import make_editor

    return make_editor("mscke", backbone)


def label(variant: Variant) -> str:
    """What the variant is called in the table."""
    return "text alone" if variant is TEXT else variant.fusion


def row_name(variant: Variant) -> str:
    """What the variant's row is called in the run."""
    return f"mscke/{variant.name}"


def write(
    run: RunFolder,
    scores: ScoreFile,
    backbone: str,
    asked: int,
    missing: Mapping[Variant, str] | None = None,
) -> None:
    """``summary.json``, ``table.md`` and the terminal, from what was measured."""
    rows = {row["method"]: row for row in run.summarise() if row["backbone"] == backbone}
    blocks = []
    for size, encoder in ENCODERS.items():
        shown = [v for v in VARIANTS if v is TEXT or v.size == size]
        papers = papers_name(backbone)
        lines = [
            Line(label(v), note=missing[v])
            if missing and v in missing
            else _line(v, rows, scores, papers, encoder)
            for v in shown
        ]
        blocks.append(Block(_title(backbone, size, encoder), lines))
    gaps = differences(run, scores, backbone)
    summary = read_json(run.path / "summary.json")
    summary["scope"] = [
        {"classifier": v.name, "cases": len(found), "values": values, "intervals": intervals}
        for v in VARIANTS
        if (found := scores.of(v.name))
        for values, intervals in [accuracy(found)]
    ]
    summary["differences"] = gaps
    write_json(run.path / "summary.json", summary)
    write_table(
        run.path,
        "MSCKE, table 2: fusion and encoder of the scope classifier",
        METRICS,
        blocks,
        notes(run, gaps, asked),
        first="fusion",
    )


def _line(
    variant: Variant,
    rows: Mapping[str, Mapping[str, Any]],
    scores: ScoreFile,
    papers: str | None,
    encoder: str,
) -> Line:
    values, intervals = accuracy(scores.of(variant.name))
    row = rows[row_name(variant)]
    printed: dict[str, float | None] = {}
    if papers is not None and variant is not TEXT:
        fusion = FUSIONS[variant.fusion]
        found = published.find(TABLE, backbone=papers, fusion=fusion, encoder=encoder)
        printed = {number.metric: number.value for number in found}
    return Line(
        label(variant),
        {"specificity": row["metrics"]["specificity"], "scope_accuracy": values["balanced"]},
        {"specificity": row["intervals"]["specificity"], "scope_accuracy": intervals["balanced"]},
        printed,
    )


def _title(backbone: str, size: str, encoder: str) -> str:
    if not is_embedded(backbone):
        return f"{backbone}, {encoder}"
    name = Variant("concat", size).encoder(embedded=True)[0]
    beside = "beside it the paper's BLIP-2 OPT and " if papers_name(backbone) == "blip2-opt" else ""
    return f"{backbone} (embedded), encoder {name} ({beside or 'for '}{encoder})"


def differences(run: RunFolder, scores: ScoreFile, backbone: str) -> list[dict[str, Any]]:
    """Dot-attention against the others, and the encoders against each other, case by case."""
    by_row: dict[str, dict[str, float | None]] = {}
    for case in run.cases:
        if case.backbone == backbone:
            by_row.setdefault(case.method, {})[case.case] = case.metrics["specificity"]
    pairs = [
        (Variant("dot-attention", size), other)
        for size in ENCODERS
        for other in (Variant("concat", size), Variant("cross-attention", size), TEXT)
    ]
    pairs.append((Variant("dot-attention", "large"), Variant("dot-attention", "small")))
    gaps = []
    for a, b in pairs:
        first, second = by_row.get(row_name(a), {}), by_row.get(row_name(b), {})
        common = [case for case in first if case in second]
        if not common:
            continue
        compared = {
            "specificity": ([first[c] for c in common], [second[c] for c in common]),
            "scope_accuracy": (balanced(scores.of(a.name)), balanced(scores.of(b.name))),
        }
        for metric, (left, right) in compared.items():
            gap, interval = difference(left, right)
            gaps.append(
                {"first": a.name, "second": b.name, "metric": metric}
                | {"difference": gap, "interval": interval}
            )
    return gaps


def notes(run: RunFolder, gaps: Sequence[Mapping[str, Any]], asked: int) -> list[str]:
    """How the numbers came about."""
    rows, environment = run.rows(), run.environment()
    name = (run.config.get("protocol") or {}).get("name", "")
    said = [
        f"{g['first']} minus {g['second']}, {heading(g['metric']).lower()}: "
        f"{g['difference']:+.1f} ({g['interval'][0]:+.1f} to {g['interval'][1]:+.1f})"
        for g in gaps
    ]
    return [
        f"Percent; in brackets the 95 % bootstrap interval over cases. Specificity over "
        f"{rows[0]['n']} cases, protocol {name}: {PROTOCOL_TEXT.get(name, 'unknown here')}.",
        f"Scope accuracy: right decisions at 0.5 on questions in and out of visual scope, mean of "
        f"both sides, {asked} cases with all their questions.",
        "All classifiers: same records, steps and seed, the encoder fine-tuned along; the "
        "counterfactual model is the same for all. Text alone has no image encoder.",
        "Differences case by case: " + "; ".join(said) + ".",
        *(f"The paper: {note}" for note in published.notes(TABLE)),
        f"Run: {run.path}; {hardware_line(environment)}.",
    ]
