"""Fine-tuning many edits side by side: one forward pass a step, each edit with weights of its own.

An edit's change depends on that edit alone. The loss is summed over edits, so each change gets the
gradient of its own edit; Adam works number by number; an edit that has reached the limit is done
and leaves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from ...core.errors import TrainingError
from ...data.records import Question
from ..deltas import Delta, Full
from .config import FTConfig
from .frozen import EditsOnFrozen, wide

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim's defaults, which KEBench takes


def fine_tune(frozen: EditsOnFrozen, config: FTConfig, start: int = 0) -> list[Delta]:
    """The change that each edit of ``frozen`` learns.

    Args:
        frozen: the edits on their base model; used up.
        start: number of the first edit, for messages.

    Raises:
        TrainingError: a loss or gradient is not finite, or fine-tuning made an edit's answer much
            less likely; names the edit and the step.
    """
    count, edits = len(frozen.edits), list(frozen.edits)
    weights = {
        # A quantised weight has another shape than what it stands for.
        name: torch.zeros(
            *(count, m.out_features, m.in_features), device=m.weight.device, dtype=wide(m.weight)
        )
        for name, m in frozen.modules.items()
    }
    adam = PerRowAdam(frozen.modules, config)
    done: dict[int, Delta] = {}
    live = list(range(count))  # the edit that each row is
    first: list[float] = []
    for step in range(config.num_steps + 1):
        last = step == config.num_steps
        with torch.set_grad_enabled(not last):
            leaves = {name: w.requires_grad_(not last) for name, w in weights.items()}
            losses = frozen.losses(leaves)
            if not last:
                found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        values = losses.detach().tolist()
        first = first or values
        for row, edit in enumerate(live):
            if edit in done:
                continue
            _check(values[row], first[edit], edits[edit], start + edit, step, last)
            if last or values[row] < config.loss_limit:
                done[edit] = {name: Full(w[row].detach().clone()) for name, w in weights.items()}
        if len(done) == count:
            break
        gradients = dict(zip(leaves, found, strict=True))
        # NaN and infinity survive a sum.
        sums = reduce(torch.add, (g.sum((1, 2)).cpu() for g in found))
        for edit, value in zip(live, sums.tolist(), strict=True):
            if edit not in done and not math.isfinite(value):
                raise _diverged("the gradient is not finite", edits[edit], start + edit, step)
        weights = {name: w.detach() for name, w in weights.items()}
        adam.step(weights, gradients)
        going = [row for row, edit in enumerate(live) if edit not in done]
        if len(going) <= 0.75 * len(live):  # copying less often than computing in vain
            live = [live[row] for row in going]
            weights = {name: w[going] for name, w in weights.items()}
            adam.keep(going)
            frozen.keep(going)
    return [done[i] for i in range(count)]


class PerRowAdam:
    """Adam or AdamW on stacked changes [B, out, in], each as if it were alone.

    Weight decay is that of the weight, W + change, as if W itself were trained.
    """

    def __init__(self, modules: Mapping[str, nn.Linear], config: FTConfig) -> None:
        self.modules, self.config, self.count = modules, config, 0
        self.mean: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """One step, in place."""
        self.count += 1
        lr, decay = self.config.edit_lr, self.config.weight_decay
        scale = [1 - beta**self.count for beta in BETAS]
        for name, weight in weights.items():
            gradient = gradients[name]
            if decay:
                whole = weight + self.modules[name].weight
                if self.config.opt == "AdamW":
                    weight.sub_(whole, alpha=lr * decay)
                else:
                    gradient = gradient.add(whole, alpha=decay)
            if name not in self.mean:
                self.mean[name] = torch.zeros_like(weight)
                self.square[name] = torch.zeros_like(weight)
            mean, square = self.mean[name], self.square[name]
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            root = square.sqrt().div_(math.sqrt(scale[1])).add_(EPS)
            weight.addcdiv_(mean, root, value=-lr / scale[0])

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows only."""
        self.mean = {name: value[rows] for name, value in self.mean.items()}
        self.square = {name: value[rows] for name, value in self.square.items()}


def _check(value: float, first: float, edit: Question, number: int, step: int, last: bool) -> None:
    if not math.isfinite(value):
        raise _diverged(f"the loss is {value}", edit, number, step)
    if last and value > first + 1:
        raise _diverged(f"the loss rose from {first:.3g} to {value:.3g}", edit, number, step)


def _diverged(what: str, edit: Question, number: int, step: int) -> TrainingError:
    return TrainingError(
        f"fine-tuning edit {number} ({edit.text!r} -> {edit.answer!r}): {what} at step {step}",
        remedy="lower edit_lr, or change fewer modules (inner_params)",
    )
