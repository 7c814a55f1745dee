"""MSCKE: editing a frozen vision-language model through a memory and a multimodal scope classifier.

``config.py`` settings; ``encoder.py``, ``fusion.py``, ``similarity.py``, ``classifier.py`` the
scope classifier (eq. 4-8); ``memory.py`` the edits (eq. 1-2); ``counterfactual.py`` the model that
answers in scope; ``model.py`` the editor (eq. 3); ``losses.py``, ``training.py`` learning it
(eq. 9-11), ``resume.py`` going on after a kill; ``build.py`` editors from hyperparameters;
``scenes_clip.py``, ``train_scenes.py`` the embedded editors. All are imported when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "editor_from_hparams": ".build",
    "ScopeClassifier": ".classifier",
    "CounterfactualConfig": ".config",
    "MSCKEHyperParams": ".config",
    "MSCKETrainingHyperParams": ".config",
    "ScopeConfig": ".config",
    "COUNTERFACTUALS": ".counterfactual",
    "Counterfactual": ".counterfactual",
    "SmallLM": ".counterfactual",
    "FUSIONS": ".fusion",
    "EditMemory": ".memory",
    "MSCKE": ".model",
    "SIMILARITIES": ".similarity",
    "MSCKETrainer": ".training",
}

__all__ = [
    "COUNTERFACTUALS",
    "FUSIONS",
    "MSCKE",
    "SIMILARITIES",
    "Counterfactual",
    "CounterfactualConfig",
    "EditMemory",
    "MSCKEHyperParams",
    "MSCKETrainer",
    "MSCKETrainingHyperParams",
    "ScopeClassifier",
    "ScopeConfig",
    "SmallLM",
    "editor_from_hparams",
]

if TYPE_CHECKING:
    from .build import editor_from_hparams
    from .classifier import ScopeClassifier
    from .config import (
        CounterfactualConfig,
        MSCKEHyperParams,
        MSCKETrainingHyperParams,
        ScopeConfig,
    )
    from .counterfactual import COUNTERFACTUALS, Counterfactual, SmallLM
    from .fusion import FUSIONS
    from .memory import EditMemory
    from .model import MSCKE
    from .similarity import SIMILARITIES
    from .training import MSCKETrainer


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
