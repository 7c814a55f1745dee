"""The report of one or several runs: Markdown, LaTeX, and one HTML page that needs no network.

``sources.py`` reads runs and refuses those that cannot be compared, ``compare.py`` tests methods
against each other, ``layout.py`` fills tables; ``markdown.py``, ``latex.py`` and ``page.py`` write
them. Every figure comes from the cases of a run that is named beside it.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

__all__ = ["Report", "collect", "write_report"]

if TYPE_CHECKING:
    from .sources import Report, collect
    from .write import write_report

__getattr__, __dir__ = lazy_exports(
    __name__, {".sources": "Report collect", ".write": "write_report"}
)
