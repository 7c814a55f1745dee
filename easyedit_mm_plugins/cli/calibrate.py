"""``easyedit-mm calibrate``: a threshold for DualEdit's gate from held-out training edits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import CheckpointError, ConfigError
from ..core.registry import did_you_mean
from .options import EDITOR, AllowOutside, Device, DType, Images, OneBackbone, TrainingData

GATES = ("prompt-end", "learned", "released")  # those with a threshold


def calibrate(
    backbone: OneBackbone,
    editor: Annotated[
        Path | None, typer.Option(help=f"{EDITOR}; by default the shipped one.")
    ] = None,
    gate: Annotated[
        str | None, typer.Option(help="prompt-end, learned or released; by default the editor's.")
    ] = None,
    data: TrainingData = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    held_out: Annotated[
        int, typer.Option(min=2, help="Number of records to calibrate on, the last ones.")
    ] = 300,
    memory: Annotated[
        int | None,
        typer.Option(min=1, help="Edits in force at once; by default 1, for the learned gate 100."),
    ] = None,
    max_leak: Annotated[
        float | None,
        typer.Option(
            help="Share of each kind of locality question that may open the gate; by default 1/200."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the editor with the new threshold.")
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
) -> Any:  # the command line does not show it
    """Choose DualEdit's gate threshold on records that the training did not use."""
    from ..backbones import check_backbones, load_backbone
    from ..core.console import CONSOLE
    from ..data import load_records
    from ..methods import shipped_editor
    from ..methods.dualedit import DualEdit
    from ..methods.dualedit.calibration import calibrate as measure
    from ..methods.factory import editor_folder

    if max_leak is not None and not 0 <= max_leak <= 1:
        raise ConfigError(f"max_leak is {max_leak}, but is a share, from 0 to 1")
    if gate is not None:
        check_gate(gate)
    check_backbones(backbone)
    folder = editor_folder(editor) if editor else shipped_editor("dualedit", Path(backbone).name)
    if folder is None:
        raise CheckpointError(
            f"no trained DualEdit editor is shipped for {backbone}",
            remedy="give its folder with --editor, or train one: easyedit-mm train",
        )
    loaded = load_records(data, split="train", images=images, allow_outside=allow_outside)
    records = loaded.records[-held_out:]
    base = load_backbone(backbone, device=device, dtype=dtype)
    trained = DualEdit.from_pretrained(folder, base)
    kind = gate or trained.config.gate.kind
    check_gate(kind)
    subject = trained.with_gate(kind)
    many = (100 if kind == "learned" else 1) if memory is None else memory
    others = min(many, len(records)) - 1
    further = {} if max_leak is None else {"max_leak": max_leak}
    found = measure(subject, records, others=others, **further)
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
        if kind == trained.config.gate.kind:
            trained.threshold = round(found.threshold, 3)
        else:
            trained.thresholds[kind] = round(found.threshold, 3)
        trained.save_pretrained(out, half=False)
        CONSOLE.print(f"editor: {out}", markup=False)
    return found


def check_gate(kind: str) -> None:
    """Raise :class:`ConfigError` for a gate that is unknown or has no threshold."""
    if kind == "off":
        raise ConfigError("gate off has no threshold", remedy="calibrate another gate: --gate")
    if kind not in GATES:
        raise ConfigError(f"unknown gate {kind!r}; {did_you_mean(kind, list(GATES))}")
