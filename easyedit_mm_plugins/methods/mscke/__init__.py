"""MSCKE: editing a frozen vision-language model through a memory and a multimodal scope classifier.

``config.py`` settings; ``encoder.py``, ``fusion.py``, ``similarity.py``, ``classifier.py`` the
scope classifier (eq. 4-8); ``lookup.py`` the nearest edit (eq. 1-2); ``counterfactual.py`` the
model that answers in scope; ``model.py`` the editor (eq. 3); ``losses.py``, ``training.py``
learning it (eq. 9-11); ``lora_editor.py`` the variant whose counterfactual model is a LoRA adapter.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import COUNTERFACTUALS, METHODS

METHODS.add(
    name="mscke",
    title="MSCKE",
    order=50,
    paper="Zeng et al. 2024, eq. 1-11",
    easyedit="MSCKE",
    editor="easyedit_mm_plugins.methods.mscke.model:MSCKE",
    settings="easyedit_mm_plugins.methods.mscke.config:MSCKEHyperParams",
    training="easyedit_mm_plugins.methods.mscke.config:MSCKETrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mscke.training:MSCKETrainer",
)
METHODS.add(
    name="mscke-lora",
    title="MSCKE-LoRA",
    order=52,
    ours=True,
    easyedit="MSCKE-LORA",
    editor="easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRA",
    settings="easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRAHyperParams",
    training="easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRATrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mscke.lora_editor:MSCKELoRATrainer",
)
for _kind, _class in {
    "small-lm": "counterfactual:SmallLM",
    "released-lm": "release_lm:ReleasedLM",
    "lora": "lora:LoRA",
    "editor": "by_editor:EditorCounterfactual",
}.items():
    COUNTERFACTUALS.register(_kind, f"{__name__}.{_class}")

if TYPE_CHECKING:
    from .classifier import ScopeClassifier
    from .config import (
        CounterfactualConfig,
        MSCKEHyperParams,
        MSCKETrainingHyperParams,
        ScopeConfig,
    )
    from .counterfactual import Counterfactual, SmallLM
    from .fusion import FUSIONS
    from .model import MSCKE
    from .similarity import SIMILARITIES
    from .training import MSCKETrainer


__all__ = [
    "COUNTERFACTUALS",
    "FUSIONS",
    "MSCKE",
    "SIMILARITIES",
    "Counterfactual",
    "CounterfactualConfig",
    "MSCKEHyperParams",
    "MSCKETrainer",
    "MSCKETrainingHyperParams",
    "ScopeClassifier",
    "ScopeConfig",
    "SmallLM",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".classifier": "ScopeClassifier",
        ".config": "CounterfactualConfig MSCKEHyperParams MSCKETrainingHyperParams ScopeConfig",
        ".counterfactual": "Counterfactual SmallLM",
        ".fusion": "FUSIONS",
        ".model": "MSCKE",
        ".similarity": "SIMILARITIES",
        ".training": "MSCKETrainer",
    },
)
