"""The gradient of many edits' losses, each kept as its tokens' inputs and output gradients.

One forward and one backward pass serve all edits of a call: rows do not meet in the model, so row
i's output gradients are those of its own loss. Nothing is added to any weight's ``grad``.

Shapes: T positions, n tokens of one edit that the gradient reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.splice import answer_logits
from ...core.errors import TrainingError
from ...data.records import Question


class Factors(NamedTuple):
    """A weight's gradient as a sum over tokens, delta^T x: x [n, in], delta [n, out]."""

    x: Tensor
    delta: Tensor


def edit_gradients(
    backbone: Backbone, modules: Mapping[str, nn.Linear], edits: Sequence[Question]
) -> list[dict[str, Factors]]:
    """For each edit, by module, the :class:`Factors` of -log p(y_e | i_e, t_e), mean over y_e.

    Tokens without gradient are left out; so is a module that none of an edit's tokens reaches (the
    connector, for an edit without an image).

    Raises:
        TrainingError: a gradient is not finite; names the edit and the module.
    """
    pictured = [i for i, edit in enumerate(edits) if edit.image is not None]
    inner = {name for name in modules if name.startswith("connector.")}
    if backbone.ragged and inner and len(edits) > 1:  # a connector sees one image at a time
        return [found for edit in edits for found in edit_gradients(backbone, modules, [edit])]
    rows = {name: pictured if name in inner else list(range(len(edits))) for name in modules}
    with torch.enable_grad(), _captured(modules) as found:
        embedded = None
        if inner and pictured:
            states = backbone.vision_states([edits[i].image for i in pictured])
            embedded = backbone.connect(states)
        batch = backbone.batch(edits, with_answers=True, embedded=embedded)
        logits = answer_logits(backbone.language_model, batch)
        losses = [
            nn.functional.cross_entropy(own.float(), torch.tensor(ids, device=own.device))
            for own, ids in zip(logits, batch.answers, strict=True)
        ]
        names = list(found)
        deltas = torch.autograd.grad(reduce(torch.add, losses), [found[name][1] for name in names])
    factors: list[dict[str, Factors]] = [{} for _ in edits]
    for name, delta in zip(names, deltas, strict=True):
        # [B, T, in], or [B * T, in] where a decoder flattens
        x = found[name][0]
        x = x.reshape(len(rows[name]), -1, x.shape[-1])
        delta = delta.reshape(len(rows[name]), -1, delta.shape[-1])
        for row, own_x, own_delta in zip(rows[name], x, delta, strict=True):
            if not (torch.isfinite(own_x).all() and torch.isfinite(own_delta).all()):
                raise TrainingError(
                    f"edit {row} ({edits[row].text!r}): the gradient at {name} is not finite",
                    remedy="load the base model in float32 or bfloat16, or look at the edit",
                )
            reached = (own_x != 0).any(-1) & (own_delta != 0).any(-1)
            if reached.any():
                factors[row][name] = Factors(own_x[reached].float(), own_delta[reached].float())
    return factors


@contextmanager
def _captured(modules: Mapping[str, nn.Linear]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Input and output of each module in the forward pass inside; a graph begins at the first."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                output.requires_grad_()
            found[name] = (args[0].detach(), output)

        return keep

    handles = [m.register_forward_hook(hook(name)) for name, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
