"""Settings of the fine-tuning baselines, in EasyEdit's own form.

The paper says of them only that "fine-tuning is carried out using KEBench" (MSCKE section 5.1).
"KEBench" below is what its authors' code and files do (arXiv 2403.07350, released as VLKEB): AdamW
on the new answer's likelihood, for a fixed number of steps. A key that is missing or unknown is an
error that names the nearest key.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ...core.errors import ConfigError
from ..mend.config import canonical
from ..settings import ModelHParams, at_least, choice

# KEBench names whole modules in its files.
_WHOLE = {
    "Qformer": "connector.qformer.*",
    "mm_projector": "connector.projector.*",
    "opt_proj": "connector.projection",
    "llama_proj": "connector.projection",
}


@dataclass
class FTConfig:
    """How an edit is fine-tuned.

    Attributes:
        inner_params: which linear modules change: names or patterns of ``Backbone.linear_modules``
            (``layers.-1.fc*``, ``connector.qformer.*``), or names as EasyEdit and KEBench write
            them. Null: the MLP of the last decoder layer (FT-LLM) or the whole connector
            (FT-Visual), which is KEBench's choice: ``layers.31`` and ``Qformer`` or
            ``mm_projector``.
        opt: ``AdamW`` (KEBench) or ``Adam``.
        edit_lr: learning rate. KEBench: 2e-4 for BLIP-2, 1e-4 for MiniGPT-4 and LLaVA.
        num_steps: at most so many steps. KEBench: 15, for LLaVA 10.
        loss_limit: an edit whose answer has a smaller mean negative log likelihood is done. 0: all
            steps are made (KEBench).
        weight_decay: of the weights, not of their change. KEBench: AdamW's own 0.01.
        with_stop: learn the end of the answer as well. KEBench: no, it measures by teacher forcing;
            a generated answer that does not end is another answer.
        batch_size: edits that train side by side, each by itself. KEBench: 1. More costs memory: a
            full change with its gradient and two moments for each edit.
    """

    inner_params: list[str] | None = None
    opt: str = "AdamW"
    edit_lr: float = 2e-4
    num_steps: int = 15
    loss_limit: float = 0.0
    weight_decay: float = 0.01
    with_stop: bool = True
    batch_size: int = 1

    def __post_init__(self) -> None:
        choice(self.opt, "opt", ("Adam", "AdamW"))
        for name in ("edit_lr", "loss_limit", "weight_decay"):
            at_least(getattr(self, name), name, 0)
        for name in ("num_steps", "batch_size"):
            at_least(getattr(self, name), name, 1, whole=True)
        names = self.inner_params
        if isinstance(names, str):
            names = [names]
        if names is not None:
            names = list(names)
            if not names or not all(isinstance(name, str) for name in names):
                raise ConfigError(
                    f"inner_params is {self.inner_params!r}", remedy="give names, or null"
                )
            self.inner_params = [_WHOLE.get(name, canonical(name)) for name in names]


@dataclass
class _Common(ModelHParams):
    inner_params: list[str] | None = None  # see FTConfig, as all of these
    opt: str = "AdamW"
    edit_lr: float = 2e-4
    num_steps: int = 15
    loss_limit: float = 0.0
    weight_decay: float = 0.01
    with_stop: bool = True
    batch_size: int = 1
    seed: int = 0  # EasyEdit; nothing here is random

    def __post_init__(self) -> None:
        self.inner_params = self.config.inner_params

    @property
    def config(self) -> FTConfig:
        """The settings of fine-tuning alone."""
        values: dict[str, Any] = asdict(self)
        return FTConfig(**{f.name: values[f.name] for f in fields(FTConfig)})


@dataclass
class FTLLMHyperParams(_Common):
    """Editing: ``MultimodalEditor.from_hparams(FTLLMHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "FT-LLM"

    _alg: ClassVar[str] = "FT-LLM"
    _title: ClassVar[str] = "FT-LLM"


@dataclass
class FTVisualHyperParams(_Common):
    """Editing: ``MultimodalEditor.from_hparams(FTVisualHyperParams.from_hparams(...))``.

    Raises:
        ConfigError: a value that cannot be used.
    """

    alg_name: str = "FT-VISUAL"

    _alg: ClassVar[str] = "FT-VISUAL"
    _title: ClassVar[str] = "FT-Visual"
