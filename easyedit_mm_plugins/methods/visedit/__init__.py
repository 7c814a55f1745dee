"""VisEdit: image tokens edited at one layer, token by token as far as they have influence.

DualEdit grew from it; here it is DualEdit with its visual adapter alone, the influence mapper
(``methods/dualedit/adapters.py``) and no gate. ``influence.py`` measures influence and teaches it.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="visedit",
    title="VisEdit",
    order=60,
    paper="Chen et al. 2025",
    easyedit="VISEDIT",
    editor="easyedit_mm_plugins.methods.visedit.model:VisEdit",
    settings="easyedit_mm_plugins.methods.visedit.model:VisEditHyperParams",
    training="easyedit_mm_plugins.methods.visedit.model:VisEditTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.visedit.training:VisEditTrainer",
)

if TYPE_CHECKING:
    from .model import VisEdit, VisEditHyperParams, VisEditTrainingHyperParams
    from .training import VisEditTrainer

__all__ = ["VisEdit", "VisEditHyperParams", "VisEditTrainer", "VisEditTrainingHyperParams"]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".model": "VisEdit VisEditHyperParams VisEditTrainingHyperParams",
        ".training": "VisEditTrainer",
    },
)
