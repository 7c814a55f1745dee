"""Fine-tuning baselines: FT-LLM on the last layers of the language model, FT-Visual on the
vision-language connector (MSCKE table 1, in KEBench's manner).

``config.py`` settings; ``model.py`` the two editors; ``tune.py`` many edits fine-tuned side by
side; ``frozen.py`` what of the model they share and run once.
"""

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
