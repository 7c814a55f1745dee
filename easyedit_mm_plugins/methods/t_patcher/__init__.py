"""T-Patcher: one trained neuron a mistaken token, in the last feed-forward block (Huang et al.
2023).

``config.py`` settings; ``losses.py`` the paper's losses; ``patch.py`` many edits' neurons trained
side by side; ``model.py`` the editor and its memory.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="t-patcher",
    title="T-Patcher",
    order=45,
    paper="Huang et al. 2023",
    easyedit="T-PATCHER",
    editor="easyedit_mm_plugins.methods.t_patcher.model:TPatcher",
    settings="easyedit_mm_plugins.methods.t_patcher.config:TPatcherHyperParams",
)

if TYPE_CHECKING:
    from .config import TPatcherConfig, TPatcherHyperParams
    from .model import TPatcher

__all__ = ["TPatcher", "TPatcherConfig", "TPatcherHyperParams"]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {".config": "TPatcherConfig TPatcherHyperParams", ".model": "TPatcher"},
)
