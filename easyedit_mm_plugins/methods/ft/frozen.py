"""What fine-tuning steps share: everything below the first weight that changes runs once.

:class:`DecoderEdits` is for changes in the decoder's last layers: the input of the first of them
does not change from step to step, so it is kept and only the layers above run.
:class:`ConnectorEdits` is for changes in the connector: the vision tower's states are kept.

Shapes: B edits, T positions, D hidden size, n_i answer tokens of edit i.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.partial import capture, only_below, starting_above
from ...backbones.splice import Batch, answer_logits, hidden_states
from ...data.records import Question
from ..row_hooks import applied_apart


class EditsOnFrozen(ABC):
    """The edits of one batch, ready to be run under changed weights again and again.

    Args:
        backbone: the base model.
        modules: the linear modules that change, by the names of ``Backbone.linear_modules``.
        edits: with their answers.
        with_stop: answers end with the token that ends generation.
    """

    def __init__(
        self,
        backbone: Backbone,
        modules: Mapping[str, nn.Linear],
        edits: Sequence[Question],
        with_stop: bool,
    ) -> None:
        self.backbone, self.modules = backbone, dict(modules)
        self.edits, self.with_stop = list(edits), with_stop

    def losses(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Mean negative log likelihood [B] of each answer, edit i under ``weights[name][i]``.

        Differentiable in the changes [B, out, in] that ``weights`` holds by module name.
        """
        logits = self.logits(weights)
        every = torch.cat(logits)
        every = every.to(wide(every))
        targets = torch.tensor(
            [t for answer in self.answers for t in answer], device=every.device, dtype=torch.long
        )
        losses = nn.functional.cross_entropy(every, targets, reduction="none")
        return torch.stack([part.mean() for part in losses.split([len(x) for x in logits])])

    @property
    @abstractmethod
    def answers(self) -> list[list[int]]:
        """The target tokens of each edit."""

    @abstractmethod
    def logits(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Teacher-forced logits [n_i, vocab] of each answer, edit i under ``weights[name][i]``."""

    @abstractmethod
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these edits only."""


class DecoderEdits(EditsOnFrozen):
    """For changes of decoder layers."""

    @torch.no_grad()
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batch = self.backbone.batch(self.edits, with_answers=True, with_stop=self.with_stop)
        self.lm, self.decoder = self.backbone.language_model, self.backbone.decoder
        # The last layer that no edit changes; -1: there is none.
        self.below = min(int(name.split(".")[1]) for name in self.modules) - 1
        if self.below >= 0:
            below = only_below(self.decoder, self.below + 1)
            with below, capture(self.decoder, [self.below]) as outputs:
                hidden_states(self.lm, self.batch)
            self.hidden, self.plain = outputs[self.below], outputs.plain

    @property
    def answers(self) -> list[list[int]]:
        return self.batch.answers

    def logits(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        with ExitStack() as stack:
            if self.below >= 0:
                above = starting_above(self.decoder, self.below, self.hidden, plain=self.plain)
                stack.enter_context(above)
            stack.enter_context(applied_apart(self.modules, weights))
            return answer_logits(self.lm, self.batch)

    def keep(self, rows: Sequence[int]) -> None:
        self.edits = [self.edits[i] for i in rows]
        if self.below >= 0:
            self.hidden = self.hidden[rows]
        self.batch = _rows_of(self.batch, rows)


class ConnectorEdits(EditsOnFrozen):
    """For changes of the connector."""

    @torch.no_grad()
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.rows = self.backbone.rows(self.edits, with_answers=True, with_stop=self.with_stop)
        self.states = self.backbone.vision_states([edit.image for edit in self.edits])

    @property
    def answers(self) -> list[list[int]]:
        return [row.answer for row in self.rows]

    def logits(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        base = self.backbone
        batch = base.batch(
            self.edits,
            with_answers=True,
            with_stop=self.with_stop,
            embedded=self._embedded(weights),
        )
        return answer_logits(base.language_model, batch)

    def _embedded(self, weights: Mapping[str, Tensor]) -> Any:
        if not self.backbone.ragged:
            with applied_apart(self.modules, weights):
                return self.backbone.connect(self.states)
        embedded: list[Any] = []
        for row, state in enumerate(self.states):
            own = {name: weight[row : row + 1] for name, weight in weights.items()}
            with applied_apart(self.modules, own):
                embedded += self.backbone.connect([state])
        return embedded

    def keep(self, rows: Sequence[int]) -> None:
        self.edits, self.rows = [self.edits[i] for i in rows], [self.rows[i] for i in rows]
        ragged = self.backbone.ragged
        self.states = [self.states[i] for i in rows] if ragged else self.states[rows]


def wide(values: Tensor) -> torch.dtype:
    """The dtype in which losses, changes and moments are kept: float32, or what is wider."""
    return torch.promote_types(values.dtype, torch.float32)


def _rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    parts: dict[str, Any] = {
        name: value[list(rows)] for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **parts, answers=[batch.answers[i] for i in rows])
