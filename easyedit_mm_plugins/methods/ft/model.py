"""FT-LLM and FT-Visual as editors (MSCKE table 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import nn

from ...backbones.base import Backbone
from ...core.errors import ConfigError, DataError, TrainingError
from ...data.records import Question
from ..deltas import Delta, DeltaEditor, linear_modules
from .config import FTConfig
from .frozen import ConnectorEdits, DecoderEdits, EditsOnFrozen
from .tune import fine_tune

LOG = logging.getLogger(__name__)


class FineTuning(DeltaEditor):
    """Fine-tunes some of the model's weights on each edit (question, image, new answer).

    Nothing restrains what else changes; that is what the baseline shows. The base model's weights
    are never written: an edit's change lies beside them (``deltas.py``), so edits are undone to the
    bit and many train and answer in one forward pass, each by itself.

    Args:
        backbone: the base model.
        config: by default :class:`FTConfig`'s defaults.

    Raises:
        ConfigError: no linear module has one of the names, or it is not this method's to change.
    """

    def __init__(self, backbone: Backbone, config: FTConfig | None = None) -> None:
        super().__init__(backbone)
        self.config = FTConfig() if config is None else config
        self.batch_size = self.config.batch_size
        self._used: dict[str, nn.Linear] | None = None
        patterns = self.config.inner_params or self.default_modules()
        self.modules = linear_modules(backbone, patterns)
        wrong = [name for name in self.modules if not self.owns(name)]
        if wrong:
            raise ConfigError(
                f"inner_params: {wrong[0]} is not {self.name}'s to change",
                remedy="FT-LLM changes decoder layers (layers.*), FT-Visual the connector "
                "(connector.*)",
            )
        whole = all(m.weight.is_floating_point() for m in self.modules.values())
        if self.config.weight_decay and not whole:
            raise ConfigError(
                "weight decay needs the weights themselves, which are quantised here",
                remedy="set weight_decay: 0, or load the model in bfloat16",
            )

    @classmethod
    def from_hparams(cls, hparams: Any, backbone: Backbone) -> Self:
        """The editor that EasyEdit's hparams describe."""
        return cls(backbone, hparams.config)

    def owns(self, name: str) -> bool:
        """Whether this method may change the module of that name."""
        raise NotImplementedError

    def default_modules(self) -> list[str]:
        """What is fine-tuned where nobody said."""
        raise NotImplementedError

    def prepare(self, edits: Sequence[Question]) -> EditsOnFrozen:
        """``edits`` on the part of the model that does not change."""
        raise NotImplementedError

    def learn(self, edits: Sequence[Question]) -> list[Delta]:
        """See :class:`DeltaEditor`; ``batch_size`` edits at a time, fewer where memory is short.

        Raises:
            TrainingError: fine-tuning diverges, or memory runs out with a single edit.
        """
        deltas: list[Delta] = []
        while len(deltas) < len(edits):
            start = len(deltas)
            part = edits[start : start + self.batch_size]
            try:
                deltas += fine_tune(self.prepare(part), self.config, start)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                self._shrink(len(part), start)
        return deltas

    def _shrink(self, size: int, done: int) -> None:
        need = 5 * 4 * self.size / 1e6  # change, gradient, two moments, scratch; float32
        if size == 1:
            raise TrainingError(
                f"memory runs out while fine-tuning edit {done}, alone: the change of "
                f"{self.size:,} weights takes about {need:,.0f} MB beside the model's activations",
                remedy="name fewer modules in inner_params, load the model in bfloat16, or use "
                "another device",
            )
        self.batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        LOG.warning(
            "memory ran out with %d edits at a time (about %.0f MB each); the %d finished are "
            "kept, going on with batch_size %d",
            size,
            need,
            done,
            self.batch_size,
        )

    @cached_property
    def size(self) -> int:
        """How many weights an edit changes."""
        return sum(m.out_features * m.in_features for m in self.modules.values())

    def describe(self) -> dict[str, Any]:
        """Modules, their size, and how they are tuned."""
        kept = ("opt", "edit_lr", "num_steps", "loss_limit", "weight_decay", "with_stop")
        settings = {name: getattr(self.config, name) for name in kept}
        return {"modules": list(self.modules), "parameters": self.size, **settings}


class FTLLM(FineTuning):
    """Fine-tunes the last layers of the language model."""

    name = "ft-llm"

    def owns(self, name: str) -> bool:
        """Decoder layers."""
        return name.startswith("layers.")

    def default_modules(self) -> list[str]:
        """The MLP of the last layer."""
        last = f"layers.{len(self.backbone.layers) - 1}."
        every = self.backbone.linear_modules()
        return [name for name in every if name.startswith(last) and "attn" not in name]

    def prepare(self, edits: Sequence[Question]) -> EditsOnFrozen:
        """The layers below run once."""
        return DecoderEdits(self.backbone, self.modules, edits, self.config.with_stop)


class FTVisual(FineTuning):
    """Fine-tunes the connector between vision tower and language model: Q-Former and projection,
    or LLaVA's projector. Questions without an image answer as before."""

    name = "ft-visual"

    def owns(self, name: str) -> bool:
        """The connector."""
        return name.startswith("connector.")

    def default_modules(self) -> list[str]:
        """All of the connector."""
        return ["connector.*"]

    @staticmethod
    def check_edits(edits: Sequence[Question]) -> None:
        """As for every method, and each edit must have an image."""
        FineTuning.check_edits(edits)
        for i, edit in enumerate(edits):
            if edit.image is None:
                raise DataError(
                    "has no image, and FT-Visual changes only what images become",
                    record=f"edit {i}",
                    field="image",
                    remedy="edit text with ft-llm",
                )

    def prepare(self, edits: Sequence[Question]) -> EditsOnFrozen:
        """The vision tower runs once; modules that it never reaches are left alone."""
        return ConnectorEdits(self.backbone, self._reached(edits[0]), edits, self.config.with_stop)

    def _reached(self, edit: Question) -> dict[str, nn.Linear]:
        """Those of the modules that take part in embedding an image: EasyEdit's Q-Former has a
        text branch that no image passes."""
        if self._used is None:
            used: list[str] = []
            hooks = [
                module.register_forward_hook(_noting(used, name))
                for name, module in self.modules.items()
            ]
            try:
                with torch.no_grad():
                    self.backbone.connect(self.backbone.vision_states([edit.image]))
            finally:
                for hook in hooks:
                    hook.remove()
            self._used = {name: m for name, m in self.modules.items() if name in set(used)}
        return self._used


def _noting(names: list[str], name: str) -> Callable[..., None]:
    return lambda *_: names.append(name)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
