"""What an editing method put into a model: taken out, and put in again while questions are asked.

EasyEdit's methods replace modules of a model by their own, which hold the replaced ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Swap:
    """Where a module stood in ``parent``, and what a method put in its place."""

    parent: nn.Module
    name: str
    old: nn.Module
    new: nn.Module


def put(swaps: list[Swap], *, edited: bool) -> None:
    """The edited modules, or the model's own, in their places."""
    for swap in swaps:
        setattr(swap.parent, swap.name, swap.new if edited else swap.old)


def copied(swaps: list[Swap]) -> list[Swap]:
    """Edited modules as they are now, around the same modules of the model."""
    own: dict[int, Any] = {id(swap.old): swap.old for swap in swaps}
    return [replace(swap, new=copy.deepcopy(swap.new, own)) for swap in swaps]


@contextmanager
def swapped(swaps: list[Swap]) -> Iterator[None]:
    """The edited modules are in the model inside the block."""
    put(swaps, edited=True)
    try:
        yield
    finally:
        put(swaps, edited=False)


@contextmanager
def watched(model: Any, before: list[Swap]) -> Iterator[list[Swap]]:
    """Edited modules ``before`` are in place inside the block, where a method edits on.

    The list is filled when the block ends, with all that differ from the model's own by then;
    these, and what else was changed in the model, are then taken out again: how it computes
    gradients, its precision and its attributes.
    """
    own = _places(model)
    dtypes = {id(p): p.dtype for p in model.parameters()}
    names, use_cache = set(vars(model)), getattr(model.config, "use_cache", None)
    hung = {module: set(module._forward_hooks) for module in model.modules()}
    found: list[Swap] = []
    put(before, edited=True)
    try:
        yield found
    finally:
        if getattr(model, "is_gradient_checkpointing", False):
            model.gradient_checkpointing_disable()
        for module, keys in hung.items():  # EasyEdit hangs some on, and peft others
            for key in set(module._forward_hooks) - keys:
                del module._forward_hooks[key]
        for name in set(vars(model)) - names:
            delattr(model, name)
        if use_cache is None:
            vars(model.config).pop("use_cache", None)
        else:
            model.config.use_cache = use_cache
        for (parent, name), module in _places(model).items():
            old = own.get((parent, name))
            if old is not None and old is not module:
                found.append(Swap(parent, name, old, module))
        put(found, edited=False)
        for parameter in model.parameters():
            if parameter.dtype != dtypes.get(id(parameter), parameter.dtype):
                parameter.data = parameter.data.to(dtypes[id(parameter)])


def _places(model: nn.Module) -> dict[tuple[nn.Module, str], nn.Module]:
    """Every module below ``model`` by its parent and its name there."""
    return {
        (parent, name): child
        for parent in model.modules()
        for name, child in parent.named_children()
    }
