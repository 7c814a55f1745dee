"""MEND: an edit's gradient, transformed by a trained network, is the change of the weights.

``config.py`` settings; ``gradients.py`` an edit's gradient, token by token; ``transform.py`` the
network (MEND section 3); ``model.py`` the editor; ``losses.py``, ``training.py`` learning it;
``easyedit.py`` the baseline row, with EasyEdit's own network; ``mscke.py`` MSCKE-MEND, the scope
classifier of MSCKE in front of it; ``mscke_self.py`` MSCKE-MEND-Self, that of MSCKE-Self.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import COUNTERFACTUALS, METHODS

METHODS.add(
    name="mend",
    title="MEND",
    order=40,
    paper="Mitchell et al. 2022",
    editor="easyedit_mm_plugins.methods.mend.easyedit:MEND",
    settings="easyedit_mm_plugins.methods.mend.config:MendHyperParams",
    training="easyedit_mm_plugins.methods.mend.config:MendTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mend.training:MendTrainer",
    trains="easyedit_mm_plugins.methods.mend.model:Mend",
    needs_easyedit=True,
)
METHODS.add(
    name="mscke-mend",
    title="MSCKE-MEND",
    order=51,
    paper="Zeng et al. 2024, section 4.3",
    easyedit="MSCKE-MEND",
    editor="easyedit_mm_plugins.methods.mend.mscke:MSCKEMEND",
    settings="easyedit_mm_plugins.methods.mend.mscke:MSCKEMENDHyperParams",
    training="easyedit_mm_plugins.methods.mend.mscke:MSCKEMENDTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mend.mscke:MSCKEMENDTrainer",
)
METHODS.add(
    name="mscke-mend-self",
    title="MSCKE-MEND-Self",
    order=51,
    ours=True,
    easyedit="MSCKE-MEND-SELF",
    editor="easyedit_mm_plugins.methods.mend.mscke_self:MSCKEMENDSelf",
    settings="easyedit_mm_plugins.methods.mend.mscke_self:MSCKEMENDSelfHyperParams",
    training="easyedit_mm_plugins.methods.mend.mscke_self:MSCKEMENDSelfTrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.mend.mscke_self:MSCKEMENDSelfTrainer",
)
COUNTERFACTUALS.register("mend", "easyedit_mm_plugins.methods.mend.mscke:MendCounterfactual")

if TYPE_CHECKING:
    from .config import MendConfig, MendHyperParams, MendTrainingHyperParams
    from .model import Mend
    from .mscke import (
        MSCKEMEND,
        MendCounterfactual,
        MSCKEMENDHyperParams,
        MSCKEMENDTrainer,
        MSCKEMENDTrainingHyperParams,
    )
    from .mscke_self import (
        MSCKEMENDSelf,
        MSCKEMENDSelfHyperParams,
        MSCKEMENDSelfTrainer,
        MSCKEMENDSelfTrainingHyperParams,
    )
    from .training import MendTrainer
    from .transform import GradientTransform, MendNetwork

__all__ = [
    "MSCKEMEND",
    "GradientTransform",
    "MSCKEMENDHyperParams",
    "MSCKEMENDSelf",
    "MSCKEMENDSelfHyperParams",
    "MSCKEMENDSelfTrainer",
    "MSCKEMENDSelfTrainingHyperParams",
    "MSCKEMENDTrainer",
    "MSCKEMENDTrainingHyperParams",
    "Mend",
    "MendConfig",
    "MendCounterfactual",
    "MendHyperParams",
    "MendNetwork",
    "MendTrainer",
    "MendTrainingHyperParams",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "MendConfig MendHyperParams MendTrainingHyperParams",
        ".model": "Mend",
        ".mscke": "MSCKEMEND MendCounterfactual MSCKEMENDHyperParams MSCKEMENDTrainer "
        "MSCKEMENDTrainingHyperParams",
        ".mscke_self": "MSCKEMENDSelf MSCKEMENDSelfHyperParams MSCKEMENDSelfTrainer "
        "MSCKEMENDSelfTrainingHyperParams",
        ".training": "MendTrainer",
        ".transform": "GradientTransform MendNetwork",
    },
)
