"""A table of keys, one row an edit: adding, removing and reading cost the same at any size.

Rows are appended; a removed row is marked with the moment of its removal and stays where it is. A
snapshot is a length and a moment, so that taking one copies nothing, and whatever happens to the
table afterwards, it sees the rows that were there. Rows that nobody can see any more are written
over at the end of the table, and left out when they are more than the others.

Queries are compared with all keys, or, where there are many and the extra ``index`` is installed,
with those that an approximate index proposes and the latest, which it does not hold yet.

Shapes: N keys, B queries, Z width of a key.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from .key_index import KeyIndex, available
from .newest import age

Metric = Literal["dot", "distance"]
_ALIVE = np.iinfo(np.int64).max  # the moment of a removal that has not come
_SPARE = 256  # so many removed rows are always kept
INDEX_FROM = 16_384  # so many keys, on a CPU: below, comparing with all takes less than the index
_LATEST = 2048  # so many rows at most are not in the index
_PROPOSED = 32  # by the index for each query, at least
_TIE = 1e-6  # scores that differ by less, or by this part of them, are equal


class Near(NamedTuple):
    """A key that was found: its edit's id, and the score of the comparison."""

    id: str
    score: float


def dot(queries: Tensor, keys: Tensor) -> Tensor:
    """Products ``[B, N]``; of unit vectors the cosine."""
    return queries @ keys.T


def distance(queries: Tensor, keys: Tensor) -> Tensor:
    """Minus the squared distances ``[B, N]``."""
    # Differences, not |a|^2 + |b|^2 - 2ab: of near and long vectors that leaves rounding.
    return -torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist").square()


METRICS: dict[Metric, Callable[[Tensor, Tensor], Tensor]] = {"dot": dot, "distance": distance}


class _Indexed(NamedTuple):
    """The rows before ``end`` in an index, and the row (or -1) of each of its first positions."""

    within: KeyIndex
    rows: np.ndarray
    end: int


class _Rows:
    """What the snapshots of a table share: only ever longer, but for rows that nobody sees."""

    def __init__(self, keys: Tensor, ids: list[str]) -> None:
        self.keys, self.ids = keys, ids
        self.row_of = {edit_id: row for row, edit_id in enumerate(ids)}
        self.removed = np.full(len(keys), _ALIVE)
        self.indexed: _Indexed | None = None

    def append(self, start: int, ids: Sequence[str], keys: Tensor) -> None:
        """Rows from ``start`` on, of which nobody sees those that are there."""
        for edit_id in self.ids[start:]:
            del self.row_of[edit_id]
        del self.ids[start:]
        if self.indexed and start < self.indexed.end:
            index, rows, _ = self.indexed
            self.indexed = _Indexed(index, np.where(rows < start, rows, -1), start)
        end = start + len(ids)
        if end > len(self.keys):  # by doubling, so that one more row does not copy all others
            room = max(16, end, 2 * len(self.keys))
            grown, removed = self.keys.new_empty(room, keys.shape[1]), np.full(room, _ALIVE)
            grown[:start], removed[:start] = self.keys[:start], self.removed[:start]
            self.keys, self.removed = grown, removed
        self.keys[start:end], self.removed[start:end] = keys, _ALIVE
        self.ids += ids
        self.row_of.update(zip(ids, range(start, end), strict=True))

    def update_index(self, end: int, metric: Metric) -> None:
        """Let the index hold all but the latest rows; it is made anew when there are many more."""
        if self.keys.device.type != "cpu" or end < INDEX_FROM or not available():
            return
        index, rows, start = self.indexed or (None, np.empty(0, int), 0)
        if index is None or end > 4 * index.learned or index.count > 2 * end:
            made = KeyIndex(self.keys[:end], metric)
            self.indexed = _Indexed(made, np.arange(end), end)
        elif end > start + _LATEST:
            blank = np.full(index.count - len(rows), -1)  # rows of a table that was copied
            index.add(self.keys[start:end])
            rows = np.concatenate([rows, blank, np.arange(start, end)])
            self.indexed = _Indexed(index, rows, end)

    def without(self, alive: np.ndarray, keys: Tensor, ids: list[str]) -> _Rows:
        """A copy: ``keys`` and ``ids`` of the rows that are ``alive``, with the same index."""
        copy = _Rows(keys.clone(), list(ids))  # a snapshot keeps those, and rows are written over
        if self.indexed and len(ids) >= INDEX_FROM // 2:
            index, rows, end = self.indexed
            number = np.append(np.where(alive, alive.cumsum() - 1, -1), -1)
            rows = number[np.minimum(rows, len(alive))]
            copy.indexed = _Indexed(index, rows, int(alive[:end].sum()))
        return copy


