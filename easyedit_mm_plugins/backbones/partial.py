"""Running a part of a decoder: reading layers' outputs, ending below a layer, starting above it.

Everything here is a context manager that puts back what it touched, however it ends. Leaving layers
out (:func:`only_below`, :func:`starting_above`) acts on every thread that uses the decoder;
:func:`capture` only on its own.

Shapes: B rows of a batch, T its positions, D hidden size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def hidden_of(output: Any) -> Tensor:
    """The hidden states in a layer's output: a tuple's first, or, in newer models, all of it."""
    return output[0] if isinstance(output, tuple) else output


def with_hidden(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


class Captured(dict[int, Tensor]):
    """Outputs ``[B, T, D]`` by layer; ``plain`` says that layers return bare tensors."""

    plain = False


@contextmanager
def capture(decoder: Any, layers: Sequence[int]) -> Iterator[Captured]:
    """Forward passes inside leave the outputs of ``layers`` in the dictionary."""
    found = Captured()
    mine = threading.get_ident()

    def keep(index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if threading.get_ident() == mine:
                found[index] = _own(decoder, hidden_of(output))
                found.plain = not isinstance(output, tuple)

        return hook

    with ExitStack() as stack:
        for index in dict.fromkeys(layers):
            handle = decoder.layers[index].register_forward_hook(keep(index))
            stack.callback(handle.remove)
        yield found


def _own(decoder: Any, hidden: Tensor) -> Tensor:
    """A copy, where the decoder writes into what its layers give out: Qwen3-VL's adds image
    features there, in some versions in place."""
    return hidden.clone() if hasattr(decoder, "_deepstack_process") else hidden


@contextmanager
def only_below(decoder: Any, count: int) -> Iterator[None]:
    """Forward passes inside end after the first ``count`` layers."""
    with _swapped(decoder, decoder.layers[:count]):
        yield


@contextmanager
def starting_above(decoder: Any, layer: int, hidden: Tensor, *, plain: bool) -> Iterator[None]:
    """Forward passes inside take ``hidden [B, T, D]`` for the output of ``layer``.

    The layers up to it do not run; hooks on ``layer`` see its given output.

    Args:
        plain: whether layers return bare tensors, see :class:`Captured`.
    """
    skipped = []
    for below in decoder.layers[: layer + 1]:
        given = _own(decoder, hidden)
        skipped.append(_Given(below, given if plain else (given,)))
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
def _swapped(decoder: Any, layers: nn.ModuleList) -> Iterator[None]:
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
