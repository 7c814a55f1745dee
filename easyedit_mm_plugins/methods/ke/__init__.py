"""KE: a hypernetwork reads an edit and shifts weights along its gradient (De Cao et al. 2021).

``config.py`` settings; ``network.py`` the hypernetwork; ``model.py`` the editor; ``training.py``
the constrained optimisation that it learns by.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="ke",
    title="KE",
    order=38,
    paper="De Cao et al. 2021",
    easyedit="KE",
    editor="easyedit_mm_plugins.methods.ke.model:KE",
    settings="easyedit_mm_plugins.methods.ke.config:KEHyperParams",
    training="easyedit_mm_plugins.methods.ke.config:KETrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.ke.training:KETrainer",
)

if TYPE_CHECKING:
    from .config import KEConfig, KEHyperParams, KETrainingHyperParams
    from .model import KE
    from .network import HyperNetwork
    from .training import KETrainer

__all__ = [
    "KE",
    "HyperNetwork",
    "KEConfig",
    "KEHyperParams",
    "KETrainer",
    "KETrainingHyperParams",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "KEConfig KEHyperParams KETrainingHyperParams",
        ".model": "KE",
        ".network": "HyperNetwork",
        ".training": "KETrainer",
    },
)