class Keys:
    """The keys of a :class:`KeyTable` at one moment; nothing in it changes.

    Attributes:
        metric: how keys are compared.
    """

    def __init__(self, rows: _Rows, length: int, moment: int, size: int, metric: Metric) -> None:
        self._rows, self._length, self._moment, self._size = rows, length, moment, size
        self.metric = metric

    def __len__(self) -> int:
        return self._size

    def __contains__(self, edit_id: object) -> bool:
        return self._row(edit_id) is not None

    @cached_property
    def ids(self) -> list[str]:
        """All ids, in the order they came."""
        ids = self._rows.ids
        return ids[: self._length] if self._whole else [ids[i] for i in self._alive().nonzero()[0]]

    @cached_property
    def tensor(self) -> Tensor:
        """All keys ``[N, Z]``, in the order they came; a view where no removed row lies between."""
        keys = self._rows.keys[: self._length]
        return keys if self._whole else keys[torch.from_numpy(self._alive()).to(keys.device)]

    def of(self, ids: Sequence[str]) -> Tensor:
        """The keys ``[n, Z]`` of these edits.

        Raises:
            KeyError: there is none of that id.
        """
        rows = [self._row(edit_id) for edit_id in ids]
        if None in rows:
            raise KeyError(ids[rows.index(None)])
        return self._rows.keys[rows]

    def seen(self, visible: Sequence[Collection[str]] | None = None) -> tuple[list[str], Tensor]:
        """The ids, oldest first, and the keys ``[n, Z]`` that any of several queries may see."""
        if visible is None:
            return self.ids, self.tensor
        ids = sorted({i for own in visible for i in own if i in self}, key=age)
        return ids, self.of(ids) if ids else self.tensor[:0]

    def proposed(self, queries: Tensor, k: int) -> tuple[list[str], Tensor]:
        """As :meth:`seen`, of very many keys only those that are among the ``k`` nearest of one of
        ``queries [B, Z]``: for who compares by more than the metric."""
        if len(self) < INDEX_FROM:
            return self.seen()
        return self.seen([[near.id for near in own] for own in self.nearest(queries, k=k)])

    def nearest(
        self,
        queries: Tensor,
        visible: Sequence[Collection[str]] | None = None,
        k: int = 1,
    ) -> list[list[Near]]:
        """For each query ``[B, Z]`` the ``k`` best keys, best first; fewer where it sees fewer.

        Of equal ones the newest comes first.

        Args:
            queries: compared with the keys as they are: who wants cosines gives unit vectors.
            visible: for each query the ids that it may see; others in it are ignored. None: all.
            k: how many.

        Raises:
            ConfigError: ``visible`` has another length than ``queries``.
        """
        if visible is not None and len(visible) != len(queries):
            raise ConfigError(f"visible has {len(visible)} rows for {len(queries)} questions")
        if not self._size or not len(queries):
            return [[] for _ in queries]
        queries = queries.to(self._rows.keys)
        return self._all(queries, k) if visible is None else self._some(queries, visible, k)

    def _all(self, queries: Tensor, k: int) -> list[list[Near]]:
        if (indexed := self._rows.indexed) is not None:
            return self._proposed(indexed, queries, k)
        return self._each(queries, k)

    def _proposed(self, indexed: _Indexed, queries: Tensor, k: int) -> list[list[Near]]:
        """The best of what the index proposes and of the latest rows."""
        removed = self._rows.removed
        positions = indexed.within.search(queries, max(_PROPOSED, 4 * k))
        known = (positions >= 0) & (positions < len(indexed.rows))
        rows = np.where(known, indexed.rows[np.where(known, positions, 0)], -1)
        rows = np.where(rows < self._length, rows, -1)
        rows = np.where(removed[rows] > self._moment, rows, -1)
        latest = np.arange(indexed.end, self._length)
        latest = latest[removed[latest] > self._moment]
        chosen = np.unique(np.concatenate([rows[rows >= 0], latest]))
        lacking = (rows >= 0).sum(1) + len(latest) < min(k, self._size)
        if lacking.any() or not len(chosen):  # nearly all that it proposed was removed
            return self._each(queries, k)
        scores = METRICS[self.metric](queries, self._rows.keys[torch.from_numpy(chosen)])
        return self._ranked(scores, chosen.tolist(), k)

    def _each(self, queries: Tensor, k: int) -> list[list[Near]]:
        scores = METRICS[self.metric](queries, self._rows.keys[: self._length])
        if not self._whole:
            removed = torch.from_numpy(~self._alive()).to(scores.device)
            scores = scores.masked_fill(removed, float("-inf"))
        return self._ranked(scores, None, k)

    def _some(
        self, queries: Tensor, visible: Sequence[Collection[str]], k: int
    ) -> list[list[Near]]:
        own = [[r for i in ids if (r := self._row(i)) is not None] for ids in visible]
        rows = sorted({row for seen in own for row in seen})
        if not rows:
            return [[] for _ in queries]
        scores = METRICS[self.metric](queries, self._rows.keys[rows])
        place = {row: at for at, row in enumerate(rows)}
        hidden = torch.ones(scores.shape, dtype=torch.bool)
        for number, seen in enumerate(own):
            hidden[number, [place[row] for row in seen]] = False
        scores = scores.masked_fill(hidden.to(scores.device), float("-inf"))
        return self._ranked(scores, rows, k)

    def _ranked(self, scores: Tensor, rows: Sequence[int] | None, k: int) -> list[list[Near]]:
        """The best of ``scores [B, n]``, whose columns are ``rows``, older ones first."""
        k = min(k, scores.shape[1])
        least = scores.topk(k, -1).values[:, -1:] if k > 1 else scores.max(-1, keepdim=True).values
        chosen = scores >= least - _TIE * least.abs().clamp(1, 1e30)
        chosen &= scores > float("-inf")
        found: list[list[Near]] = [[] for _ in scores]
        values = scores[chosen].cpu().numpy()
        numbers, columns = chosen.cpu().numpy().nonzero()
        for number, near in enumerate(found):
            own = numbers == number
            left, at = values[own], columns[own]
            while len(left) and len(near) < k:
                best = left.max()
                newest = int((left >= best - _TIE * max(1.0, abs(best))).nonzero()[0][-1])
                column = int(at[newest])
                row = column if rows is None else rows[column]
                near.append(Near(self._rows.ids[row], float(left[newest])))
                left, at = np.delete(left, newest), np.delete(at, newest)
        return found

    @property
    def _whole(self) -> bool:
        return self._size == self._length

    def _alive(self) -> np.ndarray:
        return self._rows.removed[: self._length] > self._moment

    def _row(self, edit_id: object) -> int | None:
        row = self._rows.row_of.get(edit_id)  # type: ignore[call-overload]
        seen = row is not None and row < self._length and self._rows.removed[row] > self._moment
        return row if seen else None


