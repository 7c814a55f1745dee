"""Changes of linear modules, and the hooks that add them to a model's outputs row by row.

Shapes: B rows, r rank, ``in`` and ``out`` the sizes of a linear module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn


class LowRank(NamedTuple):
    """W + up^T down: the module's output gets ``x down^T up``; down [r, in], up [r, out]."""

    down: Tensor
    up: Tensor


class Full(NamedTuple):
    """W + weight: the module's output gets ``x weight^T``; weight [out, in]."""

    weight: Tensor


class Neurons(NamedTuple):
    """Further neurons of a feed-forward block, on the last of its modules: the output gets
    ``act(x keys^T + bias) values``, where x is what the module ``reads`` is given; keys [r, in],
    bias [r], values [r, out], ``act`` a function of ``torch.nn.functional``."""

    keys: Tensor
    bias: Tensor
    values: Tensor
    reads: str
    act: str


Change: TypeAlias = "LowRank | Full | Neurons"
# What an edit changes, by the names of ``Backbone.linear_modules``.
Delta: TypeAlias = "dict[str, Change]"


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
            changes = [delta.get(name) for delta in deltas]
            adder = _Adder(changes)
            for reads in {c.reads for c in changes if isinstance(c, Neurons)}:
                hooks.append(modules[reads].register_forward_pre_hook(adder.read))
            if any(change is not None for change in changes):
                hooks.append(module.register_forward_hook(adder))
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

    def __init__(self, changes: Sequence[Change | None]) -> None:
        self.count = len(changes)
        distinct = {id(c): c for c in changes if c is not None}
        self.stacked: Change | None = None
        self.groups: list[tuple[Change, list[int]]] = []
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

    def read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A pre-hook that keeps what further neurons are to read."""
        self.seen = args[0]

    def _rows(self, change: Change, x: Tensor) -> Tensor:
        x = self.seen if isinstance(change, Neurons) else x
        # [B, T, in], or [B * T, in] where a decoder flattens; beams make B * k of B rows.
        return x.reshape(self.count, -1, x.shape[-1])

    def __call__(self, module: nn.Linear, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = args[0]
        if self.stacked is not None:
            added = _through(self._rows(self.stacked, x), self.stacked)
        elif self.count == 1:
            added = _through(self._rows(self.groups[0][0], x), self.groups[0][0])
        else:
            parts = [_through(self._rows(c, x)[where], c) for c, where in self.groups]
            if self.rest:
                size = (len(self.rest), parts[0].shape[1], output.shape[-1])
                parts.append(parts[0].new_zeros(size))
            added = torch.cat(parts)[self.place]
        return output + added.reshape(output.shape).to(output.dtype)


def _stack(changes: Sequence[Change]) -> Change | None:
    """Changes of one kind as one, [B, ...], ranks filled up with zeros; ``None`` for a mixture."""
    kinds = {type(change) for change in changes}
    if len(kinds) > 1:
        return None
    first = changes[0]
    if isinstance(first, Full):
        return Full(torch.stack([c[0] for c in changes]))
    rank = max(len(c[0]) for c in changes)

    def stacked(k: int) -> Tensor:
        parts: list[Any] = [c[k] for c in changes]
        return torch.stack(
            [nn.functional.pad(p, (*(0, 0) * (p.dim() - 1), 0, rank - len(p))) for p in parts]
        )

    if isinstance(first, LowRank):
        return LowRank(stacked(0), stacked(1))
    return first._replace(keys=stacked(0), bias=stacked(1), values=stacked(2))


def _through(rows: Tensor, change: Change) -> Tensor:
    """What ``change`` adds: rows [B, T, in] -> [B, T, out]."""
    parts = [part.to(rows.device) for part in change if isinstance(part, Tensor)]
    rows = rows.to(parts[0].dtype)
    if isinstance(change, Full):
        return rows @ parts[0].transpose(-1, -2)
    if isinstance(change, LowRank):
        return rows @ parts[0].transpose(-1, -2) @ parts[1]
    return fired(rows, change._replace(keys=parts[0], bias=parts[1], values=parts[2]))


def fired(rows: Tensor, neurons: Neurons) -> Tensor:
    """What ``neurons`` give out: [..., T, in] -> [..., T, out]."""
    before = rows @ neurons.keys.transpose(-1, -2) + neurons.bias.unsqueeze(-2)
    return getattr(nn.functional, neurons.act)(before) @ neurons.values
