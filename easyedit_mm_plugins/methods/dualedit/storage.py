"""A DualEdit editor on a disk: ``adapters/``, ``gate/`` if one was learned, and ``config.json``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ... import __version__
from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...core.files import write_json
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors
from ..settings import build
from .config import DualEditConfig
from .gate import new_gate

if TYPE_CHECKING:
    from .model import DualEdit

FORMAT = 1
Made = TypeVar("Made", bound="DualEdit")


def save_editor(editor: DualEdit, folder: Path, *, half: bool = True) -> None:
    """Write ``editor`` into ``folder`` (made if absent), ``config.json`` last.

    Args:
        half: store weights as fp16 (they are used as fp32); ``False`` keeps every bit.
    """
    save_tensors(folder / "adapters/model.safetensors", editor.adapters.state_dict(), half=half)
    if editor.gate is not None:
        save_tensors(folder / "gate/model.safetensors", editor.gate.state_dict(), half=half)
    config = asdict(editor.config)
    config["gate"]["threshold"] = editor.threshold
    base = {"name": editor.backbone.name, "fingerprint": editor.backbone.fingerprint()}
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "method": editor.name,
            "version": __version__,
            "backbone": base,
            "config": config,
            "thresholds": editor.thresholds,
        },
    )


def load_editor(
    cls: type[Made], folder: Path, backbone: Backbone, *, fresh_gate: bool = False
) -> Made:
    """An editor saved by :func:`save_editor`, for the backbone it was trained on.

    Args:
        fresh_gate: its gate is a learned one that has yet to be fitted, whatever it had.

    Raises:
        CheckpointError: something is missing or damaged, or the editor is for another backbone;
            the message names both.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", remedy="check the editor's path")
    saved = read_config(folder / "config.json", ("format", "method", "backbone", "config"))
    if saved["method"] != cls.name:
        raise CheckpointError(
            f"{folder} holds a {saved['method']} editor, not {cls.name}",
            remedy=f"load it as {saved['method']}",
        )
    if saved["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {saved['format']}, this version reads {FORMAT}",
            remedy=f"install version {saved.get('version')}, or train again",
        )
    trained = saved["backbone"]
    if trained.get("fingerprint") != backbone.fingerprint():
        raise CheckpointError(
            f"{folder} was trained for backbone {trained.get('name')} "
            f"({trained.get('fingerprint')}), this is {backbone.name} "
            f"({backbone.fingerprint()})",
            remedy=f"load backbone {trained.get('name')}, or train for {backbone.name}",
        )
    try:
        config = build(DualEditConfig, saved["config"], "config")
        if fresh_gate:
            config = replace(config, gate=replace(config.gate, kind="learned"))
        editor = cls(backbone, config)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error
    editor.thresholds = dict(saved.get("thresholds", {}))
    load_tensors(editor.adapters, folder / "adapters/model.safetensors")
    path = folder / "gate/model.safetensors"
    if not fresh_gate and (path.is_file() or editor.gate is not None):
        editor.gate = editor.gate or new_gate(backbone)
        load_tensors(editor.gate, path)
    return editor
