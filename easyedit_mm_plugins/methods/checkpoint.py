"""Tensors on disk: safetensors in fp16 or fp32, with errors that say what is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..core.errors import CheckpointError, DataError
from ..core.files import atomic_path, read_json

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


def read_config(path: str | Path, needed: tuple[str, ...] = ()) -> dict[str, Any]:
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
