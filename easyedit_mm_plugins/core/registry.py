"""Names for methods, backbones and datasets, open to other packages.

A third party adds its own either by a call, ``METHODS.register("mine", MyEditor)``, or by an entry
point in the group ``easyedit_mm_plugins.methods`` (``.backbones``, ``.datasets``). Values may be
given as ``"package.module:attribute"`` and are imported only when they are asked for.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from .errors import ConfigError, UnknownNameError


def did_you_mean(name: str, known: list[str]) -> str:
    """The tail of an error message: the nearest known names, or all of them if none is near."""
    lower = {k.lower(): k for k in known}
    names = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)]
    if names:
        return f"did you mean {' or '.join(names)}?"
    return f"known: {', '.join(known) or 'none'}"


class Registry:
    """A name table, blind to case and to "_" for "-"; see the module's docstring."""

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._items: dict[str, Any] = {}
        self._scanned = group is None

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

    def get(self, name: str) -> Any:
        """The value under ``name``, imported if it was given as a string.

        Raises:
            UnknownNameError: nothing has that name; the message offers the nearest.
        """
        key = self.key(name)
        if key not in self._items:
            self._scan()
        if key not in self._items:
            raise UnknownNameError(
                f"unknown {self.kind} {name!r}; {did_you_mean(str(name), self.names())}"
            )
        value = self._items[key]
        if isinstance(value, str):
            module, _, attribute = value.partition(":")
            value = self._items[key] = getattr(import_module(module), attribute)
        elif hasattr(value, "load") and hasattr(value, "group"):  # an entry point
            value = self._items[key] = value.load()
        return value

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._scan()
        return sorted(self._items)

    def __contains__(self, name: object) -> bool:
        self._scan()
        return self.key(name) in self._items

    def _scan(self) -> None:
        if not self._scanned:
            self._scanned = True
            for point in entry_points(group=self.group):
                self._items.setdefault(self.key(point.name), point)


METHODS = Registry("method", "easyedit_mm_plugins.methods")
BACKBONES = Registry("backbone", "easyedit_mm_plugins.backbones")
DATASETS = Registry("dataset", "easyedit_mm_plugins.datasets")
