"""DualEdit's figure 5: reliability over the layers of both adapters."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from . import ExperimentSettings, published
from .dualedit_ablations import SWEEP, Row, measure, notes
from .dualedit_variants import Layers
from .plots import draw, write_csv
from .tables import Block, Line, Table, block_title, is_papers_own

if TYPE_CHECKING:
    from ..backbones import Backbone

CASES = 150
PAPERS = (16, 17, 18, 19)


def figure5(settings: ExperimentSettings) -> None:
    """Reliability over text and visual layer, without a gate: PNG, CSV and table.

    Raises:
        UnknownNameError, DataError, RunError, CheckpointError, TrainingError: as :func:`table1`.
    """

    def rows(backbone: Backbone) -> list[Row]:
        if is_papers_own(backbone.name):
            return [Row(Layers(t, v), False) for t in PAPERS for v in PAPERS]
        return [Row(Layers(t, v), False) for t in SWEEP["text"] for v in SWEEP["visual"]]

    settings = replace(settings, limit=settings.limit or CASES)
    run, plan = measure(settings, rows, shipped=False)
    blocks: list[Block] = []
    metrics: list[str] = []
    for backbone, wanted in plan.items():
        found = {r["method"]: r["metrics"] for r in run.rows() if r["backbone"] == backbone}
        values = {row.layers: found[row.name]["reliability"] for row in wanted}
        text = sorted({layers.text for layers in values if layers.text is not None})
        visual = sorted({layers.visual for layers in values if layers.visual is not None})
        write_csv(
            settings.out / f"figure5-{backbone}.csv",
            ["text_layer", "visual_layer", "reliability"],
            [(layers.text, layers.visual, float(v)) for layers, v in values.items()],
        )
        grid = [[values[Layers(t, v)] for v in visual] for t in text]
        painter = partial(_paint, backbone, grid, visual, text)
        draw(settings.out / f"figure5-{backbone}.png", painter, size=(4.5, 4))
        lines = [
            Line(f"text {t}", {f"visual {v}": values[Layers(t, v)] for v in visual}) for t in text
        ]
        blocks.append(Block(block_title(backbone), lines))
        metrics = list(dict.fromkeys([*metrics, *(f"visual {v}" for v in visual)]))
    printed = "; ".join(
        f"text {n.variant['t_layer']}, visual {n.variant['v_layer']}: {n.value:g}"
        for n in published.find("dualedit-figure5")
    )
    title = "DualEdit, figure 5: reliability by layers"
    further = [f"The paper (of 32 layers): {printed}."]
    Table(title, metrics, blocks, [*notes(run), *further], first="layer").write(settings.out)


def _paint(name: str, grid: list, visual: list, text: list, figure: Any, axes: Any) -> None:
    image = axes[0].imshow(grid, cmap="viridis", origin="lower")
    axes[0].set(title=f"{name}: reliability", xlabel="visual layer", ylabel="text layer")
    axes[0].set_xticks(range(len(visual)), visual)
    axes[0].set_yticks(range(len(text)), text)
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            axes[0].text(x, y, f"{value:.1f}", ha="center", va="center", color="white")
    figure.colorbar(image)
