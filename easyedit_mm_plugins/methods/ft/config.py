"""Settings of the fine-tuning baselines, in EasyEdit's own form.

The paper says of them only that "fine-tuning is carried out using KEBench" (MSCKE section 5.1).
"KEBench" below is what its authors' code and files do (arXiv 2403.07350, released as VLKEB): AdamW
on the new answer's likelihood, for a fixed number of steps.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ..mend.config import canonical
from ..settings import Checked, Count, Flag, ModelHParams, Names, Weight, Whole, settings_class

# KEBench names whole modules in its files.
_WHOLE = {
    "Qformer": "connector.qformer.*",
    "mm_projector": "connector.projector.*",
    "opt_proj": "connector.projection",
    "llama_proj": "connector.projection",
}


@settings_class
class FTConfig(Checked):
    """How an edit is fine-tuned."""

    inner_params: Names | None = None
    """Which linear modules change: names or patterns of ``Backbone.linear_modules``
    (``layers.-1.fc*``, ``connector.qformer.*``), or names as EasyEdit and KEBench write them. Null:
    the MLP of the last decoder layer (FT-LLM) or the whole connector (FT-Visual), which is
    KEBench's choice: ``layers.31`` and ``Qformer`` or ``mm_projector``."""
    opt: Literal["Adam", "AdamW"] = "AdamW"
    """KEBench: AdamW."""
    edit_lr: Weight = 2e-4
    """Learning rate. KEBench: 2e-4 for BLIP-2, 1e-4 for MiniGPT-4 and LLaVA."""
    num_steps: Count = 15
    """At most so many steps. KEBench: 15, for LLaVA 10."""
    loss_limit: Weight = 0.0
    """An edit whose answer has a smaller mean negative log likelihood is done. 0: all steps are
    made (KEBench)."""
    weight_decay: Weight = 0.01
    """Of the weights, not of their change. KEBench: AdamW's own 0.01."""
    with_stop: Flag = True
    """Learn the end of the answer as well. KEBench: no, it measures by teacher forcing; a generated
    answer that does not end is another answer."""
    batch_size: Count = 1
    """Edits that train side by side, each by itself. KEBench: 1. More costs memory: a full change
    with its gradient and two moments for each edit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_params is not None:
            names = self.inner_params
            self.inner_params = [_WHOLE.get(name, canonical(name)) for name in names]


@settings_class
class _FTHyperParams(FTConfig, ModelHParams):
    seed: Whole = 0
    """EasyEdit; nothing here is random."""

    @property
    def config(self) -> FTConfig:
        """The settings of fine-tuning alone."""
        return self.part(FTConfig)


@settings_class
class FTLLMHyperParams(_FTHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(FTLLMHyperParams.from_hparams(...))``."""

    _alg: ClassVar[str] = "FT-LLM"
    _title: ClassVar[str] = "FT-LLM"


@settings_class
class FTVisualHyperParams(_FTHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(FTVisualHyperParams.from_hparams(...))``."""

    _alg: ClassVar[str] = "FT-VISUAL"
    _title: ClassVar[str] = "FT-Visual"
