"""Fine-tuning baselines: FT-LLM on the last layers of the language model, FT-Visual on the
vision-language connector (MSCKE table 1, in KEBench's manner).

``config.py`` settings; ``model.py`` the two editors; ``tune.py`` many edits fine-tuned side by
side; ``frozen.py`` what of the model they share and run once.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

METHODS.add(
    name="ft-llm",
    title="FT-LLM",
    order=10,
    paper="KEBench, as MSCKE table 1",
    easyedit="FT-LLM",
    editor="easyedit_mm_plugins.methods.ft.model:FTLLM",
    settings="easyedit_mm_plugins.methods.ft.config:FTLLMHyperParams",
)
METHODS.add(
    name="ft-visual",
    title="FT-Visual",
    order=11,
    paper="KEBench, as MSCKE table 1",
    easyedit="FT-VISUAL",
    editor="easyedit_mm_plugins.methods.ft.model:FTVisual",
    settings="easyedit_mm_plugins.methods.ft.config:FTVisualHyperParams",
)

if TYPE_CHECKING:
    from .config import FTConfig, FTLLMHyperParams, FTVisualHyperParams
    from .model import FTLLM, FineTuning, FTVisual

__all__ = [
    "FTLLM",
    "FTConfig",
    "FTLLMHyperParams",
    "FTVisual",
    "FTVisualHyperParams",
    "FineTuning",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "FTConfig FTLLMHyperParams FTVisualHyperParams",
        ".model": "FTLLM FineTuning FTVisual",
    },
)