class KeyTable:
    """Keys by id. Any number of threads may read snapshots while one adds and removes.

        table = KeyTable(64)
        table.add(["e1", "e2"], keys)                   # [2, 64]
        table.snapshot().nearest(queries)[0][0].id      # of query 0 the nearest edit
        table.remove(["e1"])

    Args:
        width: Z.
        device: where the keys lie.
        metric: "dot" or "distance"; the highest product or the least distance is nearest.
        approximate: use the index where it pays.
    """

    def __init__(
        self,
        width: int,
        device: torch.device | str = "cpu",
        metric: Metric = "dot",
        *,
        approximate: bool = True,
    ) -> None:
        self.width, self.metric, self.approximate = width, metric, approximate
        self._now = Keys(_Rows(torch.empty(0, width, device=device), []), 0, 0, 0, metric)
        self._earlier: weakref.WeakSet[Keys] = weakref.WeakSet()  # may still be read
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._now)

    def snapshot(self) -> Keys:
        """The keys as they are now; costs nothing."""
        return self._now

    def add(self, ids: Sequence[str], keys: Tensor) -> Keys:
        """Append ``keys [n, Z]`` under new ids; returns the new snapshot.

        Raises:
            ValueError: the keys have another shape, or values that are not finite.
        """
        if keys.shape != (len(ids), self.width):
            raise ValueError(f"{len(ids)} edits need keys [{len(ids)}, {self.width}]")
        if not keys.isfinite().all():
            raise ValueError("keys hold values that are not finite")
        with self._lock:
            now = self._now
            rows = now._rows
            readers = [e._length for e in self._earlier if e._rows is rows]
            start = max([now._length, *readers])
            rows.append(start, list(ids), keys.detach().to(rows.keys))
            if self.approximate:
                rows.update_index(start + len(ids), self.metric)
            self._become(rows, start + len(ids), now._moment, len(now) + len(ids))
            return self._now

    def remove(self, ids: Collection[str]) -> Keys:
        """Remove the keys of ``ids``; returns the new snapshot.

        Raises:
            KeyError: there is none of that id; nothing is removed then.
        """
        with self._lock:
            now, gone = self._now, list(dict.fromkeys(ids))
            if unknown := next((i for i in gone if i not in now), None):
                raise KeyError(unknown)
            rows, moment, length = now._rows, now._moment + 1, now._length
            rows.removed[[rows.row_of[i] for i in gone]] = moment
            while length and rows.removed[length - 1] <= moment:
                length -= 1
            size = len(now) - len(gone)
            self._become(rows, length, moment, size)
            if length > 2 * size + _SPARE:
                fresh = rows.without(self._now._alive(), self._now.tensor, self._now.ids)
                self._become(fresh, size, moment, size)
            return self._now

    def replace(self, ids: Sequence[str], keys: Tensor) -> Keys:
        """All keys ``[n, Z]`` anew, in place of those that are there; ``keys`` is not copied."""
        with self._lock:
            keys = keys.detach().to(self._now._rows.keys)
            rows = _Rows(keys, list(ids))
            if self.approximate:
                rows.update_index(len(ids), self.metric)
            self._become(rows, len(ids), self._now._moment, len(ids))
            return self._now

    def back_to(self, snapshot: Keys) -> None:
        """Take back what was changed since ``snapshot``, of which there are no snapshots."""
        with self._lock:
            if self._now is not snapshot:
                self._now = snapshot
                removed = snapshot._rows.removed
                removed[removed > snapshot._moment] = _ALIVE

    def _become(self, rows: _Rows, length: int, moment: int, size: int) -> None:
        self._earlier.add(self._now)
        self._now = Keys(rows, length, moment, size, self.metric)
