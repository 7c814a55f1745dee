"""Where training of released-form adapters starts, on decoders whose tokens have a large norm.

Drawn plainly, every head begins with the mean of an edit sample's tokens, of which the answer is
one in dozens, and its change is a hundredth of a token's norm: training then stays at the answers'
prior for long. Here the heads begin at the answer's tokens and the values at what tells answers
apart, both by linear regression on training edits. Neither paper nor release says where to start;
the adapters' form is untouched, and an untrained adapter still changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConfigError
from .adapters import ReleasedAdapter
from .frozen import Frozen

_SHARP = 4.0  # logit of an answer's token over the others
_SIZE = 5.0  # root mean square of values


def start_at_answers(
    adapters: Sequence[ReleasedAdapter],
    layers: Sequence[int],
    edits: Sequence[Frozen],
) -> None:
    """Set keys, queries and values of ``adapters`` from edit samples' states.

    Args:
        layers: each adapter's.
        edits: of training records, with their states.

    Raises:
        ConfigError: an adapter of another form.
    """
    for adapter, layer in zip(adapters, layers, strict=True):
        if not isinstance(adapter, ReleasedAdapter):
            raise ConfigError("start: answer is for adapters of the released form")
        states = [F.layer_norm(e.states[layer].float(), e.states[layer].shape[-1:]) for e in edits]
        lengths = [min(len(e.answer), len(s)) for e, s in zip(edits, states, strict=True)]
        answers = torch.cat([s[-n:] for s, n in zip(states, lengths, strict=True)])
        ids = torch.tensor([i for e, n in zip(edits, lengths, strict=True) for i in e.answer[:n]])
        with torch.no_grad():
            _attend(adapter, torch.cat(states), _marks(states, lengths))
            _tell_apart(adapter, answers, ids.to(answers.device))


def _marks(states: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    marks = [torch.arange(len(s)) >= len(s) - n for s, n in zip(states, lengths, strict=True)]
    return torch.cat(marks).to(states[0])


def _attend(adapter: ReleasedAdapter, states: Tensor, marks: Tensor) -> None:
    """In each head one key coordinate says "answer", and every query asks for it."""
    direction = _ridge(states, (marks - marks.mean())[:, None])[:, 0]
    score = states @ direction
    direction = direction / (score[marks > 0].mean() - score[marks == 0].mean())
    size = len(adapter.query.weight) // adapter.heads
    for head in range(adapter.heads):
        adapter.key.weight[head * size] = direction
        adapter.query.weight[head * size] = 0
        adapter.query.bias[head * size] = _SHARP * math.sqrt(size)


def _tell_apart(adapter: ReleasedAdapter, answers: Tensor, ids: Tensor) -> None:
    """Values of an answer's token are a random code of it, as far as the state tells it.

    Codes of any two tokens are about equally far apart, however alike their states are.
    """
    width = len(adapter.value.weight)
    known, index = ids.unique(return_inverse=True)
    codes = torch.randn(len(known), width).to(answers)
    weight = _ridge(answers, (codes - codes.mean(0))[index]).T
    values = answers @ weight.T
    scale = _SIZE / (values - values.mean(0)).pow(2).mean().sqrt().clamp(min=1e-6)
    adapter.value.weight.copy_(weight * scale)
    adapter.value.bias.copy_(-(values.mean(0) * scale))


def _ridge(inputs: Tensor, targets: Tensor, strength: float = 1e-3) -> Tensor:
    """Coefficients ``[D, m]`` of ``targets [n, m]`` on centred ``inputs [n, D]``."""
    centred = inputs - inputs.mean(0)
    moment = centred.T @ centred / len(centred)
    moment += strength * torch.eye(len(moment)).to(moment)
    return torch.linalg.solve(moment, centred.T @ targets / len(centred))
