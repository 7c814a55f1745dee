"""DualEdit's tables 1 and 3: other layers, one modality alone, with and without the gate.

The rows are variants that were all trained briefly and alike (``dualedit_variants.py``); the last
rows are the shipped editor, which was trained to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.console import CONSOLE, progress_bars
from ..core.shipped import ASSETS
from ..data import Records
from ..evaluation import Protocol, RunFolder, evaluate
from ..evaluation.metrics import EVQA
from ..methods.dualedit import DualEdit
from ..methods.training_run import training_settings
from . import ExperimentSettings, published
from .dualedit_table2 import papers_data, protocol_for
from .dualedit_variants import HELD_BACK, RECIPE, RECORDS, Layers, Variants
from .tables import (
    INTERVAL,
    Block,
    Line,
    Table,
    block_title,
    is_embedded,
    is_papers_own,
    paper_notes,
    protocol_note,
    protocol_of,
    run_note,
)

if TYPE_CHECKING:
    from ..backbones import Backbone

CASES = 300
# Of an embedded decoder's 8 layers; 4 is the paper's 16 by depth.
SWEEP = {"text": (2, 4, 6), "visual": (1, 2, 4)}
WHOLE, WHOLE_NO_GATE = "dualedit/trained-to-the-end", "dualedit/trained-to-the-end-no-gate"
TABLE1 = [Layers(k, None) for k in (16, 17, 18, 19)] + [Layers(None, k) for k in (16, 17, 18, 19)]
TABLE3 = [Layers(*pair) for pair in ((1, 2), (2, 2), (5, 5), (10, 10), (30, 30), (16, 19))]


@dataclass(frozen=True)
class Row:
    """A row: its layers, whether it has a gate, and the paper's layers that it stands for."""

    layers: Layers
    gated: bool
    printed: Layers | None = None

    @property
    def name(self) -> str:
        """In the run's files."""
        return f"dualedit/{self.layers.name}{'-gated' if self.gated else ''}"

    @property
    def label(self) -> str:
        """In the table."""
        text, visual = (
            "-" if k is None else str(k) for k in (self.layers.text, self.layers.visual)
        )
        return f"text {text}, visual {visual}, {'gate' if self.gated else 'no gate'}"


def table1(settings: ExperimentSettings) -> None:
    """One modality alone, layer by layer, without a gate.

    Raises:
        UnknownNameError, DataError, RunError: as an evaluation's. CheckpointError: see
            :class:`Variants`. TrainingError: a variant cannot be trained.
    """

    def rows(backbone: Backbone) -> list[Row]:
        count = len(backbone.layers)
        if is_papers_own(backbone.name):
            return [Row(layers, False, layers) for layers in TABLE1]
        found = [Row(Layers(k, None), False) for k in SWEEP["text"]]
        found += [Row(Layers(None, k), False) for k in SWEEP["visual"]]
        return _beside(found, TABLE1, count)

    _table(settings, "dualedit-table1", "DualEdit, table 1: one modality alone", rows)


def table3(settings: ExperimentSettings) -> None:
    """Layers from first to last without a gate, then one path and both behind the gate.

    Raises:
        UnknownNameError, DataError, RunError, CheckpointError, TrainingError: as :func:`table1`.
    """

    def rows(backbone: Backbone) -> list[Row]:
        count = len(backbone.layers)
        printed = {layers.scaled(count): layers for layers in reversed(TABLE3)}
        both = [TABLE3[-1].scaled(count)]
        if is_embedded(backbone.name) and (own := shipped_layers(backbone)) not in both:
            both.append(own)
        open_ = dict.fromkeys([*(layers.scaled(count) for layers in TABLE3), *both])
        found = [Row(layers, False, printed.get(layers)) for layers in open_]
        for layers in both:
            for paths in (("text",), ("visual",), ("text", "visual")):
                paper = TABLE3[-1].only(paths) if layers == both[0] else None
                row = Row(layers.only(paths), True, paper)
                if row.layers not in [r.layers for r in found if r.gated]:
                    found.append(row)
        return found

    _table(settings, "dualedit-table3", "DualEdit, table 3: layers, paths and gate", rows)


def _beside(rows: Sequence[Row], papers: Sequence[Layers], count: int) -> list[Row]:
    """``rows`` with the first of the paper's layers that lies at the same depth."""
    by_depth = {layers.scaled(count): layers for layers in reversed(papers)}
    return [replace(row, printed=by_depth.get(row.layers)) for row in rows]


