"""Editing a decoder's forward passes on a batch.

An :class:`EditedPass` puts back what it touched, however it ends, and its hooks act in their own
thread only, so editors on one base model do not meet.

Shapes: B rows of a batch, T its positions, D hidden size, F rows per row of the batch that a
generating language model makes of it (beams).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.partial import hidden_of, with_hidden
from ...backbones.splice import Batch
from .adapters import Adapters
from .config import DualEditConfig


@dataclass
class Chosen:
    """Which rows are edited, and by what.

    Attributes:
        rows: ``[R]``, indices into the batch.
        memory: for each adapter the keys, values and mask of :func:`adapters.pad_memory`.
    """

    rows: Tensor
    memory: list[tuple[Tensor, Tensor, Tensor]]


class EditedPass:
    """Edits a decoder's forward passes on one batch, and on what is generated after it.

    Args:
        decoder: see :attr:`Backbone.decoder`.
        config, adapters: the editor's.
        batch: what the first forward pass will be given.
        decide: called once, with the outputs ``[B, T, D]`` of the gate's layer.
    """

    def __init__(
        self,
        decoder: Any,
        config: DualEditConfig,
        adapters: Adapters,
        batch: Batch,
        decide: Callable[[Tensor], Chosen],
    ) -> None:
        self.decoder, self.config, self.adapters = decoder, config, adapters
        self.size, self.width = batch.attention_mask.shape
        self.batch, self.decide = batch, decide
        self.chosen: Chosen | None = None
        self.past = 0
        self.thread = threading.get_ident()
        self._handles: list[Any] = []
        self._hooked: set[int] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hooks are on the decoder inside the block, and nowhere after it.

        At first there is one, on the gate's layer; the others come when a gate has opened, and
        where none has, that one goes too.
        """
        try:
            if self.chosen is None:
                self._hook(self.config.gate_layer)
            else:
                self._hook_adapters()
            yield
        finally:
            for handle in self._handles:
                handle.remove()

    def _hook_adapters(self) -> None:
        watch = self.decoder.register_forward_pre_hook(self._begin, with_kwargs=True)
        self._handles.append(watch)
        for index in sorted({a.layer for a in self.config.adapters} - self._hooked):
            self._hook(index)

    def _begin(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == self.thread:
            # Called "cache" by transformers from 5.24 on.
            cache = kwargs.get("past_key_values")
            self.past = _cached_length(kwargs.get("cache") if cache is None else cache)

    def _hook(self, index: int) -> None:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != self.thread:
                return None
            chosen = self._decide(hidden_of(output)) if self.chosen is None else self.chosen
            return self._output(index, output, chosen)

        self._hooked.add(index)
        self._handles.append(self.decoder.layers[index].register_forward_hook(hook))

    def _decide(self, hidden: Tensor) -> Chosen:
        times = len(hidden) // self.size
        chosen = self.chosen = self.decide(hidden if times == 1 else hidden[::times])
        if len(chosen.rows):
            self._hook_adapters()
        else:
            self._handles.pop().remove()
        return chosen

    def _output(self, index: int, output: Any, chosen: Chosen) -> Any:
        """A layer's output as it is edited there; ``None``: it is not."""
        hidden = before = hidden_of(output)
        if not len(chosen.rows):
            return None
        for number, adapter in enumerate(self.config.adapters):
            if adapter.layer == index:
                hidden = self._edit(hidden, number, chosen)
        return None if hidden is before else with_hidden(output, hidden)

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Which positions ``[B, T]`` of the batch are edited, by the adapters' kind of token."""
        batch = self.batch
        text = batch.attention_mask.bool() & ~batch.image_mask
        if self.config.text_tokens == "prompt":
            text &= ~batch.answer_mask
        return {"text": text, "visual": batch.image_mask}

    def _edit(self, hidden: Tensor, number: int, chosen: Chosen) -> Tensor:
        """``hidden`` [B F, T', D] with the adapter's tokens of the chosen rows replaced."""
        rows, mask = chosen.rows, self._mask(number, hidden)
        if not len(rows) or mask is None:
            return hidden
        part = mask[rows]
        columns = part.any(0).nonzero().flatten()
        if not len(columns):
            return hidden
        first, last = int(columns[0]), int(columns[-1]) + 1
        (keys, values, seen), times = chosen.memory[number], len(hidden) // self.size
        if times > 1:
            rows = (rows[:, None] * times + torch.arange(times, device=rows.device)).flatten()
            part = part.repeat_interleave(times, 0)
            keys, values, seen = (m.repeat_interleave(times, 0) for m in (keys, values, seen))
        old = hidden[rows, first:last]
        new = self.adapters[number](old, keys, values, seen)
        edited = hidden.clone()
        edited[rows, first:last] = torch.where(part[:, first:last, None], new, old)
        return edited

    def _mask(self, number: int, hidden: Tensor) -> Tensor | None:
        """Which of the pass's positions the adapter edits, ``[B, T']``; ``None``: none.

        A pass holds the whole batch, perhaps with generated tokens after it, or, where a cache
        holds what came before, generated tokens alone.
        """
        tokens, length = self.config.adapters[number].tokens, hidden.shape[1]
        generated = tokens == "text" and self.config.text_tokens == "all"
        new = length if self.past else length - self.width
        if self.past and not generated:
            return None
        mask = self.masks[tokens]
        after = mask.new_full((self.size, new), generated)
        return after if self.past else torch.cat([mask, after], dim=1)


def _cached_length(cache: Any) -> int:
    """How many positions a key-value cache holds, in either of transformers' forms."""
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    return cache[0][0].shape[-2] if len(cache) and cache[0] is not None else 0
