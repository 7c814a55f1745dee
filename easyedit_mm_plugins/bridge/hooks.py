"""Reversible changes to objects that belong to somebody else.

Each hook remembers what it replaced by identity. Putting back refuses when a third party has
changed the same thing in the meantime: silently discarding their change would be worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.errors import BridgeError

_ABSENT = object()


@dataclass
class DictHook:
    """``table[key] = value``, for a key that is free."""

    where: str
    table: dict[str, Any]
    key: str
    value: Any

    def check(self) -> None:
        if self.key in self.table:
            raise BridgeError(
                f"{self.where} already holds {self.key!r}: {self.table[self.key]!r}",
                remedy=f"remove that entry, or register your method under another name "
                f"than {self.key!r}",
            )

    def apply(self) -> None:
        self.table[self.key] = self.value

    def check_undo(self) -> None:
        _still(self.table.get(self.key, _ABSENT), self.value, f"{self.where}[{self.key!r}]")

    def undo(self) -> None:
        del self.table[self.key]

    def __str__(self) -> str:
        return f"{self.where}[{self.key!r}]"


@dataclass
class SetHook:
    """``names.add(name)``; left alone if it was there before."""

    where: str
    names: set[str]
    name: str
    added: bool = False

    def check(self) -> None:
        """Always possible: a name that no table holds has no effect."""

    def apply(self) -> None:
        self.added = self.name not in self.names
        self.names.add(self.name)

    def check_undo(self) -> None:
        """Undoing loses nothing here."""

    def undo(self) -> None:
        if self.added:
            self.names.discard(self.name)

    def __str__(self) -> str:
        return f"{self.where} has {self.name!r}"


@dataclass
class MethodHook:
    """A method of ``cls`` wrapped: ``make(original)`` gives the replacement.

    An inherited method is wrapped on ``cls`` only, and the wrapper goes away altogether later.
    """

    cls: type
    name: str
    make: Callable[[Callable[..., Any]], Callable[..., Any]]
    original: Any = _ABSENT
    wrapper: Any = None

    def check(self) -> None:
        if not callable(getattr(self.cls, self.name, None)):
            raise BridgeError(
                f"{self.cls.__name__} has no method {self.name}",
                remedy="this EasyEdit is of a generation that the plugin does not know",
            )

    def apply(self) -> None:
        self.original = self.cls.__dict__.get(self.name, _ABSENT)
        if self.original is _ABSENT:
            cls, name = self.cls, self.name

            def inherited(this: Any, *args: Any, **kwargs: Any) -> Any:
                return getattr(super(cls, this), name)(*args, **kwargs)

            inherited.__name__ = name
            self.wrapper = self.make(inherited)
        else:
            self.wrapper = self.make(self.original)
        setattr(self.cls, self.name, self.wrapper)

    def check_undo(self) -> None:
        _still(self.cls.__dict__.get(self.name, _ABSENT), self.wrapper, str(self))

    def undo(self) -> None:
        if self.original is _ABSENT:
            delattr(self.cls, self.name)
        else:
            setattr(self.cls, self.name, self.original)

    def __str__(self) -> str:
        return f"{self.cls.__name__}.{self.name}"


Hook = DictHook | SetHook | MethodHook


def apply_all(hooks: list[Hook]) -> None:
    """Apply all or none.

    Raises:
        BridgeError: a name is taken; nothing has been changed.
    """
    for hook in hooks:
        hook.check()
    for hook in hooks:
        hook.apply()


def undo_all(hooks: list[Hook]) -> None:
    """Undo in reverse order, all or none.

    Raises:
        BridgeError: somebody replaced one of our objects since; nothing has been changed.
    """
    for hook in hooks:
        hook.check_undo()
    for hook in reversed(hooks):
        hook.undo()


def _still(now: Any, ours: Any, what: str) -> None:
    if now is not ours:
        raise BridgeError(
            f"{what} was changed by somebody else after register()",
            remedy="undo that change first, then call unregister() again",
        )