def measure(
    settings: ExperimentSettings,
    rows: Callable[[Backbone], list[Row]],
    *,
    shipped: bool = True,
) -> tuple[RunFolder, dict[str, list[Row]]]:
    """The run, and the rows of each backbone; a variant is trained before it is measured."""
    names = settings.names(["scenes-llava"])
    data = "scenes-evqa" if settings.data == "scenes" else settings.data
    records = settings.records(settings.limit or CASES, data=data, suite="evqa")
    protocol = protocol_for(data, names, settings.protocol)
    run = settings.open_run(records, protocol, suite="evqa")
    plan = {}
    with progress_bars() as bar:
        for name in names:
            backbone = settings.load_backbone(name)
            variants = Variants(settings, backbone, data)
            makers: dict[str, Callable[[], DualEdit]] = {}
            plan[backbone.name] = wanted = rows(backbone)
            for row in wanted:
                make = variants.gated if row.gated else variants.editor
                makers[row.name] = partial(make, row.layers)
            folder = _shipped(settings, backbone) if shipped else None
            if folder is not None:
                whole = DualEdit.from_pretrained(folder, backbone)
                makers[WHOLE] = partial(whole.with_gate, whole.config.gate.kind)
                makers[WHOLE_NO_GATE] = partial(whole.with_gate, "off")
            for label, maker in makers.items():
                _ask(label, maker, records, protocol, run, bar, backbone.name)
    run.summarise()
    return run, plan


def _ask(
    label: str,
    make: Callable[[], DualEdit],
    records: Records,
    protocol: Protocol,
    run: RunFolder,
    bar: Any,
    backbone: str,
) -> None:
    key = (label, backbone, records.name, protocol.name)
    if {r.case_id for r in records.records} <= set(run.finished(key)):
        return
    CONSOLE.print(f"{label} on {backbone}", markup=False)
    editor = make()
    editor.name = label
    evaluate(
        editor,
        records.records,
        protocol,
        run=run,
        dataset=records.name,
        suite="evqa",
        progress=bar(f"{label} on {backbone}"),
    )


def _table(
    settings: ExperimentSettings,
    table: str,
    title: str,
    rows: Callable[[Backbone], list[Row]],
) -> None:
    run, plan = measure(settings, rows)
    blocks = []
    for backbone, wanted in plan.items():
        found = {r["method"]: r for r in run.rows() if r["backbone"] == backbone}
        data = papers_data((run.config.get("dataset") or {}).get("name", ""))
        lines = []
        for row in wanted:
            label = row.label
            if row.printed is not None and row.printed != row.layers:
                label += f" (paper: {_both(row.printed)})"
            lines.append(Line.of(label, found.get(row.name), _printed(table, row, data)))
        for name, gate in ((WHOLE_NO_GATE, "no gate"), (WHOLE, "its gate")):
            if name in found:
                label = f"shipped editor, trained to the end, {gate}"
                lines.append(Line.of(label, found[name]))
        blocks.append(Block(block_title(backbone), lines))
    below = [*notes(run), *paper_notes(table)]
    Table(title, EVQA.columns, blocks, below, first="layers").write(settings.out)


def _both(layers: Layers) -> str:
    return " / ".join("-" if k is None else str(k) for k in (layers.text, layers.visual))


def _printed(table: str, row: Row, data: str) -> dict[str, float | None]:
    if row.printed is None:
        return {}
    found = published.find(
        table,
        dataset=data,
        t_layer=row.printed.text,
        v_layer=row.printed.visual,
        gating=row.gated,
    )
    return {number.metric: number.value for number in found}


def _shipped(settings: ExperimentSettings, backbone: Backbone) -> Path | None:
    name = f"dualedit-{backbone.name}"
    folders = [Path(settings.editors) / name] if settings.editors is not None else []
    return next((f for f in [*folders, ASSETS / name] if (f / "config.json").is_file()), None)


def shipped_layers(backbone: Backbone) -> Layers:
    """The layers in the settings that the shipped editor was trained with."""
    settings: Any = training_settings("dualedit", backbone.name)
    by_tokens = {adapter.tokens: adapter.layer for adapter in settings.adapters}
    return Layers(by_tokens.get("text"), by_tokens.get("visual"))


def notes(run: RunFolder) -> list[str]:
    """How the numbers were measured."""
    return [
        f"Percent, mean over {run.rows()[0]['n']} cases; {INTERVAL}.",
        protocol_note(protocol_of(run)),
        f"On embedded backbones every variant is trained anew and alike: {RECIPE['max_iters']} "
        f"steps of {RECIPE['batch_size']} of the same {RECORDS} training records, without a gate, "
        "far shorter than the shipped editor, whose rows say so. The gate of eq. 4 (prompt's last "
        f"token) is put before the same weights, its threshold calibrated on {HELD_BACK} training "
        "records held back.",
        "Embedded decoders have 8 layers, counted from 0; the paper's, of 32, stand beside the "
        "layer at the same depth.",
        run_note(run.path, run.environment()),
    ]
