"""``easyedit-mm suggest-layers``: where DualEdit's adapters may go on a new backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import jobs
from ..console import CONSOLE
from . import layers as study

SIGMA = 1.0
_NEAR = 0.02  # of the best probe
_GATE = 0.002  # of the best ROC area


@dataclass(frozen=True)
class LayerFacts:
    """What was measured at one layer; see :func:`choose`."""

    layer: int
    text_kl: float
    visual_kl: float
    probe: float
    gate_auc: float


def choose(facts: list[LayerFacts]) -> tuple[int, int]:
    """Text and visual layer.

    Text: of the layers that can still tell answers apart and where the gate separates (probe and
    ROC area near the best), the one where noise on text moves the output most. Visual: of that
    layer and those above it, where the gate has decided already, the one where noise on the image
    moves the output most; never the last, whose image tokens nothing reads.
    """
    best_probe, best_gate = max(f.probe for f in facts), max(f.gate_auc for f in facts)
    able = [
        f for f in facts if f.probe >= best_probe - _NEAR and f.gate_auc >= best_gate - _GATE
    ] or [max(facts, key=lambda f: f.probe + f.gate_auc)]
    text = max(able, key=lambda f: f.text_kl).layer
    above = [f for f in facts[:-1] if f.layer >= text] or facts[-2:-1]
    return text, max(above, key=lambda f: f.visual_kl).layer


def suggest(
    backbone: str,
    *,
    data: str = jobs.SCENES,
    images: Path | None = None,
    count: int = 100,
    device: str = "cpu",
    dtype: str | None = None,
) -> tuple[int, int]:
    """Measure each layer on ``count`` training records, print the facts and the proposal.

    Raises:
        UnknownNameError, DataError: as for an evaluation.
    """
    jobs.check_names([], [backbone])
    from ..backbones import load_backbone

    base = load_backbone(backbone, device=device, dtype=dtype)
    every = range(len(base.layers))
    records = jobs.load_records(data, split="train", images=images, limit=6 * count).records
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
    text, visual = choose(facts)
    CONSOLE.print(f"suggested: text adapter on {text}, visual adapter on {visual}", markup=False)
    return text, visual
