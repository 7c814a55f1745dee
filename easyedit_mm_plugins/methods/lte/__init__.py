"""LTE: a model that was taught once to follow facts put before a question, and finds them.

``config.py`` settings; ``reader.py`` the model that was taught, the base model under a LoRA;
``retrieval.py`` which edits stand before a question; ``model.py`` the editor; ``losses.py`` and
``training.py`` the teaching ("alignment"). ``docs/lte.md`` has the equations.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="lte",
    title="LTE",
    order=25,
    paper="Jiang et al. 2024",
    easyedit="LTE",
    editor="easyedit_mm_plugins.methods.lte.model:LTE",
    settings="easyedit_mm_plugins.methods.lte.config:LTEHyperParams",
    training="easyedit_mm_plugins.methods.lte.config:LTETrainingHyperParams",
    trainer="easyedit_mm_plugins.methods.lte.training:LTETrainer",
)
METHODS.add(
    name="lte-self",
    title="LTE-Self",
    order=52,
    ours=True,
    editor="easyedit_mm_plugins.methods.lte.model:LTESelf",
    settings="easyedit_mm_plugins.methods.lte.config:LTEHyperParams",
    training="easyedit_mm_plugins.methods.lte.config:LTETrainingHyperParams",
    hparams="LTE",
    trained=True,
)

if TYPE_CHECKING:
    from .config import LTEHyperParams, LTETrainingHyperParams
    from .model import LTE, LTESelf
    from .reader import FactReader
    from .training import LTETrainer

__all__ = ["LTE", "FactReader", "LTEHyperParams", "LTESelf", "LTETrainer", "LTETrainingHyperParams"]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "LTEHyperParams LTETrainingHyperParams",
        ".model": "LTE LTESelf",
        ".reader": "FactReader",
        ".training": "LTETrainer",
    },
)
