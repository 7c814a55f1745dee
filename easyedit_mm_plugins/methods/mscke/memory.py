"""The multimodal edit memory (MSCKE section 3.2): each edit encoded once, looked up by one product.

The paper's eq. 1 takes the arg min of a similarity; the arg max is meant, and taken here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import CheckpointError, ConfigError
from ...core.files import atomic_path
from ...core.registry import did_you_mean
from ...data import ImageLike, Question, open_image
from ..checkpoint import (
    check_checksums,
    read_config,
    read_tensors,
    save_tensors,
    write_checked,
)
from ..routed import Hit

# Queries [B, Z] and keys [N, Z] to rho [B, N].
Similarity = Callable[[Tensor, Tensor], Tensor]


class EditMemory:
    """Edits by id, in the order they came, with their features in one contiguous matrix.

    Args:
        dim: Z, the width of the features.
        device: where the features lie.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self._buffer = torch.empty(0, dim, device=device)
        self._edits: dict[str, Question] = {}
        self._ids: list[str] = []
        self._places: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._edits)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._edits

    def __getitem__(self, edit_id: str) -> Question:
        return self._edits[edit_id]

    @property
    def edits(self) -> dict[str, Question]:
        """All edits by id, oldest first (a copy)."""
        return dict(self._edits)

    @property
    def keys(self) -> Tensor:
        """Features ``z_e [N, Z]``, row i of the i-th edit; a view, not a copy."""
        return self._buffer[: len(self._edits)]

    def add(self, edits: Sequence[Question], features: Tensor) -> list[str]:
        """Store ``edits`` with their ``features [n, Z]``; returns new ids, never used before.

        The matrix grows by doubling, so adding one edit does not copy a thousand others.
        """
        start, n = len(self._edits), len(edits)
        if start + n > len(self._buffer):
            room = max(16, start + n, 2 * len(self._buffer))
            grown = self._buffer.new_empty(room, self._buffer.shape[1])
            grown[:start] = self.keys
            self._buffer = grown
        self._buffer[start : start + n] = features.detach().to(self._buffer)
        ids = [f"e{self._count + i + 1}" for i in range(n)]
        self._count += n
        for place, (edit_id, edit) in enumerate(zip(ids, edits, strict=True), start):
            self._edits[edit_id], self._places[edit_id] = edit, place
        self._ids += ids
        return ids

    def remove(self, ids: Collection[str]) -> list[Question]:
        """Forget edits and return them; the others keep their order and their features' bits.

        Raises:
            KeyError: an id is not in the memory; nothing is removed then.
        """
        gone = list(dict.fromkeys(ids))
        for edit_id in gone:
            if edit_id not in self._edits:
                known = did_you_mean(str(edit_id), list(self._edits)[:20])
                raise KeyError(f"no edit {edit_id!r} in force; {known}")
        removed = [self._edits.pop(i) for i in gone]
        if self._ids[len(self._ids) - len(gone) :] != gone:  # not just the latest: close the gaps
            stay = [self._places[i] for i in self._edits]
            self._buffer[: len(stay)] = self._buffer[stay]
        self._ids = list(self._edits)
        self._places = {i: place for place, i in enumerate(self._ids)}
        return removed

    @property
    def ids(self) -> Sequence[str]:
        """The ids in force, in the order of :attr:`keys`; not a copy."""
        return self._ids

    def clear(self) -> None:
        """Forget all edits."""
        self.remove(list(self._edits))

    def lookup(
        self,
        queries: Tensor,
        similarity: Similarity,
        visible: Sequence[Collection[str]] | None = None,
        *,
        alone: bool = False,
    ) -> list[Hit]:
        """The most similar edit of each query (eq. 1-2), by one product.

        Args:
            queries: z_test ``[B, Z]``.
            similarity: rho of queries and keys.
            visible: for each query the ids that it may see; None: all. Others are ignored, also
                ids that are no longer in force.
            alone: compare each query by itself with just the edits that it may see, for a
                similarity that depends on what it is computed with (the release's fusion).

        Raises:
            ConfigError: ``visible`` has another length than ``queries``.
        """
        if visible is not None and len(visible) != len(queries):
            raise ConfigError(f"visible has {len(visible)} rows for {len(queries)} questions")
        if not len(self) or not len(queries):
            return [Hit(None, 0.0)] * len(queries)
        if alone and (len(queries) > 1 or visible is not None):
            return [
                self._alone(queries[i : i + 1], similarity, None if visible is None else visible[i])
                for i in range(len(queries))
            ]
        rho = similarity(queries, self.keys)
        if visible is not None:
            seen = torch.zeros(rho.shape, dtype=torch.bool)
            for row, ids in enumerate(visible):
                seen[row, [self._places[i] for i in ids if i in self._places]] = True
            rho = rho.masked_fill(~seen.to(rho.device), -1.0)
        scores, places = rho.max(-1)
        return [
            Hit(None, 0.0) if score < 0 else Hit(self._ids[place], score)
            for score, place in zip(scores.tolist(), places.tolist(), strict=True)
        ]

    def _alone(self, query: Tensor, similarity: Similarity, visible: Collection[str] | None) -> Hit:
        seen = [i for i in self._ids if visible is None or i in visible]
        if not seen:
            return Hit(None, 0.0)
        score, place = similarity(query, self.keys[[self._places[i] for i in seen]])[0].max(-1)
        return Hit(seen[int(place)], float(score))

    def save(self, folder: str | Path, *, classifier: str, further: Sequence[Path] = ()) -> None:
        """Write ``memory.safetensors`` and ``memory.json`` (and images that have no path as PNG).

        Args:
            classifier: fingerprint of the classifier that made the features.
            further: files that belong to this memory, see :func:`write_checked`.
        """
        folder = Path(folder)
        save_tensors(folder / "memory.safetensors", {"keys": self.keys})
        entries = [
            {"id": i, "text": e.text, "answer": e.answer, "image": _image(e.image, folder, i)}
            for i, e in self._edits.items()
        ]
        values = {"classifier": classifier, "count": self._count, "edits": entries}
        pictures = [folder / e["image"]["file"] for e in entries if "file" in (e["image"] or {})]
        files = [folder / "memory.safetensors", *pictures, *further]
        write_checked(folder / "memory.json", values, files)

    @classmethod
    def load(
        cls, folder: str | Path, *, classifier: str, device: torch.device | str = "cpu"
    ) -> EditMemory:
        """A memory saved by :meth:`save`; nothing is encoded again.

        Raises:
            CheckpointError: a file is missing or damaged, or another classifier made the features.
        """
        folder = Path(folder)
        saved = read_config(folder / "memory.json", ("classifier", "count", "edits"))
        if saved["classifier"] != classifier:
            raise CheckpointError(
                f"{folder / 'memory.json'} was made by scope classifier {saved['classifier']}, "
                f"this one is {classifier}",
                remedy="load the editor that made it, or add the edits again",
            )
        check_checksums(folder / "memory.json", saved)
        keys = read_tensors(folder / "memory.safetensors").get("keys")
        if keys is None or keys.ndim != 2 or len(keys) != len(saved["edits"]):
            raise CheckpointError(
                f"{folder / 'memory.safetensors'} does not fit memory.json",
                remedy="add the edits again",
            )
        memory = cls(keys.shape[1], device)
        edits = [
            Question(e["text"], _place(e["image"], folder), e["answer"]) for e in saved["edits"]
        ]
        memory.add(edits, keys)
        memory._ids = [e["id"] for e in saved["edits"]]
        memory._edits = dict(zip(memory._ids, edits, strict=True))
        memory._places = {i: place for place, i in enumerate(memory._ids)}
        memory._count = saved["count"]
        return memory


def _image(image: ImageLike, folder: Path, edit_id: str) -> dict[str, str] | None:
    if image is None:
        return None
    if isinstance(image, (str, Path)):
        return {"path": str(image)}
    with atomic_path(folder / f"{edit_id}.png") as temporary:
        open_image(image).save(temporary, format="PNG")
    return {"file": f"{edit_id}.png"}


def _place(image: dict[str, str] | None, folder: Path) -> Path | None:
    if image is None:
        return None
    return Path(image["path"]) if "path" in image else folder / image["file"]
