"""Tables of names, open to other packages.

Two kinds. A :class:`Registry` maps a name to anything (``FUSIONS``, ``SOURCES``). An
:class:`EntryTable` holds one :class:`Entry` for each method, backbone or data set, which says
everything that the commands, the bridge to EasyEdit, the report and the documentation ask about it.

Classes and functions may be given as ``"package.module:attribute"``; they are imported when they
are asked for. Another package adds its own by an entry point, whose object is the entry itself, or
a class or function that :meth:`EntryTable.wrap` makes one of.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Self, TypeVar

from .errors import ConfigError, UnknownNameError

# Modules whose import adds entries, lowest floor first; the package root names them.
ROOMS_WITH_ENTRIES: list[str] = []


def did_you_mean(name: str, known: list[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them if none is near."""
    lower = {k.lower(): k for k in known}
    names = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    if names:
        return f"did you mean {' or '.join(names)}?"
    return f"known: {', '.join(known) or 'none'}"


def resolve(target: Any) -> Any:
    """What ``"package.module:attribute"`` names; anything but a string is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


T = TypeVar("T")


class Registry(Generic[T]):
    """Names and what they stand for, blind to case and to "_" for "-".

    Args:
        kind: what one of them is called in messages.
        group: the entry points of other packages.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._items: dict[str, Any] = {}
        self._scanned = False

    @staticmethod
    def key(name: object) -> str:
        """How ``name`` is listed: lower case, dashes for underscores."""
        return str(name).lower().replace("_", "-")

    def register(self, name: str, value: Any = None, *, replace: bool = False) -> Any:
        """Add ``value`` under ``name``; without a value, return a decorator.

        Raises:
            ConfigError: the name is taken by something else and ``replace`` is not set.
        """
        if value is None:
            return lambda obj: self.register(name, obj, replace=replace)
        key = self.key(name)
        if not replace and self._items.get(key, value) != value:
            raise ConfigError(
                f"{self.kind} {name!r} is already registered as {self._items[key]!r}",
                remedy="choose another name, or pass replace=True",
            )
        self._items[key] = value
        return value

    def unregister(self, name: str) -> None:
        """Forget ``name``; unknown names are ignored."""
        self._items.pop(self.key(name), None)

    def get(self, name: str) -> T:
        """The value under ``name``, imported if it was given as a string.

        Raises:
            UnknownNameError: nothing has that name; the message offers the nearest.
        """
        key = self.key(name)
        if key not in self._items:
            self._scan()
        self.check(name)
        value = self._items[key]
        if isinstance(value, (str, EntryPoint)):
            loaded = value.load() if isinstance(value, EntryPoint) else resolve(value)
            value = self._items[key] = self.wrap(key, loaded)
        return value

    def wrap(self, name: str, value: Any) -> Any:
        """What is kept of something that was imported under ``name``."""
        return value

    def check(self, *names: str) -> None:
        """Raise :class:`UnknownNameError` for the first of ``names`` that is not known."""
        for name in names:
            if name not in self:
                hint = did_you_mean(str(name), self.names())
                raise UnknownNameError(f"unknown {self.kind} {name!r}; {hint}")

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._scan()
        return sorted(self._items)

    def known(self) -> list[T]:
        """What was registered so far, other packages' and what is not imported yet left out."""
        found = [v for v in self._items.values() if not isinstance(v, (str, EntryPoint))]
        return [value for i, value in enumerate(found) if value not in found[:i]]

    def __contains__(self, name: object) -> bool:
        self._scan()
        return self.key(name) in self._items

    def _scan(self) -> None:
        if not self._scanned:
            self._scanned = True
            if self.group:
                for room in ROOMS_WITH_ENTRIES:
                    import_module(room)
                for point in entry_points(group=self.group):
                    self._items.setdefault(self.key(point.name), point)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What every table's entries say.

    Attributes:
        name: what users type.
        title: how tables and sentences call it; by default the name.
        order: its place in tables; entries without one follow, by name.
        aliases: further names that users may type.
    """

    name: str
    title: str = ""
    order: int = 1000
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.name)

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """``value`` as an entry, where another package's entry point gives something plainer."""
        raise ConfigError(
            f"{name!r} stands for {value!r}, which is no {cls.__name__}",
            remedy=f"let its entry point name a {cls.__name__}",
        )


E = TypeVar("E", bound=Entry)


class EntryTable(Registry[E]):
    """One entry for each name; see the module's docstring.

    Args:
        entry: the class of its entries.
    """

    def __init__(self, kind: str, group: str, entry: type[E]) -> None:
        super().__init__(kind, group)
        self.entry = entry

    def add(self, *, replace: bool = False, **fields: Any) -> E:
        """Make an entry of ``fields`` and register it under its name.

        Raises:
            ConfigError: the name is taken by something else, or a field is unknown or missing.
        """
        try:
            made = self.entry(**fields)
        except TypeError as error:
            raise ConfigError(f"{self.kind} {fields.get('name')!r}: {error}") from None
        for name in (made.name, *made.aliases):
            self.register(name, made, replace=replace)
        return made

    def wrap(self, name: str, value: Any) -> E:
        """``value`` if it is an entry, else :meth:`Entry.of`."""
        return value if isinstance(value, self.entry) else self.entry.of(name, value)

    def __iter__(self) -> Iterator[E]:
        """All entries in the order of tables; one that does not import raises what it raises."""
        entries = {entry.name: entry for entry in map(self.get, self.names())}
        return iter(sorted(entries.values(), key=lambda entry: (entry.order, entry.name)))
