"""Editing methods: ``base.py`` the contract, ``entries.py`` their table, one folder a method.

A folder here is a method as soon as its ``__init__.py`` adds an entry to ``METHODS``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports
from .entries import METHODS, MethodEntry

if TYPE_CHECKING:
    from .base import Answer, Editor, Forced, Unedited
    from .factory import load_editor, make_editor, shipped_editor

__all__ = [
    "METHODS",
    "Answer",
    "Editor",
    "Forced",
    "MethodEntry",
    "Unedited",
    "load_editor",
    "make_editor",
    "shipped_editor",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".base": "Answer Editor Forced Unedited",
        ".factory": "load_editor make_editor shipped_editor",
    },
)

for _module in pkgutil.iter_modules(__path__):
    if _module.ispkg:
        import_module(f"{__name__}.{_module.name}")
