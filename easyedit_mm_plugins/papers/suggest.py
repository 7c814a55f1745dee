"""``easyedit-mm suggest-layers``: layers for DualEdit's adapters on a new backbone.

Three measurements that need no training rank the layers: the effect of noise (figure 2), the gate's
ROC area and a linear probe. Where figure 5 was measured for the backbone, the reliability of the
trained editors decides.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..backbones import check_backbones
from ..core.console import CONSOLE
from ..core.errors import DataError
from ..data import load_records
from . import layer_measurements as study

SIGMA = 1.0
_NEAR = 0.02  # of the best probe
_GATE = 0.002  # of the best ROC area
_ALIKE = 1.0  # points of reliability that figure 5 cannot tell apart
FIGURE5 = Path("runs/dualedit-figure5")
Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerFacts:
    """What was measured at one layer; see :func:`choose`."""

    layer: int
    text_kl: float
    visual_kl: float
    probe: float
    gate_auc: float


def choose(facts: list[LayerFacts], trained: Mapping[Pair, float] | None = None) -> Pair:
    """Text and visual layer.

    Args:
        trained: reliability of trained editors by their layers (figure 5). The best of them is
            chosen; among equals the one nearest to the layers found as follows.

    Text: among the layers whose probe and ROC area are near the best, the one where noise on text
    tokens changes the output most. Visual: among this layer and those above it, where the gate has
    decided already, the one where noise on image tokens changes the output most; never the last
    layer, whose image tokens nothing reads.
    """
    best_probe, best_gate = max(f.probe for f in facts), max(f.gate_auc for f in facts)
    able = [
        f for f in facts if f.probe >= best_probe - _NEAR and f.gate_auc >= best_gate - _GATE
    ] or [max(facts, key=lambda f: f.probe + f.gate_auc)]
    text = max(able, key=lambda f: f.text_kl).layer
    above = [f for f in facts[:-1] if f.layer >= text] or facts[-2:-1]
    visual = max(above, key=lambda f: f.visual_kl).layer
    if not trained:
        return text, visual
    best = max(trained.values())
    alike = [pair for pair, value in trained.items() if value >= best - _ALIKE]
    return min(alike, key=lambda pair: (abs(pair[0] - text) + abs(pair[1] - visual), pair))


def read_figure5(run: Path, backbone: str) -> dict[Pair, float]:
    """Reliability by text and visual layer, as ``reproduce dualedit-figure5`` wrote it to ``run``.

    Empty where figure 5 was not measured for the backbone.

    Raises:
        DataError: its CSV cannot be read.
    """
    path = run / f"figure5-{backbone}.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="") as file:
            return {
                (int(row["text_layer"]), int(row["visual_layer"])): float(row["reliability"])
                for row in csv.DictReader(file)
            }
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read: {error!r}",
            remedy="measure it again: easyedit-mm reproduce dualedit-figure5",
        ) from None


def suggest(
    backbone: str,
    *,
    data: str = "scenes",
    images: Path | None = None,
    allow_outside: bool = False,
    count: int = 100,
    figure5: Path | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Pair:
    """Measure each layer on ``count`` training records, print the facts and the proposal.

    Args:
        figure5: the run folder of figure 5, by default ``FIGURE5``; it need not be there.

    Raises:
        UnknownNameError, DataError: as for an evaluation.
    """
    check_backbones(backbone)
    from ..backbones import load_backbone

    records = load_records(
        data, split="train", images=images, limit=6 * count, allow_outside=allow_outside
    ).records
    base = load_backbone(backbone, device=device, dtype=dtype)
    figure5 = figure5 or FIGURE5
    trained = read_figure5(figure5, base.name)
    every = range(len(base.layers))
    some = records[:count]
    noise = study.noise_effects(base, [r.edit for r in some], [SIGMA])
    gate = study.gate_similarities(base, some, every)
    probe = study.answer_probe(base, records, every)
    facts = [
        LayerFacts(
            k, noise["text", SIGMA][k], noise["visual", SIGMA][k], probe[k], gate[k]["last"].auc
        )
        for k in every
    ]
    CONSOLE.print(f"{base.name}: {len(some)} records, {len(records)} for the probe", markup=False)
    CONSOLE.print("layer  KL text  KL visual  answers told apart  gate's ROC area", markup=False)
    for f in facts:
        CONSOLE.print(
            f"{f.layer:5}  {f.text_kl:7.3f}  {f.visual_kl:9.3f}  {100 * f.probe:16.1f} %  "
            f"{f.gate_auc:15.4f}",
            markup=False,
        )
    text, visual = choose(facts, trained)
    for (t, v), value in sorted(trained.items()):
        CONSOLE.print(f"figure 5, text {t}, visual {v}: reliability {value:.1f}", markup=False)
    if not trained:
        CONSOLE.print(
            f"no figure 5 of {base.name} in {figure5}, so no trained editor was compared "
            "(easyedit-mm reproduce dualedit-figure5)",
            markup=False,
        )
    CONSOLE.print(f"suggested: text adapter on {text}, visual adapter on {visual}", markup=False)
    return text, visual
