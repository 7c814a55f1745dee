"""``easyedit-mm calibrate``: a threshold for any method that has one, from held-back records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import CheckpointError, ConfigError
from ..core.registry import did_you_mean
from .options import EDITOR, AllowOutside, Device, DType, Images, OneBackbone, TrainingData

GATES = ("prompt-end", "learned", "released", "self")  # of DualEdit, those with a threshold


def calibrate(
    backbone: OneBackbone,
    method: Annotated[
        str, typer.Option(help="mscke, mscke-self, serac, dualedit, ...: one with a threshold.")
    ] = "dualedit",
    editor: Annotated[
        Path | None, typer.Option(help=f"{EDITOR}; by default the shipped one.")
    ] = None,
    gate: Annotated[
        str | None,
        typer.Option(help=f"DualEdit's: {', '.join(GATES)}; by default the editor's."),
    ] = None,
    data: TrainingData = "scenes",
    images: Images = None,
    allow_outside: AllowOutside = False,
    held_out: Annotated[
        int, typer.Option(min=2, help="Number of records to calibrate on, the last ones.")
    ] = 300,
    edits: Annotated[
        int,
        typer.Option(min=1, help="In force at once; beyond --held-out those of earlier records."),
    ] = 100,
    at_most: Annotated[
        float | None,
        typer.Option(
            help="Share of each kind of question out of scope that may be let through; by default "
            "0.005 for DualEdit, and no bound for others."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the editor with the new threshold.")
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
) -> Any:  # the command line does not show it
    """Choose a threshold on records that the training did not use, with many edits in force."""
    from ..backbones import check_backbones, load_backbone
    from ..core.console import CONSOLE
    from ..data import load_records
    from ..methods import METHODS, load_editor
    from ..methods.calibration import check_share
    from ..methods.factory import editor_folder, shipped_editor

    if at_most is not None:
        check_share(at_most)
    entry = METHODS.get(method)
    if not hasattr(entry.editor_class, "calibrate"):
        raise ConfigError(f"{entry.title} has no threshold", remedy="calibrate another method")
    if gate is not None:
        check_gate(gate)
        if not hasattr(entry.editor_class, "with_gate"):
            raise ConfigError(f"{entry.title} has no gate", remedy="leave out --gate")
    check_backbones(backbone)
    folder = editor_folder(editor) if editor else shipped_editor(entry, Path(backbone).name)
    if folder is None:
        raise CheckpointError(
            f"no trained {entry.title} editor is shipped for {backbone}",
            remedy="give its folder with --editor, or train one: easyedit-mm train",
        )
    loaded = load_records(
        data, split="train", images=images, allow_outside=allow_outside, extra=True
    )
    records = loaded.records[-held_out:]
    earlier = loaded.records[: -len(records)][-max(1, edits - len(records)) :]
    more = [record.edit for record in earlier]
    edits = min(edits, len(records) + len(more))
    base = load_backbone(backbone, device=device, dtype=dtype)
    trained: Any = load_editor(entry.name, base, folder)
    subject = trained.with_gate(gate) if gate else trained
    before = subject.threshold
    found = subject.calibrate(records, edits=edits, at_most=at_most, more=more)
    where = f", gate {subject.config.gate.kind} at layer {subject.gate_layer}" if gate else ""
    CONSOLE.print(
        f"{entry.title} for {base.name}{where}, {len(records)} held-out records, {found.edits} "
        f"edits in force",
        markup=False,
        soft_wrap=True,
    )
    for kind, share in found.fires.items():
        side = "in scope" if kind in found.inside else "out of scope"
        CONSOLE.print(f"  {kind:<16} {side:<13} fires {100 * share:6.2f} %", markup=False)
    CONSOLE.print(
        f"threshold {found.threshold:.3f} (was {before:.3f}), balanced accuracy "
        f"{100 * found.balanced_accuracy:.2f} %, ROC area {found.auc:.5f}",
        markup=False,
        soft_wrap=True,
    )
    if out is not None:
        if gate is not None and gate != trained.config.gate.kind:
            trained.thresholds[gate] = subject.threshold
        else:
            trained.threshold = subject.threshold
        trained.save_pretrained(out, half=False)
        CONSOLE.print(f"editor: {out}", markup=False)
    return found


def check_gate(kind: str) -> None:
    """Raise :class:`ConfigError` for a gate that is unknown or has no threshold."""
    if kind == "off":
        raise ConfigError("gate off has no threshold", remedy="calibrate another gate: --gate")
    if kind not in GATES:
        raise ConfigError(f"unknown gate {kind!r}; {did_you_mean(kind, list(GATES))}")
