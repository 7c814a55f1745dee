"""Values that were computed before, kept within a limit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class LRU(Generic[Value]):
    """Values by key; when the limit is reached, the one that was not asked for longest goes.

    Safe to use from several threads.

    Args:
        limit: what the sizes of all kept values may add up to; 0 keeps nothing. May be changed.
        size: of a value, e.g. its bytes; by default each counts 1.
    """

    def __init__(self, limit: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        self.limit, self._size, self.used = limit, size, 0
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.limit, self._size)  # a copy starts empty

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> Value | None:
        """The value of ``key``, or ``None`` if it is not kept."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Hashable, value: Value) -> None:
        """Keep ``value``; again for one whose size has changed."""
        with self._lock:
            self.used -= self._kept.pop(key, (None, 0))[1]
            self._kept[key] = value, self._size(value)
            self.used += self._kept[key][1]
            while self.used > self.limit:
                self.used -= self._kept.popitem(last=False)[1][1]

    def drop(self, key: Hashable) -> None:
        """Forget the value of ``key``, if it is kept."""
        with self._lock:
            self.used -= self._kept.pop(key, (None, 0))[1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.used = 0
