"""Trained parts of an editor in a folder: the scope's heads, and the counterfactual model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...backbones.base import Backbone
from ...core.errors import CheckpointError
from ..checkpoint import AGAIN, read_config, read_header
from ..factory import editor_folder, shipped_editor
from ..mscke.counterfactual import COUNTERFACTUALS, Counterfactual
from ..mscke.model import part_folders
from .scope import SelfScope

HEADS_OF = "mscke-self"  # the method whose shipped heads others take


def trained_scope(folder: str | Path | None, backbone: Backbone) -> tuple[SelfScope, float]:
    """The heads of the trained MSCKE-Self, or variant of it, in ``folder``, and their threshold.

    Args:
        folder: by default that of the shipped one.

    Raises:
        CheckpointError: it is missing, damaged, of another method or for another backbone.
    """
    found = shipped_editor(HEADS_OF, backbone) if folder is None else editor_folder(folder)
    if found is None:
        raise CheckpointError(
            f"no trained {HEADS_OF} editor is shipped for {backbone.name}",
            remedy="train one (easyedit-mm train) and set scope_of to its folder",
        )
    at, config = _parts(found, backbone, "threshold")
    threshold = config["threshold"]
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise CheckpointError(f"{found / 'config.json'}: threshold is {threshold!r}", remedy=AGAIN)
    return load_scope(at["scope"], backbone), float(threshold)


def load_scope(folder: Path, backbone: Backbone) -> SelfScope:
    """Heads saved by themselves, on the backbone's device.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the backbone.
    """
    found = SelfScope.from_pretrained(folder).to(backbone.device)
    if found.hidden != backbone.hidden_size or found.layer >= len(backbone.layers):
        raise CheckpointError(
            f"the heads in {folder} read layer {found.layer} of size {found.hidden}, which "
            f"{backbone.name} has not",
            remedy="take heads that were trained for this backbone",
        )
    return found


def trained_counterfactual(folder: str | Path, backbone: Backbone) -> Counterfactual:
    """The counterfactual model of the trained editor in ``folder``, MSCKE or a variant of it.

    Raises:
        CheckpointError: it is missing, damaged or for another backbone.
    """
    at, config = _parts(editor_folder(folder), backbone, "counterfactual")
    kind = COUNTERFACTUALS.get(config["counterfactual"])
    model: Any = kind.from_pretrained(at["counterfactual"], backbone)
    if isinstance(model, torch.nn.Module):
        model.to(backbone.device)
    return model


def _parts(folder: Path, backbone: Backbone, needed: str) -> tuple[dict[str, Path], dict[str, Any]]:
    method = read_config(folder / "config.json", ("method",))["method"]
    config = read_header(folder, method, backbone, (needed,))
    return part_folders(folder, config), config
