"""The losses of a patch beside that of its edit (Huang et al. 2023, section 4.2).

A neuron should fire on the place it was made for, its query (l_a), and be silent on what the model
already knows (l_m1), far more than on its query (l_m2). A neuron's activation is read before its
activation function.

Shapes: B edits, n neurons of an edit (at most), M places of the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import TPatcherConfig


def top_mean(values: Tensor, real: Tensor, k: int) -> Tensor:
    """S(x; k) = mean of the k largest exp(x), [B]; of ``values [B, m]`` where ``real [B, m]``.

    Where less than k values are real, it is the mean of them all; 0 where none is.
    """
    largest = values.exp().where(real, values.new_zeros(())).topk(min(k, values.shape[1])).values
    return largest.sum(-1) / real.sum(-1).clamp(1, k)


def activation_loss(own: Tensor, real: Tensor, config: TPatcherConfig) -> Tensor:
    """l_a [B] = S(-(q k + b); k_a): of each neuron's activation ``own [B, n]`` on its query."""
    return top_mean(-own, real, config.act_top)


def memory_loss(memory: Tensor, own: Tensor, real: Tensor, config: TPatcherConfig) -> Tensor:
    """l_m [B] = l_m1 + l_m2, from the activations ``memory [B, M, n]`` and ``own [B, n]``.

    l_m1 = S(M k + b - beta; k_m), l_m2 = S((M k + b) - (q k + b) + gamma; k_m).
    """
    everywhere = real[:, None].expand_as(memory).flatten(1)
    loud, near = memory - config.beta, memory - own[:, None] + config.gamma
    return sum(
        (top_mean(x.flatten(1), everywhere, config.memory_top) for x in (loud, near)),
        torch.zeros_like(own[:, 0]),
    )
