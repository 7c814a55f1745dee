"""What DualEdit keeps of an edit: the gate's key, and keys and values for every adapter.

An edit sample goes through the base model once, when it is added; a query costs one product with
the matrix of gate keys, whatever the number of edits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import Visible
from ..edit_file import SavedEdits
from ..routed import Hit
from ..store import InForce
from .adapters import pad_memory

# For each adapter an edit's keys and values, [N, A or D] each.
Values = list[tuple[Tensor, Tensor]]


def nearest(now: InForce, queries: Tensor, visible: Visible = None) -> list[Hit]:
    """For each query ``[B, K]`` the visible edit of highest cosine, and that cosine (eq. 4).

    ``id`` is ``None`` where a query may see no edit.

    Raises:
        ConfigError: ``visible`` has another length than ``queries``.
    """
    found = now.table.nearest(unit(queries), visible)
    return [
        Hit(near[0].id, min(1.0, max(-1.0, near[0].score))) if near else Hit(None, 0.0)
        for near in found
    ]


def unit(keys: Tensor) -> Tensor:
    """Gate keys ``[n, K]`` of length 1, as they are kept."""
    return torch.nn.functional.normalize(keys.float(), dim=-1)


def gather(now: InForce, ids: Sequence[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each adapter keys, values and mask of these edits, see :func:`pad_memory`."""
    chosen = [now.payloads[i] for i in ids]
    return [pad_memory([v[number] for v in chosen]) for number in range(len(chosen[0]))]


def pack(values: Sequence[Values]) -> dict[str, Tensor]:
    """Edits' values as a few tensors: by adapter all keys, all values, and each edit's length."""
    tensors = {}
    for number, pairs in enumerate(zip(*values, strict=True)):
        tensors[f"{number}.lengths"] = torch.tensor([len(keys) for keys, _ in pairs])
        for name, parts in zip(("k", "v"), zip(*pairs, strict=True), strict=True):
            tensors[f"{number}.{name}"] = torch.cat(parts)
    return tensors


def unpack(saved: SavedEdits, adapters: int, device: torch.device) -> list[Values]:
    """What :func:`pack` made, by edit.

    Raises:
        CheckpointError: something is missing or does not fit.
    """
    found: list[Values] = [[] for _ in saved.edits]
    try:
        for number in range(adapters if found else 0):
            lengths = saved.tensors[f"{number}.lengths"].tolist()
            parts = [saved.tensors[f"{number}.{name}"].to(device).split(lengths) for name in "kv"]
            for values, keys_and_values in zip(found, zip(*parts, strict=True), strict=True):
                values.append(keys_and_values)
    except (KeyError, RuntimeError, ValueError) as error:
        raise saved.damaged(error) from error
    return found
