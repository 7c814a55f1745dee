"""VisEdit: image tokens edited at one layer, token by token as far as they have influence.

DualEdit grew from it; here it is DualEdit with its visual adapter alone, the influence mapper
(``methods/dualedit/adapters.py``) and no gate. ``influence.py`` measures influence and teaches it.
"""

from .model import VisEdit, VisEditHyperParams, VisEditTrainingHyperParams, visedit_from_hparams
from .training import VisEditTrainer

__all__ = [
    "VisEdit",
    "VisEditHyperParams",
    "VisEditTrainer",
    "VisEditTrainingHyperParams",
    "visedit_from_hparams",
]
