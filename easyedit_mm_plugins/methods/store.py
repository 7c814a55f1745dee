"""The edits in force: their ids and order, and what a method keeps beside each of them.

An editor has one :class:`EditStore`. A change makes a new :class:`InForce` and leaves the old one
as it was, so that a call that has begun goes on with the edits that were in force then, whatever
other threads add or remove.

Shapes: N edits in force, n edits of a call, Z width of a key.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.registry import did_you_mean
from ..data.records import Question
from .edit_file import SavedEdits, write_edits


class Kept(NamedTuple):
    """What a method keeps of n edits: keys ``[n, Z]`` that questions are compared with, and for
    each edit anything else."""

    keys: Tensor | None = None
    payloads: Sequence[Any] | None = None


@dataclass(frozen=True, eq=False)
class InForce:
    """The edits in force at one moment. Nothing in it changes, except that ``derived`` grows.

    Attributes:
        edits: by id, in the order they came.
        payloads: by id, of a method that keeps any.
        keys: ``[N, Z]``, row i of the i-th edit.
        derived: what a method has computed of just these edits and may need again.
    """

    edits: Mapping[str, Question]
    payloads: Mapping[str, Any]
    keys: Tensor
    derived: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[str]:
        """All ids, in order."""
        return list(self.edits)

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of :attr:`keys` by id."""
        return {edit_id: place for place, edit_id in enumerate(self.edits)}

    def seen_by(self, visible: Collection[str] | None) -> tuple[str, ...]:
        """The ids that a question may see, in order; others in ``visible`` are ignored."""
        return tuple(i for i in self.ids if visible is None or i in visible)


class EditStore:
    """Edits by id, in the order they came. Ids are ``e1``, ``e2``, ... and never used again.

    Args:
        width: Z; 0 for a method without keys.
        device: where the keys lie.
    """

    def __init__(self, width: int = 0, device: torch.device | str = "cpu") -> None:
        self._rows = torch.empty(0, width, device=device)  # with room for further keys
        self._now = InForce({}, {}, self._rows)
        self._earlier: weakref.WeakSet[InForce] = weakref.WeakSet()  # may still read the rows
        self._count = 0
        self._lock, self._here = threading.RLock(), threading.local()

    @property
    def now(self) -> InForce:
        """The edits in force; within :meth:`held`, those that were when the block began."""
        held = getattr(self._here, "held", None)
        return self._now if held is None else held

    @contextmanager
    def held(self) -> Iterator[InForce]:
        """Inside the block :attr:`now` stays the same for this thread."""
        before, self._here.held = getattr(self._here, "held", None), self.now
        try:
            yield self._here.held
        finally:
            self._here.held = before

    def add(self, edits: Sequence[Question], kept: Kept = Kept()) -> list[str]:  # noqa: B008
        """Put ``edits`` in force, with what is kept of them; all or none. Returns their ids."""
        with self._lock:
            now, start = self._now, len(self._now.edits)
            ids = [f"e{self._count + i + 1}" for i in range(len(edits))]
            new = dict(zip(ids, edits, strict=True))
            payloads = now.payloads
            if kept.payloads is not None:
                payloads = {**payloads, **dict(zip(ids, kept.payloads, strict=True))}
            end = start + len(edits)
            if width := self._rows.shape[1]:
                if kept.keys is None or kept.keys.shape != (len(edits), width):
                    raise ValueError(f"{len(edits)} edits need keys [{len(edits)}, {width}]")
                self._make_room(start, end)
                self._rows[start:end] = kept.keys.detach().to(self._rows)
            self._now = InForce({**now.edits, **new}, payloads, self._rows[:end])
            self._count += len(edits)
        return ids

    def _make_room(self, start: int, end: int) -> None:
        """Rows up to ``end``, of which nobody reads those from ``start`` on.

        They grow by doubling, so that adding one edit does not copy a thousand others.
        """
        read = any(len(earlier.edits) > start for earlier in self._earlier)
        if end > len(self._rows) or read:
            room = len(self._rows) if end <= len(self._rows) else max(16, end, 2 * len(self._rows))
            grown = self._rows.new_empty(room, self._rows.shape[1])
            grown[:start] = self._now.keys
            self._rows = grown
            self._earlier.clear()

    def remove(self, ids: Collection[str]) -> list[Question]:
        """Take edits back and return them; the others keep their order and their keys' bits.

        Raises:
            KeyError: an id is not in force; nothing is removed then.
        """
        with self._lock:
            now, gone = self._now, dict.fromkeys(ids)
            for edit_id in gone:
                if edit_id not in now.edits:
                    known = did_you_mean(str(edit_id), now.ids[:20])
                    raise KeyError(f"no edit {edit_id!r} in force; {known}")
            stay = {i: edit for i, edit in now.edits.items() if i not in gone}
            payloads = {i: kept for i, kept in now.payloads.items() if i not in gone}
            latest = islice(reversed(now.ids), len(gone))
            if not self._rows.shape[1] or all(i in gone for i in latest):
                self._earlier.add(now)  # their rows lie behind the others'
            else:
                self._rows = self._rows[[now.places[i] for i in stay]]
                self._earlier.clear()
            self._now = InForce(stay, payloads, self._rows[: len(stay)])
            return [now.edits[i] for i in gone]

    # On disk ----------------------------------------------------------------------------------

    def save(self, folder: str | Path, made_by: str, tensors: Mapping[str, Tensor]) -> None:
        """Write the edits in force, their keys and ``tensors``; see :func:`write_edits`."""
        now, count = self.now, self._count  # ids only grow: a count read later is no less true
        keys = {"keys": now.keys} if now.keys.shape[1] else {}
        write_edits(folder, now.edits, count, made_by, {**keys, **tensors})

    def replace(self, saved: SavedEdits, kept: Kept) -> list[Question]:
        """Put saved edits in force, under their ids, in place of all others; returns the latter."""
        with self._lock:
            before = self._now
            keys = before.keys[:0] if kept.keys is None else kept.keys
            self._rows = keys.detach().to(self._rows, copy=True)
            self._earlier.clear()
            payloads: dict[str, Any] = {}
            if kept.payloads is not None:
                payloads = dict(zip(saved.edits, kept.payloads, strict=True))
            self._now = InForce(saved.edits, payloads, self._rows)
            self._count = max(self._count, saved.count)
            return list(before.edits.values())
