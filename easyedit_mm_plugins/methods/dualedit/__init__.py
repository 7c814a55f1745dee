"""DualEdit: text and visual tokens edited at layers of their own, behind a gate.

``config.py`` settings; ``adapters.py`` the cross-attention adapters (section 3.2); ``layers.py``
reaching into a decoder; ``memory.py`` the edits and the gate's cosine (eq. 4); ``model.py`` the
editor; ``frozen.py``, ``losses.py``, ``training.py`` learning the adapters (eq. 5, appendix A);
``calibrate.py`` a threshold from held-out edits; ``build.py`` editors from hyperparameters.
"""

from .build import editor_from_hparams
from .calibrate import Calibration, calibrate
from .config import (
    AdapterConfig,
    DualEditConfig,
    DualEditHyperParams,
    DualEditTrainingHyperParams,
    GateConfig,
)
from .memory import DualMemory
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
    "DualMemory",
    "GateConfig",
    "calibrate",
    "editor_from_hparams",
]
