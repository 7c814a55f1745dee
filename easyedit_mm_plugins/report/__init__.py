"""The report of one or several runs: Markdown, LaTeX, and one HTML page that needs no network.

``sources.py`` reads runs and refuses what may not stand side by side, ``compare.py`` tests
methods against each other, ``layout.py`` decides what a table shows, ``markdown.py``, ``latex.py``
and ``page.py`` write it down. Every number comes from the cases of a run that is named beside it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {"Report": ".sources", "collect": ".sources", "write_report": ".write"}

__all__ = ["Report", "collect", "write_report"]

if TYPE_CHECKING:
    from .sources import Report, collect
    from .write import write_report


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
