"""DualEdit's figures 1, 2 and 4: attention by modality, noise by layer, the gate's similarities.

None of them trains anything. The paper draws them without numbers, on LLaVA-1.5 and 1,000 samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.console import CONSOLE
from ..core.files import read_json, write_json
from ..data import EditRecord
from ..evaluation import run_files
from ..evaluation.results import records_identity
from . import ExperimentSettings
from .plots import draw, write_csv
from .tables import Block, Line, Table, run_note, with_kind

if TYPE_CHECKING:
    from ..backbones import Backbone

SAMPLES = 200  # paper: 1,000
SIGMAS = (0.5, 1.0, 2.0, 4.0)
BINS = 40
Measure = Callable[["Backbone", Sequence[EditRecord]], dict[str, Any]]


def figure1(settings: ExperimentSettings) -> None:
    """Attention that text and image tokens receive at each layer, and the top three of these.

    Raises:
        BackboneError: the decoder gives out no attention. DataError, RunError: as an evaluation's.
    """

    def measure(backbone: Backbone, records: Sequence[EditRecord]) -> dict[str, Any]:
        from .layer_measurements import attention_received

        return {"series": attention_received(backbone, [r.edit for r in records])}

    def paint(name: str, series: dict[str, list[float]], _: Any, axes: Any) -> None:
        for label, values in series.items():
            axes[0].plot(values, "--" if "top" in label else "-", marker="o", label=label)
        axes[0].set(title=name, xlabel="layer", ylabel="attention received, mean")
        axes[0].legend()

    out, found = _run(settings, {"figure": 1}, measure)
    for name, facts in found.items():
        series = facts["series"]
        rows = [(k, *values) for k, values in enumerate(zip(*series.values(), strict=True))]
        write_csv(out / f"figure1-{name}.csv", ["layer", *series], rows)
        draw(out / f"figure1-{name}.png", partial(paint, name, series), size=(6, 4))
    _layers_table(
        out,
        "DualEdit, figure 1: attention received, percent",
        {n: {k: [100 * v for v in s] for k, s in f["series"].items()} for n, f in found.items()},
        ["The paper: text tokens receive far more than image tokens on the whole, a few image "
         "tokens as much; both peak at shallow layers, not the same."],
    )  # fmt: skip


def figure2(settings: ExperimentSettings) -> None:
    """KL of the output when noise is added to image, text or all tokens of one layer.

    Raises:
        DataError, RunError: as an evaluation's.
    """

    def measure(backbone: Backbone, records: Sequence[EditRecord]) -> dict[str, Any]:
        from .layer_measurements import noise_effects

        found = noise_effects(backbone, [r.edit for r in records], SIGMAS)
        return {"kl": [[tokens, s, values] for (tokens, s), values in found.items()]}

    def paint(name: str, kl: list, _: Any, axes: Any) -> None:
        for place, tokens in zip(axes, dict.fromkeys(t for t, _, _ in kl), strict=True):
            for kind, sigma, values in kl:
                if kind == tokens:
                    place.plot(values, marker="o", label=f"sigma {sigma:g}")
            place.set(title=f"{name}: noise on {tokens} tokens", xlabel="layer", ylabel="KL")
            place.legend()

    out, found = _run(settings, {"figure": 2, "sigmas": list(SIGMAS)}, measure)
    for name, facts in found.items():
        kl = facts["kl"]
        rows = [(t, s, k, v) for t, s, values in kl for k, v in enumerate(values)]
        write_csv(out / f"figure2-{name}.csv", ["tokens", "sigma", "layer", "kl"], rows)
        draw(out / f"figure2-{name}.png", partial(paint, name, kl), size=(13, 4), columns=3)
    _layers_table(
        out,
        "DualEdit, figure 2: KL of the output under noise of sigma 1",
        {n: {t: v for t, s, v in f["kl"] if s == 1.0} for n, f in found.items()},
        ["Sigma is in units of the root mean square of layer 0's output.",
         "The paper: which layers matter differs between modalities, and the effect of both is "
         "not the sum of each."],
    )  # fmt: skip


def figure4(settings: ExperimentSettings) -> None:
    """Cosine of questions with their edit, by kind of token, edited against unrelated.

    Raises:
        DataError, RunError: as an evaluation's.
    """

    def measure(backbone: Backbone, records: Sequence[EditRecord]) -> dict[str, Any]:
        from ..methods.dualedit.calibration import best_threshold
        from .layer_measurements import gate_similarities

        layer = len(backbone.layers) // 2  # of the paper's 16 of 32
        found = gate_similarities(backbone, records, [layer])[layer]
        facts = {}
        for tokens, s in found.items():
            threshold, accuracy = best_threshold([s.edited], [s.unrelated], at_most=1)
            facts[tokens] = {"edited": s.edited, "unrelated": s.unrelated, "auc": s.auc}
            facts[tokens] |= {"threshold": threshold, "balanced": accuracy}
        return {"layer": layer, "tokens": facts}

    def paint(name: str, facts: dict, _: Any, axes: Any) -> None:
        sides = ("edited", "unrelated")
        lowest = min(min(s[side]) for s in facts["tokens"].values() for side in sides)
        for place, (tokens, s) in zip(axes, facts["tokens"].items(), strict=True):
            for side in sides:
                place.hist(s[side], bins=BINS, range=(min(lowest, 0), 1), alpha=0.6, label=side)
            place.axvline(s["threshold"], color="black", linestyle="--", label="threshold")
            title = f"{name}, layer {facts['layer']}: {tokens}, ROC area {s['auc']:.4f}"
            place.set(title=title, xlabel="cosine with the edit", ylabel="questions")
            place.legend()

    out, found = _run(settings, {"figure": 4}, measure)
    blocks = []
    for name, facts in found.items():
        rows = [
            (tokens, side, float(value))
            for tokens, s in facts["tokens"].items()
            for side in ("edited", "unrelated")
            for value in s[side]
        ]
        write_csv(out / f"figure4-{name}.csv", ["tokens", "side", "cosine"], rows)
        draw(out / f"figure4-{name}.png", partial(paint, name, facts), size=(14, 4), columns=3)
        lines = [
            Line(t, {"roc_area": 100 * s["auc"], "balanced_accuracy": 100 * s["balanced"],
                     "threshold": 100 * s["threshold"]})
            for t, s in facts["tokens"].items()
        ]  # fmt: skip
        blocks.append(Block(f"{with_kind(name)}, layer {facts['layer']}", lines))
    notes = [
        "Percent; the threshold (cosine times 100) is the one of highest balanced accuracy.",
        "Edited: rephrasings and redrawn images with their edit; unrelated: locality questions.",
        "The paper: only the last token separates the two sides.",
        run_note(out, read_json(out / "env.json")),
    ]
    metrics = ("roc_area", "balanced_accuracy", "threshold")
    title = "DualEdit, figure 4: similarity with the edit by kind of token"
    Table(title, metrics, blocks, notes, decimals=2, first="tokens").write(out)


def _run(
    settings: ExperimentSettings, config: dict[str, Any], measure: Measure
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The run folder, and what ``measure`` found by backbone; finished backbones are kept."""
    names = settings.names(["scenes-llava"])
    records = settings.records(settings.limit or SAMPLES)
    config = {"dataset": records_identity(records), **config}
    out = settings.open_folder(config, ("facts.json", *_pictures(settings.out)))
    path = out / "facts.json"
    found = read_json(path) if path.is_file() else {}
    for name in names:
        if name in found:
            continue
        backbone = settings.load_backbone(name)
        with CONSOLE.status(f"{name} ..."):
            found[backbone.name] = measure(backbone, records.records)
        write_json(path, found)
    write_json(out / "summary.json", {"format": run_files.FORMAT, "figure": found})
    return out, found


def _pictures(out: Path) -> list[str]:
    return [p.name for p in out.glob("figure*.*")] if out.is_dir() else []


def _layers_table(
    out: Path,
    title: str,
    found: dict[str, dict[str, list[float]]],
    notes: list[str],
) -> None:
    blocks = [
        Block(
            with_kind(name),
            [
                Line(f"layer {k}", dict(zip(series, values, strict=True)))
                for k, values in enumerate(zip(*series.values(), strict=True))
            ],
        )
        for name, series in found.items()
    ]
    metrics = list(next(iter(found.values())))
    notes = [*notes, run_note(out, read_json(out / "env.json"))]
    Table(title, metrics, blocks, notes, decimals=3, first="layer").write(out)
