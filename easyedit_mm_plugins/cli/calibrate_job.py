"""``easyedit-mm calibrate``: a DualEdit editor's gate threshold from held-out training edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.console import CONSOLE
from ..core.errors import CheckpointError, ConfigError
from ..evaluation import jobs

if TYPE_CHECKING:
    from ..methods.dualedit import Calibration


def calibrate_editor(
    backbone: str,
    *,
    editor: Path | None = None,
    gate: str | None = None,
    data: str = jobs.SCENES,
    images: Path | None = None,
    held_out: int = 300,
    memory: int | None = None,
    max_leak: float | None = None,
    out: Path | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Calibration:
    """Calibrate the gate of ``editor`` (by default the one shipped for ``backbone``).

    Args:
        gate: which gate; by default the editor's own.
        data: training records, of which the last ``held_out`` decide; training must not have
            seen them (``easyedit-mm train`` keeps the last ones apart).
        memory: edits in force at once; by default 1, for a learned gate 100.
        max_leak: share of each kind of locality question that may pass; by default as in
            :func:`calibrate`.
        out: the editor's folder with the new threshold is written here, ``None``: only shown.

    Raises:
        CheckpointError: there is no editor. ConfigError: its gate has no threshold, or
            ``max_leak`` is no share.
        DataError: the records lack a side of the gate.
    """
    if max_leak is not None and not 0 <= max_leak <= 1:
        raise ConfigError(f"max_leak is {max_leak}, but is a share, from 0 to 1")
    jobs.check_names([], [backbone])
    from ..backbones import load_backbone
    from ..core.shipped import ASSETS
    from ..methods.dualedit import DualEdit, calibrate

    base = load_backbone(backbone, device=device, dtype=dtype)
    folder = editor or ASSETS / f"dualedit-{base.name}"
    if not folder.is_dir():
        raise CheckpointError(
            f"no trained DualEdit editor in {folder}",
            remedy="give its folder with --editor, or train one: easyedit-mm train",
        )
    loaded = DualEdit.from_pretrained(folder, base)
    kind = gate or loaded.config.gate.kind
    if kind == "off":
        raise ConfigError("gate off has no threshold", remedy="calibrate another gate: --gate")
    records = jobs.load_records(data, split="train", images=images).records[-held_out:]
    subject = loaded.with_gate(kind)
    many = (100 if kind == "learned" else 1) if memory is None else memory
    others = min(many, len(records)) - 1
    further = {} if max_leak is None else {"max_leak": max_leak}
    found = calibrate(subject, records, others=others, **further)
    CONSOLE.print(
        f"{base.name}, gate {kind} at layer {subject.config.gate_layer}, {len(records)} held-out "
        f"records, {min(many, len(records))} edits in memory",
        markup=False,
    )
    for label, cosines in found.cosines.items():
        opened = 100 * sum(c >= found.threshold for c in cosines) / len(cosines)
        CONSOLE.print(f"  {label:<16} opens the gate {opened:6.2f} %", markup=False)
    CONSOLE.print(
        f"threshold {found.threshold:.3f} (was {subject.threshold:.3f}), balanced accuracy "
        f"{100 * found.balanced_accuracy:.2f} %, ROC area {found.auc:.5f}",
        markup=False,
    )
    if out is not None:
        if kind == loaded.config.gate.kind:
            loaded.threshold = round(found.threshold, 3)
        else:
            loaded.thresholds[kind] = round(found.threshold, 3)
        loaded.save_pretrained(out, half=False)
        CONSOLE.print(f"editor: {out}", markup=False)
    return found
