"""MSCKE, MSCKE-MEND and DualEdit for EasyEdit: editing vision-language models.

Importing this package is cheap: it loads no model and patches nothing. :func:`register` hooks the
plugin's methods into the EasyEdit that is installed, :func:`unregister` takes every hook out again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "register": ".bridge",
    "unregister": ".bridge",
    "status": ".bridge",
    "METHODS": ".core.registry",
    "BACKBONES": ".core.registry",
    "DATASETS": ".core.registry",
    "Question": ".data",
    "EditRecord": ".data",
    "FGVEditDataset": ".data",
    "Backbone": ".backbones",
    "load_backbone": ".backbones",
    "Editor": ".methods",
    "load_editor": ".methods",
    "MSCKE": ".methods.mscke",
    "MSCKEHyperParams": ".methods.mscke",
    "MSCKETrainingHyperParams": ".methods.mscke",
    "MSCKETrainer": ".methods.mscke",
    "MSCKEMENDHyperParams": ".methods.mend",
    "MSCKEMENDTrainingHyperParams": ".methods.mend",
    "DualEditHyperParams": ".methods.dualedit",
    "DualEditTrainingHyperParams": ".methods.dualedit",
    "FTLLMHyperParams": ".methods.ft",
    "FTVisualHyperParams": ".methods.ft",
    "EVQADataset": ".data",
    "EICDataset": ".data",
    "evaluate": ".evaluation",
    "Protocol": ".evaluation",
}

__all__ = [
    "__version__",
    "register",
    "unregister",
    "status",
    "METHODS",
    "BACKBONES",
    "DATASETS",
    "Question",
    "EditRecord",
    "FGVEditDataset",
    "Backbone",
    "load_backbone",
    "Editor",
    "load_editor",
    "MSCKE",
    "MSCKEHyperParams",
    "MSCKETrainingHyperParams",
    "MSCKETrainer",
    "MSCKEMENDHyperParams",
    "MSCKEMENDTrainingHyperParams",
    "DualEditHyperParams",
    "DualEditTrainingHyperParams",
    "FTLLMHyperParams",
    "FTVisualHyperParams",
    "EVQADataset",
    "EICDataset",
    "evaluate",
    "Protocol",
]

if TYPE_CHECKING:
    from .backbones import Backbone, load_backbone
    from .bridge import register, status, unregister
    from .core.registry import BACKBONES, DATASETS, METHODS
    from .data import EditRecord, EICDataset, EVQADataset, FGVEditDataset, Question
    from .evaluation import Protocol, evaluate
    from .methods import Editor, load_editor
    from .methods.dualedit import DualEditHyperParams, DualEditTrainingHyperParams
    from .methods.ft import FTLLMHyperParams, FTVisualHyperParams
    from .methods.mend import MSCKEMENDHyperParams, MSCKEMENDTrainingHyperParams
    from .methods.mscke import MSCKE, MSCKEHyperParams, MSCKETrainer, MSCKETrainingHyperParams


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
