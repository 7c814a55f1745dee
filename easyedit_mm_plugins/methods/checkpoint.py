"""Editors on disk: their header (``config.json``), and tensors as safetensors in fp16 or fp32.

Errors say what is wrong with which file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .. import __version__
from ..backbones.base import Backbone
from ..core.errors import CheckpointError, DataError
from ..core.files import atomic_path, read_json, write_json

FORMAT = 1
AGAIN = "save the editor again, or fetch it again if it was downloaded"


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, half: bool = False) -> None:
    """Write ``tensors`` to ``path``, whole or not at all; floats in fp16 if ``half``."""
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous().clone()  # clones: no shared storage
        plain[name] = tensor.half() if half and tensor.is_floating_point() else tensor
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt"})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", remedy="check the folder's name")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", remedy=AGAIN) from error


def load_tensors(module: nn.Module, path: str | Path, tied: Collection[str] = ()) -> None:
    """Load ``path`` into ``module``, every tensor and no other, in the module's own dtype.

    ``tied`` names tensors that share another one's storage and are not in the file.

    Raises:
        CheckpointError: the file is damaged, or holds other names or shapes.
    """
    found, own = read_tensors(path), module.state_dict()
    wrong = sorted(set(found) ^ (set(own) - set(tied)))
    wrong += [n for n in found if n in own and found[n].shape != own[n].shape]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the model that its config describes: {len(wrong)} tensors "
            f"differ, first {wrong[0]!r}",
            remedy=AGAIN,
        )
    bad = [n for n, t in found.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise CheckpointError(f"{path}: {bad[0]!r} holds values that are not finite", remedy=AGAIN)
    module.load_state_dict(found, strict=not tied)


def tied_names(module: nn.Module) -> list[str]:
    """Names in the state dict whose storage an earlier name has: left out of files."""
    seen: dict[int, str] = {}
    again = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            again.append(name)
        seen.setdefault(id(tensor), name)
    return again


def read_config(path: str | Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        CheckpointError: it is missing, malformed, or lacks a key of ``needed``.
    """
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{path}: {error.message}", remedy=AGAIN) from error
    if not isinstance(config, dict) or any(key not in config for key in needed):
        raise CheckpointError(f"{path} lacks one of {', '.join(needed)}", remedy=AGAIN)
    return config


def write_header(
    folder: str | Path, method: str, backbone: Backbone | None = None, **settings: Any
) -> None:
    """Write an editor's ``config.json`` into ``folder``; do so last, it makes the folder an editor.

    Args:
        method: its registered name.
        backbone: the one it was trained for; ``None`` if it fits any.
        settings: what the method needs to build the editor again.
    """
    header: dict[str, Any] = {"format": FORMAT, "method": method, "version": __version__}
    if backbone is not None:
        header["backbone"] = {"name": backbone.name, "fingerprint": backbone.fingerprint()}
    write_json(Path(folder) / "config.json", header | settings)


def read_header(
    folder: str | Path,
    method: str,
    backbone: Backbone | None = None,
    needed: Collection[str] = (),
) -> dict[str, Any]:
    """The ``config.json`` of an editor of ``method`` for ``backbone``; arguments as they were
    written, see :func:`write_header`.

    Raises:
        CheckpointError: it is missing or damaged, lacks a setting of ``needed``, or belongs to
            another method, format or backbone; the message names both.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", remedy="check the editor's path")
    always = ("method",) if backbone is None else ("method", "backbone")
    header = read_config(folder / "config.json", (*always, *needed))
    if header["method"] != method:
        raise CheckpointError(
            f"{folder} holds a {header['method']} editor, not {method}",
            remedy=f"load it as {header['method']}",
        )
    if header.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"{folder} has format {header['format']}, this version reads {FORMAT}",
            remedy=f"install version {header.get('version')}, or train again",
        )
    if backbone is None:
        return header
    trained = header["backbone"] if isinstance(header["backbone"], dict) else {}
    if trained.get("fingerprint") != backbone.fingerprint():
        raise CheckpointError(
            f"{folder} was trained for backbone {trained.get('name')} "
            f"({trained.get('fingerprint')}), this is {backbone.name} ({backbone.fingerprint()})",
            remedy=f"load backbone {trained.get('name')}, or train for {backbone.name}",
        )
    return header
