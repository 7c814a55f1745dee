"""MEND: an edit's gradient, transformed by a trained network, is the change of the weights.

``config.py`` settings; ``gradients.py`` an edit's gradient, token by token; ``transform.py`` the
network (MEND section 3); ``model.py`` the editor; ``losses.py``, ``training.py`` learning it;
``mscke.py`` MSCKE-MEND, the scope classifier of MSCKE in front of it; ``build.py`` editors from
hyperparameters; ``train_scenes.py`` the embedded editors.
"""

from .build import mend_from_hparams, mscke_mend_from_hparams
from .config import MendConfig, MendHyperParams, MendTrainingHyperParams
from .model import Mend
from .mscke import (
    MSCKEMEND,
    MendCounterfactual,
    MSCKEMENDHyperParams,
    MSCKEMENDTrainer,
    MSCKEMENDTrainingHyperParams,
)
from .training import MendTrainer
from .transform import GradientTransform, MendNetwork

__all__ = [
    "MSCKEMEND",
    "GradientTransform",
    "MSCKEMENDHyperParams",
    "MSCKEMENDTrainer",
    "MSCKEMENDTrainingHyperParams",
    "Mend",
    "MendConfig",
    "MendCounterfactual",
    "MendHyperParams",
    "MendNetwork",
    "MendTrainer",
    "MendTrainingHyperParams",
    "mend_from_hparams",
    "mscke_mend_from_hparams",
]
