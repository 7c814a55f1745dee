"""The edits in force: their ids and order, and what a method keeps beside each of them.

An editor has one :class:`EditStore`. A change makes a new :class:`InForce` and leaves the old one
as it was, so that a call that has begun goes on with the edits that were in force then, whatever
other threads add or remove.

Shapes: N edits in force, n edits of a call, Z width of a key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..core.registry import did_you_mean
from ..data.records import Question
from .edit_file import SavedEdits, write_edits
from .keys import Keys, KeyTable, Metric
from .newest import Newer, Succession, age

Value = TypeVar("Value")
Same: TypeAlias = Callable[[Tensor, Tensor], Iterable[tuple[int, int]]]
_FAN, _DEPTH = 64, 4  # a digit's values; the levels above the dictionaries of values
_SHIFTS = range(6 * _DEPTH, 0, -6)
_ALIKE = 16  # among so many nearest edits one of the same meaning is looked for, where all are many


class Kept(NamedTuple):
    """What a method keeps of n edits: keys ``[n, Z]`` that questions are compared with, and for
    each edit anything else."""

    keys: Tensor | None = None
    payloads: Sequence[Any] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        """What is kept of the edits of all ``parts``."""
        if len(parts) == 1:
            return parts[0]
        keys = [part.keys for part in parts if part.keys is not None]
        payloads = [p for part in parts for p in part.payloads or ()]
        return cls(torch.cat(keys) if keys else None, payloads or None)


class ById(Mapping[str, Value]):
    """Values by edit id, in the order of the ids' numbers; nothing in it changes.

    They are the leaves of a tree of small dictionaries, by the digits of an id's number. A copy
    that differs in one id has its own dictionaries on the way to it and shares all others.
    """

    def __init__(self, root: dict[Any, Any] | None = None, size: int = 0) -> None:
        self._root, self._size = root or {}, size

    def __getitem__(self, edit_id: str) -> Value:
        node = self._root
        try:
            for digit in _digits(edit_id):
                node = node[digit]
            return node[edit_id]
        except (TypeError, ValueError):  # no id at all
            raise KeyError(edit_id) from None

    def __iter__(self) -> Iterator[str]:
        return _leaves(self._root, _DEPTH)

    def __len__(self) -> int:
        return self._size

    def with_added(self, new: Iterable[tuple[str, Value]]) -> ById[Value]:
        """A copy with ``new``, whose numbers are higher than all others, in their order."""
        root, size = dict(self._root), self._size
        own, way, node = {id(root)}, None, root  # ``own``: dictionaries of the copy alone
        for edit_id, value in new:
            digits = _digits(edit_id)
            if digits != way:
                way, node = digits, _copied(root, digits, own)[-1]
            node[edit_id] = value
            size += 1
        return ById(root, size)

    def without(self, gone: Collection[str]) -> ById[Value]:
        """A copy without ``gone``, all of which are there."""
        root = dict(self._root)
        own = {id(root)}
        for edit_id in gone:
            digits = _digits(edit_id)
            nodes = [root, *_copied(root, digits, own)]
            del nodes[-1][edit_id]
            for digit, above, below in zip(digits[::-1], nodes[-2::-1], nodes[::-1], strict=False):
                if not below:
                    own.discard(id(below))
                    del above[digit]
        return ById(root, self._size - len(gone))


def _digits(edit_id: str) -> tuple[int, ...]:
    """All digits of the number but the lowest."""
    number = int(edit_id[1:])
    return tuple((number >> shift) & (_FAN - 1) for shift in _SHIFTS)


def _copied(node: dict[Any, Any], digits: Sequence[int], own: set[int]) -> list[dict[Any, Any]]:
    """The dictionaries on the way below ``node``, which are copied unless they are in ``own``."""
    found = []
    for digit in digits:
        below = node.get(digit)
        if below is None or id(below) not in own:
            below = node[digit] = dict(below or ())
            own.add(id(below))
        found.append(below)
        node = below
    return found


def _leaves(node: dict[Any, Any], depth: int) -> Iterator[str]:
    if not depth:
        yield from node
        return
    for below in node.values():
        yield from _leaves(below, depth - 1)


@dataclass(frozen=True, eq=False)
class InForce:
    """The edits in force at one moment. Nothing in it changes, except that ``derived`` grows.

    Attributes:
        edits: by id, in the order they came.
        payloads: by id, of a method that keeps any.
        table: the edits' keys, of a method that keeps any.
        newer: which of them later ones answer for, see :mod:`.newest`.
        derived: what a method has computed of just these edits and may need again.
    """

    edits: ById[Question]
    payloads: ById[Any]
    table: Keys
    newer: Newer = field(default_factory=dict)
    derived: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def ids(self) -> list[str]:
        """All ids, in order."""
        return list(self.edits)

    @cached_property
    def keys(self) -> Tensor:
        """``[N, Z]``, row i of the i-th edit."""
        return self.table.tensor

    @cached_property
    def places(self) -> dict[str, int]:
        """The row of :attr:`keys` by id."""
        return {edit_id: place for place, edit_id in enumerate(self.ids)}

    def seen_by(self, visible: Collection[str] | None) -> tuple[str, ...]:
        """The ids that a question may see, in order; others in ``visible`` are ignored."""
        if visible is not None and len(visible) < len(self.edits):
            seen = [i for i in dict.fromkeys(visible) if i in self.edits]
            return tuple(sorted(seen, key=age))
        return tuple(i for i in self.ids if visible is None or i in visible)


class EditStore:
    """Edits by id, in the order they came. Ids are ``e1``, ``e2``, ... and never used again.

    Adding and removing edits takes as long among a million as among a thousand.

    Args:
        width: Z; 0 for a method without keys.
        device: where the keys lie.
        same: of keys ``[n, Z]`` and ``[N, Z]`` the pairs of rows whose edits mean the same.
        metric: how keys are compared, see :class:`KeyTable`; ``None``: not by the table.
    """

    def __init__(
        self,
        width: int = 0,
        device: torch.device | str = "cpu",
        same: Same | None = None,
        *,
        metric: Metric | None = "dot",
    ) -> None:
        self._table = KeyTable(width, device, metric or "dot", approximate=metric is not None)
        self._now = InForce(ById(), ById(), self._table.snapshot())
        self._count, self._same, self._succession = 0, same, Succession()
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
        with self._changing() as now:
            ids = [f"e{self._count + i + 1}" for i in range(len(edits))]
            added = now.edits.with_added(zip(ids, edits, strict=True))
            payloads = now.payloads
            if kept.payloads is not None:
                payloads = payloads.with_added(zip(ids, kept.payloads, strict=True))
            table = now.table
            if width := self._table.width:
                if kept.keys is None:
                    raise ValueError(f"{len(edits)} edits need keys [{len(edits)}, {width}]")
                table = self._table.add(ids, kept.keys)
            newer = self._succession.add(
                dict(zip(ids, edits, strict=True)), self._meant(table, ids)
            )
            self._now = InForce(added, payloads, table, newer)
            self._count += len(edits)
        return ids

    def _meant(self, table: Keys, new: Sequence[str]) -> list[tuple[str, str]]:
        """The pairs (older, newer) of edits that mean the same, each newer one among ``new``."""
        if self._same is None or not new:
            return []
        keys = table.of(new)
        ids, rows = table.proposed(keys, _ALIKE)
        pairs = [(ids[j], new[i]) for i, j in self._same(keys, rows)]
        return [(older, newer) for older, newer in pairs if age(older) < age(newer)]

    def remove(self, ids: Collection[str]) -> list[Question]:
        """Take edits back and return them; the others keep their order and their keys' bits.

        Raises:
            KeyError: an id is not in force; nothing is removed then.
        """
        with self._changing() as now:
            gone = dict.fromkeys(ids)
            for edit_id in gone:
                if edit_id not in now.edits:
                    known = did_you_mean(str(edit_id), list(islice(now.edits, 20)))
                    raise KeyError(f"no edit {edit_id!r} in force; {known}")
            payloads = now.payloads.without(gone) if now.payloads else now.payloads
            table = self._table.remove(gone) if self._table.width else now.table
            newer = self._succession.remove(gone)
            self._now = InForce(now.edits.without(gone), payloads, table, newer)
            return [now.edits[i] for i in gone]

    @contextmanager
    def _changing(self) -> Iterator[InForce]:
        """One thread at a time; the edits in force. A change that is broken off was none."""
        with self._lock:
            try:
                yield self._now
            finally:
                self._table.back_to(self._now.table)

    # On disk ----------------------------------------------------------------------------------

    def save(self, folder: str | Path, made_by: str, tensors: Mapping[str, Tensor]) -> None:
        """Write the edits in force, their keys and ``tensors``; see :func:`write_edits`."""
        now, count = self.now, self._count  # ids only grow: a count read later is no less true
        keys = {"keys": now.keys} if now.keys.shape[1] else {}
        if now.newer:
            at = now.places
            links = [(at[older], at[i]) for older, later in now.newer.items() for i in later]
            keys["superseded"] = torch.tensor(links)
        write_edits(folder, now.edits, count, made_by, {**keys, **tensors})

    def replace(self, saved: SavedEdits, kept: Kept) -> list[Question]:
        """Put saved edits in force, under their ids, in place of all others; returns the latter."""
        ids, links = list(saved.edits), saved.tensors.get("superseded", torch.empty(0, 2)).tolist()
        if not all(
            isinstance(older, int) and 0 <= older < later < len(ids) for older, later in links
        ):
            raise saved.damaged("an edit supersedes one that did not come before it")
        with self._changing() as before:
            payloads = ById[Any]()
            if kept.payloads is not None:
                payloads = payloads.with_added(zip(ids, kept.payloads, strict=True))
            table = before.table
            if self._table.width:
                keys = before.keys[:0] if kept.keys is None else kept.keys
                table = self._table.replace(ids, keys)
            edits = ById[Question]().with_added(saved.edits.items())
            self._succession = Succession()
            newer = self._succession.add(saved.edits, [(ids[i], ids[j]) for i, j in links])
            self._now = InForce(edits, payloads, table, newer)
            self._count = max(self._count, saved.count)
            return list(before.edits.values())
