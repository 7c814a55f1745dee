"""Reaching into a decoder: reading layers, editing their outputs, starting above them.

Everything here is a context manager that puts back what it touched, however it ends. Nothing
outlives the forward pass it was made for, and hooks act in their own thread only, so editors on one
base model do not meet. Leaving layers out (:func:`only_below`, :func:`starting_above`) is for
training alone: another thread would miss them.

Shapes: B rows of a batch, T its positions, D hidden size, F rows per row of the batch that a
generating language model makes of it (beams).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.splice import Batch
from .adapters import Adapter
from .config import DualEditConfig


def decoder_of(backbone: Backbone) -> nn.Module:
    """The module whose ``layers`` are the backbone's decoder layers.

    Raises:
        BackboneError: no list of layers was found.
    """
    layers = backbone.layers
    return next(
        m for m in backbone.language_model.modules() if getattr(m, "layers", None) is layers
    )


def _hidden(output: Any) -> Tensor:
    """The hidden states in a layer's output: a tuple's first, or, in newer models, all of it."""
    return output[0] if isinstance(output, tuple) else output


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


class Captured(dict[int, Tensor]):
    """Outputs ``[B, T, D]`` by layer; ``plain`` says that layers return bare tensors."""

    plain = False


@contextmanager
def capture(decoder: nn.Module, layers: Sequence[int]) -> Iterator[Captured]:
    """Forward passes inside leave the outputs of ``layers`` in the dictionary."""
    found = Captured()
    mine = threading.get_ident()

    def keep(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == mine:
                found[index] = _hidden(output)
                found.plain = not isinstance(output, tuple)

        return hook

    with ExitStack() as stack:
        for index in dict.fromkeys(layers):
            handle = decoder.layers[index].register_forward_hook(keep(index))
            stack.callback(handle.remove)
        yield found


@contextmanager
def only_below(decoder: nn.Module, count: int) -> Iterator[None]:
    """Forward passes inside end after the first ``count`` layers."""
    with _swapped(decoder, decoder.layers[:count]):
        yield


@contextmanager
def starting_above(
    decoder: nn.Module, layer: int, hidden: Tensor, *, plain: bool
) -> Iterator[None]:
    """Forward passes inside take ``hidden [B, T, D]`` for the output of ``layer``.

    The layers up to it do not run; hooks on ``layer`` see its given output.

    Args:
        plain: whether layers return bare tensors, see :class:`Captured`.
    """
    given = hidden if plain else (hidden,)
    skipped = [_Given(below, given) for below in decoder.layers[: layer + 1]]
    with _swapped(decoder, nn.ModuleList([*skipped, *decoder.layers[layer + 1 :]])):
        yield


@contextmanager
def feed_forward_at(layer: nn.Module, needed: Tensor) -> Iterator[None]:
    """Passes inside compute ``layer``'s feed-forward part where ``needed`` [B, T] is true only.

    For the last layer, of which no other position is read; elsewhere its output is of no use. A
    layer that has no such part by the name of ``mlp`` is left as it is.
    """
    whole = getattr(layer, "mlp", None)
    if whole is None:
        yield
        return
    layer.mlp = _At(whole, needed)
    try:
        yield
    finally:
        layer.mlp = whole


class _At(nn.Module):
    """A module that works position by position, at some of them."""

    def __init__(self, whole: nn.Module, needed: Tensor) -> None:
        super().__init__()
        self.whole, self.needed = whole, needed

    def forward(self, hidden: Tensor) -> Tensor:
        found = torch.zeros_like(hidden)
        found[self.needed] = self.whole(hidden[self.needed])
        return found


@contextmanager
def _swapped(decoder: nn.Module, layers: nn.ModuleList) -> Iterator[None]:
    whole = decoder.layers
    decoder.layers = layers
    try:
        yield
    finally:
        decoder.layers = whole


class _Given(nn.Module):
    """Stands for a layer whose output is known. Decoders read attributes of their layers."""

    def __init__(self, layer: nn.Module, output: Any) -> None:
        super().__init__()
        self.stands_for, self.output = [layer], output  # in a list: not a submodule

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["stands_for"][0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


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
        decoder: see :func:`decoder_of`.
        config, adapters: the editor's.
        batch: what the first forward pass will be given.
        decide: called once, with the outputs ``[B, T, D]`` of the gate's layer.
    """

    def __init__(
        self,
        decoder: nn.Module,
        config: DualEditConfig,
        adapters: Sequence[Adapter],
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
            self.past = _cached_length(kwargs.get("past_key_values"))

    def _hook(self, index: int) -> None:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if threading.get_ident() != self.thread:
                return None
            if self.chosen is None:
                self._decide(_hidden(output))
            return self._output(index, output)

        self._hooked.add(index)
        self._handles.append(self.decoder.layers[index].register_forward_hook(hook))

    def _decide(self, hidden: Tensor) -> None:
        times = len(hidden) // self.size
        self.chosen = self.decide(hidden if times == 1 else hidden[::times])
        if len(self.chosen.rows):
            self._hook_adapters()
        else:
            self._handles.pop().remove()

    def _output(self, index: int, output: Any) -> Any:
        """A layer's output as it is edited there; ``None``: it is not."""
        hidden = before = _hidden(output)
        if not len(self.chosen.rows):
            return None
        for number, adapter in enumerate(self.config.adapters):
            if adapter.layer == index:
                hidden = self._edit(hidden, number)
        return None if hidden is before else _with_hidden(output, hidden)

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Which positions ``[B, T]`` of the batch are edited, by the adapters' kind of token."""
        batch = self.batch
        text = batch.attention_mask.bool() & ~batch.image_mask
        if self.config.text_tokens == "prompt":
            text &= ~batch.answer_mask
        return {"text": text, "visual": batch.image_mask}

    def _edit(self, hidden: Tensor, number: int) -> Tensor:
        """``hidden`` [B F, T', D] with the adapter's tokens of the chosen rows replaced."""
        rows, mask = self.chosen.rows, self._mask(number, hidden)
        if not len(rows) or mask is None:
            return hidden
        part = mask[rows]
        columns = part.any(0).nonzero().flatten()
        if not len(columns):
            return hidden
        first, last = int(columns[0]), int(columns[-1]) + 1
        memory, times = self.chosen.memory[number], len(hidden) // self.size
        if times > 1:
            rows = (rows[:, None] * times + torch.arange(times, device=rows.device)).flatten()
            part = part.repeat_interleave(times, 0)
            memory = tuple(m.repeat_interleave(times, 0) for m in memory)
        old = hidden[rows, first:last]
        new = self.adapters[number](old, *memory)
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
