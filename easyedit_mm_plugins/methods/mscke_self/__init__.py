"""MSCKE-Self: MSCKE whose scope is read from the edited model itself. Ours, in no paper.

``config.py`` settings; ``scope.py`` the two heads, a router that any method may use; ``reading.py``
what they read of a pass that runs anyway; ``model.py`` the editor; ``losses.py``, ``training.py``,
``calibration.py`` learning the heads and choosing their thresholds. ``docs/mscke-self.md`` has the
equations.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="mscke-self",
    title="MSCKE-Self",
    order=51,
    ours=True,
    easyedit="MSCKE-SELF",
    editor="easyedit_mm_plugins.methods.mscke_self.model:MSCKESelf",
    settings="easyedit_mm_plugins.methods.mscke_self.config:MSCKESelfHyperParams",
    training="easyedit_mm_plugins.methods.mscke_self.config:MSCKESelfTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mscke_self.training:MSCKESelfTrainer",
)

if TYPE_CHECKING:
    from .config import MSCKESelfHyperParams, MSCKESelfTrainingHyperParams, SelfScopeConfig
    from .model import MSCKESelf
    from .scope import SelfScope
    from .training import MSCKESelfTrainer

__all__ = [
    "MSCKESelf",
    "MSCKESelfHyperParams",
    "MSCKESelfTrainer",
    "MSCKESelfTrainingHyperParams",
    "SelfScope",
    "SelfScopeConfig",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "MSCKESelfHyperParams MSCKESelfTrainingHyperParams SelfScopeConfig",
        ".model": "MSCKESelf",
        ".scope": "SelfScope",
        ".training": "MSCKESelfTrainer",
    },
)
