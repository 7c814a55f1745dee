"""DualEdit: text and visual tokens edited at layers of their own, behind a gate.

``config.py`` settings; ``adapters.py`` the cross-attention adapters (section 3.2); ``memory.py``
what is kept of an edit, and the gate's cosine (eq. 4); ``edited_pass.py`` editing a decoder's
passes; ``model.py`` the editor; ``frozen.py``, ``packing.py``, ``losses.py``, ``training.py``
learning the adapters (eq. 5, appendix A); ``calibration.py`` a threshold from held-out edits.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="dualedit",
    title="DualEdit",
    order=61,
    paper="Shi et al. 2025",
    easyedit="DUALEDIT",
    editor="easyedit_mm_plugins.methods.dualedit.model:DualEdit",
    settings="easyedit_mm_plugins.methods.dualedit.config:DualEditHyperParams",
    training="easyedit_mm_plugins.methods.dualedit.config:DualEditTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.dualedit.training:DualEditTrainer",
)

if TYPE_CHECKING:
    from .calibration import Calibration, calibrate
    from .config import (
        AdapterConfig,
        DualEditConfig,
        DualEditHyperParams,
        DualEditTrainingHyperParams,
        GateConfig,
    )
    from .model import DualEdit
    from .training import DualEditTrainer

__all__ = [
    "AdapterConfig",
    "Calibration",
    "DualEdit",
    "DualEditConfig",
    "DualEditHyperParams",
    "DualEditTrainer",
    "DualEditTrainingHyperParams",
    "GateConfig",
    "calibrate",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".calibration": "Calibration calibrate",
        ".config": "AdapterConfig DualEditConfig DualEditHyperParams DualEditTrainingHyperParams "
        "GateConfig",
        ".model": "DualEdit",
        ".training": "DualEditTrainer",
    },
)
