"""What DualEdit keeps of an edit: the gate's key; and keys and values for every adapter, as long
as there is room.

An edit sample goes through the base model when it is added. What the adapters take from it is large
(5 MB an edit of LLaVA-7B), is needed only where the edit is hit, and can be made again from the
edit: it is kept within a budget of bytes, and made again where it was pushed out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.lru import LRU
from ..base import Visible
from ..routed import Hit
from ..store import InForce
from .adapters import pad_memory

# For each adapter an edit's keys and values, [N, A or D] each.
Values = list[tuple[Tensor, Tensor]]
_LEAST, _SHARE = 16 * 2**20, 8


class Sample:
    """Stands for one edit's values, wherever they are."""

    __slots__ = ("__weakref__",)


class Memory:
    """Values of edit samples within a budget; the longest unused are pushed out.

    Args:
        model: the base model, an eighth of whose size the budget is; at least 16 MiB.

    Attributes:
        kept: by :class:`Sample`; ``kept.limit`` is the budget in bytes and may be changed.
    """

    def __init__(self, model: nn.Module) -> None:
        size = sum(p.nbytes for p in model.parameters())
        self.kept: LRU[Values] = LRU(max(_LEAST, size // _SHARE), size_of)

    def lacking(self, samples: Sequence[Sample], held: dict[Sample, Values]) -> list[Sample]:
        """Put what is kept of ``samples`` into ``held``; those that are not kept."""
        for sample in samples:
            if sample not in held and (values := self.kept.get(sample)) is not None:
                held[sample] = values
        return [sample for sample in dict.fromkeys(samples) if sample not in held]


def size_of(values: Values) -> int:
    """Bytes."""
    return sum(tensor.nbytes for pair in values for tensor in pair)


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


def gather(chosen: Sequence[Values]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each adapter keys, values and mask of these edits, see :func:`pad_memory`."""
    return [pad_memory([v[number] for v in chosen]) for number in range(len(chosen[0]))]
