"""Changes of linear modules, and the hooks that add them to a model's outputs row by row.

Shapes: B rows, r rank, ``in`` and ``out`` the sizes of a linear module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn


class LowRank(NamedTuple):
    """W + up^T down: the module's output gets ``x down^T up``; down [r, in], up [r, out]."""

    down: Tensor
    up: Tensor


class Full(NamedTuple):
    """W + weight: the module's output gets ``x weight^T``; weight [out, in]."""

    weight: Tensor


# What an edit changes, by the names of ``Backbone.linear_modules``.
Delta: TypeAlias = "dict[str, LowRank | Full]"


@contextmanager
def applied(modules: dict[str, nn.Linear], deltas: Sequence[Delta]) -> Iterator[None]:
    """Inside the block row i of every forward through ``modules`` is under ``deltas[i]``.

    A row may have grown to several (beams), as long as they lie one after the other. The hooks are
    removed in every exit path.
    """
    if deltas and all(delta is deltas[0] for delta in deltas):
        deltas = deltas[:1]  # one change for all rows
    hooks = []
    try:
        for name, module in modules.items():
            if any(name in delta for delta in deltas):
                changes = [delta.get(name) for delta in deltas]
                hooks.append(module.register_forward_hook(_Adder(module, changes)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def applied_apart(
    modules: Mapping[str, nn.Linear], weights: Mapping[str, Tensor]
) -> Iterator[None]:
    """As :func:`applied`, row i under the full changes ``weights[name][i]``, [B, out, in].

    For training many changes side by side: nothing is stacked anew for each forward pass.
    """
    hooks = []
    try:
        for name, weight in weights.items():
            hooks.append(modules[name].register_forward_hook(_adding(weight)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(weight: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = args[0].reshape(len(weight), -1, args[0].shape[-1])
        return output + _through(rows, Full(weight)).reshape(output.shape).to(output.dtype)

    return add


class _Adder:
    """The forward hook of one module. Rows under the same change share it: a real model's full
    change is too large to hold once for each of them."""

    def __init__(self, module: nn.Linear, changes: Sequence[LowRank | Full | None]) -> None:
        self.count = len(changes)
        distinct = {id(c): c for c in changes if c is not None}
        self.stacked: LowRank | Full | None = None
        self.groups: list[tuple[LowRank | Full, list[int]]] = []
        if len(distinct) == self.count > 1:
            self.stacked = _stack(list(distinct.values()))
        if self.stacked is None:
            self.groups = [
                (change, [i for i, c in enumerate(changes) if c is change])
                for change in distinct.values()
            ]
        self.rest = [i for i, c in enumerate(changes) if c is None]
        order = [i for _, rows in self.groups for i in rows] + self.rest
        self.place = sorted(range(len(order)), key=order.__getitem__)

    def __call__(self, module: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        # [B, T, in], or [B * T, in] where a decoder flattens; beams make B * k of B rows.
        rows = x.reshape(self.count, -1, x.shape[-1])
        if self.stacked is not None:
            added = _through(rows, self.stacked)
        elif self.count == 1:
            added = _through(rows, self.groups[0][0])
        else:
            parts = [_through(rows[where], change) for change, where in self.groups]
            if self.rest:
                size = (len(self.rest), rows.shape[1], output.shape[-1])
                parts.append(parts[0].new_zeros(size))
            added = torch.cat(parts)[self.place]
        return output + added.reshape(output.shape).to(output.dtype)


def _stack(changes: Sequence[LowRank | Full]) -> LowRank | Full | None:
    """Changes of one kind as one, [B, ...], ranks filled up with zeros; ``None`` for a mixture."""
    full = [c.weight for c in changes if isinstance(c, Full)]
    low = [c for c in changes if isinstance(c, LowRank)]
    if full and low:
        return None
    if full:
        return Full(torch.stack(full))
    rank = max(len(c.down) for c in low)
    return LowRank(
        *(
            torch.stack([nn.functional.pad(c[k], (0, 0, 0, rank - len(c[k]))) for c in low])
            for k in (0, 1)
        )
    )


def _through(rows: Tensor, change: LowRank | Full) -> Tensor:
    """What ``change`` adds: rows [B, T, in] -> [B, T, out]."""
    parts = [part.to(rows.device) for part in change]
    rows = rows.to(parts[0].dtype)
    if isinstance(change, Full):
        return rows @ parts[0].transpose(-1, -2)
    return rows @ parts[0].transpose(-1, -2) @ parts[1]
