"""The edits in force: the gate's key of each, and its keys and values for every adapter.

An edit sample goes through the base model once, when it is added; a query costs one product with
the matrix of gate keys, whatever the number of edits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from ...core.errors import CheckpointError
from ...data import Question
from ..checkpoint import read_config, read_tensors, save_tensors
from ..mscke.memory import EditMemory
from ..routed import Hit
from .adapters import pad_memory

_FEW = 4096
_TINY = 1e-12  # as torch.nn.functional.normalize has it
# For each adapter an edit's keys and values, [N, A or D] each.
Values = list[tuple[Tensor, Tensor]]


class DualMemory:
    """Edits by id, in the order they came.

    Args:
        hidden: D, the size of a gate key.
        device: where keys and values lie.
    """

    def __init__(self, hidden: int, device: torch.device | str = "cpu") -> None:
        self.index = EditMemory(hidden, device)
        self.values: dict[str, Values] = {}

    def __len__(self) -> int:
        return len(self.index)

    @property
    def edits(self) -> dict[str, Question]:
        """All edits by id, oldest first (a copy)."""
        return self.index.edits

    def add(self, edits: Sequence[Question], keys: Tensor, values: Sequence[Values]) -> list[str]:
        """Store edits with their gate keys ``[n, D]``; returns new ids, never used before."""
        ids = self.index.add(edits, torch.nn.functional.normalize(keys.float(), dim=-1))
        self.values |= dict(zip(ids, values, strict=True))
        return ids

    def remove(self, ids: Collection[str]) -> None:
        """Forget edits.

        Raises:
            KeyError: an id is not in force; nothing is removed then.
        """
        ids = list(dict.fromkeys(ids))
        self.index.remove(ids)
        for edit_id in ids:
            del self.values[edit_id]

    def nearest(
        self, queries: Tensor, visible: Sequence[Collection[str]] | None = None
    ) -> list[Hit]:
        """For each query ``[B, D]`` the visible edit of highest cosine, and that cosine (eq. 4).

        ``id`` is ``None`` where a query may see no edit.

        Raises:
            ConfigError: ``visible`` has another length than ``queries``.
        """
        if visible is None and len(self.index) and len(queries):  # nothing to mask
            # Keys are of unit length; the queries' lengths divide numbers, not tensors.
            queries = queries.float()
            lengths = torch.linalg.vector_norm(queries, dim=-1).tolist()
            found = zip(lengths, *_highest(queries @ self.index.keys.T), strict=True)
            return [Hit(self.index.ids[i], _clamped(p / max(n, _TINY))) for n, p, i in found]
        hits = self.index.lookup(queries, _unit_cosine, visible)
        return [Hit(None, 0.0) if h.id is None else Hit(h.id, 2 * h.score - 1) for h in hits]

    def gather(self, ids: Sequence[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each adapter keys, values and mask of these edits, see :func:`pad_memory`."""
        chosen = [self.values[i] for i in ids]
        return [pad_memory([v[number] for v in chosen]) for number in range(len(chosen[0]))]

    def save(self, folder: str | Path, *, editor: str) -> None:
        """Write ``memory.safetensors``, ``memory.json`` and ``values.safetensors``.

        Args:
            editor: fingerprint of the editor that made keys and values.
        """
        folder = Path(folder)
        tensors = {
            f"{edit_id}.{number}.{name}": tensor
            for edit_id, values in self.values.items()
            for number, pair in enumerate(values)
            for name, tensor in zip(("k", "v"), pair, strict=True)
        }
        save_tensors(folder / "values.safetensors", tensors)
        self.index.save(folder, classifier=editor, further=[folder / "values.safetensors"])

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        editor: str,
        adapters: int,
        device: torch.device | str = "cpu",
    ) -> Self:
        """A memory saved by :meth:`save`; nothing is encoded again.

        Raises:
            CheckpointError: a file is missing or damaged, or another editor made it.
        """
        folder = Path(folder)
        made_by = read_config(folder / "memory.json", ("classifier",))["classifier"]
        if made_by != editor:
            raise CheckpointError(
                f"{folder / 'memory.json'} was made by DualEdit editor {made_by}, this one is "
                f"{editor}",
                remedy="load the editor that made it, or add the edits again",
            )
        index = EditMemory.load(folder, classifier=editor, device=device)
        tensors = read_tensors(folder / "values.safetensors")
        memory = cls(index.keys.shape[1], device)
        memory.index = index
        try:
            memory.values = {
                edit_id: [
                    tuple(tensors[f"{edit_id}.{number}.{name}"].to(device) for name in ("k", "v"))
                    for number in range(adapters)
                ]
                for edit_id in index.edits
            }
        except KeyError as error:
            raise CheckpointError(
                f"{folder / 'values.safetensors'} lacks {error}", remedy="add the edits again"
            ) from None
        return memory


def _highest(products: Tensor) -> tuple[list[float], list[int]]:
    """The highest of each row ``[B, N]``, and where it stands."""
    if products.numel() > _FEW:
        values, places = products.max(-1)
        return values.tolist(), places.tolist()
    rows = products.tolist()  # of a few numbers the highest is found before a kernel starts
    values = [max(row) for row in rows]
    return values, [row.index(value) for row, value in zip(rows, values, strict=True)]


def _clamped(cosine: float) -> float:
    return max(-1.0, min(1.0, cosine))


def _unit_cosine(queries: Tensor, keys: Tensor) -> Tensor:
    """(1 + cosine) / 2 of ``[B, D]`` with unit keys ``[N, D]``: what the index can hold, 0 to 1."""
    return ((1 + _cosine(queries, keys)) / 2).clamp(0, 1)


def _cosine(queries: Tensor, keys: Tensor) -> Tensor:
    return torch.nn.functional.normalize(queries.float(), dim=-1) @ keys.T
