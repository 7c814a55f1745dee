"""What fine-tuning steps share: everything below the first weight that changes runs once.

:class:`Language` is for changes in the decoder's last layers: the input of the first of them does
not change from step to step, so it is kept and only the layers above run. :class:`Visual` is for
changes in the connector: the vision tower's states are kept.

Shapes: B edits, T positions, D hidden size, n_i answer tokens of edit i.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.splice import Batch, Row, answer_logits, assemble
from ...data.records import Question
from ..row_hooks import applied_apart


class Frozen(ABC):
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


class Language(Frozen):
    """For changes of decoder layers."""

    @torch.no_grad()
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.batch = self.backbone.batch(self.edits, with_answers=True, with_stop=self.with_stop)
        self.layers = self.backbone.layers
        self.first = min(int(name.split(".")[1]) for name in self.modules)
        self.lm = upper_layers(self.backbone.language_model, self.layers, self.first)
        self.hidden = self._input()

    def _input(self) -> Tensor:
        """The input [B, T, D] of the first changed layer."""
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple, kwargs: dict) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        hook = self.layers[self.first].register_forward_pre_hook(catch, with_kwargs=True)
        try:
            answer_logits(self.backbone.language_model, self.batch)
        except _Reached:
            pass
        finally:
            hook.remove()
        return caught[0]

    @property
    def answers(self) -> list[list[int]]:
        return self.batch.answers

    def logits(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        apart = applied_apart(self.modules, weights)
        with _given(self.layers[self.first], self.hidden), apart:
            return answer_logits(self.lm, self.batch)

    def keep(self, rows: Sequence[int]) -> None:
        self.edits = [self.edits[i] for i in rows]
        self.hidden = self.hidden[rows]
        self.batch = _rows_of(self.batch, rows)


class Visual(Frozen):
    """For changes of the connector."""

    @torch.no_grad()
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        base = self.backbone
        self.rows = base.rows(self.edits, with_answers=True, with_stop=self.with_stop)
        self.states = base.vision_states([edit.image for edit in self.edits])

    @property
    def answers(self) -> list[list[int]]:
        return [row.answer for row in self.rows]

    def logits(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        with applied_apart(self.modules, weights):
            embedded = self.backbone.connect(self.states)
        rows = [
            Row([seen if isinstance(s, Tensor) else s for s in row.segments], row.answer)
            for row, seen in zip(self.rows, embedded, strict=True)
        ]
        batch = assemble(rows, self.backbone.embed)
        return answer_logits(self.backbone.language_model, batch)

    def keep(self, rows: Sequence[int]) -> None:
        self.edits, self.rows = [self.edits[i] for i in rows], [self.rows[i] for i in rows]
        self.states = self.states[rows]


def wide(values: Tensor) -> torch.dtype:
    """The dtype in which losses, changes and moments are kept: float32, or what is wider."""
    return torch.promote_types(values.dtype, torch.float32)


class _Reached(Exception):
    """No error: the layer that was wanted has been reached."""


@contextmanager
def _given(layer: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Inside the block ``layer`` gets ``hidden`` as its input, whatever it is called with."""

    def put(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    hook = layer.register_forward_pre_hook(put, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def upper_layers(lm: nn.Module, layers: nn.ModuleList, first: int) -> nn.Module:
    """``lm`` without its first layers: the very same modules, held by copies of their holders.

    A model that replaced its ``forward`` (one spread over devices) runs them all again; the result
    is the same.
    """
    path = next(name for name, module in lm.named_modules() if module is layers)
    top = holder = _shallow(lm)
    for part in path.split(".")[:-1]:
        inner = _shallow(holder._modules[part])
        holder._modules[part] = inner
        holder = inner
    holder._modules[path.rpartition(".")[2]] = nn.ModuleList(list(layers)[first:])
    return top


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    parts = {
        name: value[list(rows)] for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, **parts, answers=[batch.answers[i] for i in rows])
