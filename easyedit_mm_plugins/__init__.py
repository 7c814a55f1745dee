"""MSCKE, MSCKE-MEND and DualEdit for EasyEdit: editing vision-language models.

Importing this package is cheap: it loads no model and patches nothing. :func:`register` hooks the
plugin's methods into the EasyEdit that is installed, :func:`unregister` takes every hook out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .core.lazy import lazy_exports
from .core.registry import ROOMS_WITH_ENTRIES
from .core.version import __version__

# The rooms that hold entries of methods, backbones and data sets, lowest floor first.
_ROOMS = ("data", "scenes", "backbones", "host", "methods")
ROOMS_WITH_ENTRIES[:] = [f"{__name__}.{room}" for room in _ROOMS]

if TYPE_CHECKING:
    from .backbones import BACKBONES, Backbone, load_backbone
    from .bridge import register, status, unregister
    from .data import DATASETS, EditRecord, FGVEditDataset, Question
    from .data.evqa import EICDataset, EVQADataset
    from .evaluation import Protocol, evaluate
    from .methods import METHODS, Editor, load_editor
    from .methods.dualedit import DualEditHyperParams, DualEditTrainingHyperParams
    from .methods.ft import FTLLMHyperParams, FTVisualHyperParams
    from .methods.mend import MSCKEMENDHyperParams, MSCKEMENDTrainingHyperParams
    from .methods.mscke import MSCKE, MSCKEHyperParams, MSCKETrainer, MSCKETrainingHyperParams


__all__ = [
    "BACKBONES",
    "DATASETS",
    "METHODS",
    "MSCKE",
    "Backbone",
    "DualEditHyperParams",
    "DualEditTrainingHyperParams",
    "EICDataset",
    "EVQADataset",
    "EditRecord",
    "Editor",
    "FGVEditDataset",
    "FTLLMHyperParams",
    "FTVisualHyperParams",
    "MSCKEHyperParams",
    "MSCKEMENDHyperParams",
    "MSCKEMENDTrainingHyperParams",
    "MSCKETrainer",
    "MSCKETrainingHyperParams",
    "Protocol",
    "Question",
    "__version__",
    "evaluate",
    "load_backbone",
    "load_editor",
    "register",
    "status",
    "unregister",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".bridge": "register unregister status",
        ".data": "DATASETS Question EditRecord FGVEditDataset",
        ".data.evqa": "EVQADataset EICDataset",
        ".backbones": "BACKBONES Backbone load_backbone",
        ".methods": "METHODS Editor load_editor",
        ".methods.mscke": "MSCKE MSCKEHyperParams MSCKETrainingHyperParams MSCKETrainer",
        ".methods.mend": "MSCKEMENDHyperParams MSCKEMENDTrainingHyperParams",
        ".methods.dualedit": "DualEditHyperParams DualEditTrainingHyperParams",
        ".methods.ft": "FTLLMHyperParams FTVisualHyperParams",
        ".evaluation": "evaluate Protocol",
    },
)
