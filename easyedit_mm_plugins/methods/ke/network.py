"""KE's hypernetwork: an edit's texts and gradient in, a change of weights out (De Cao et al. 2021,
section 4).

A bidirectional LSTM reads the edit; its last states become a condition h. From h each weight matrix
W [out, in] gets vectors a_r, b_r [out] and a_c, b_c [in] and a gate eta, and changes by

    Delta W = sigma(eta) (softmax(a_r) a_c^T * grad W + softmax(b_r) b_c^T),

the gradient, scaled element by element, and a shift of rank one. As the gradient is a sum over
tokens of delta x^T, the change is of low rank, and it is kept so: (softmax(a_r) * delta)
(a_c * x)^T for each token, and one term more for the shift.

The network gives a_c / out instead of a_c: the same functions, but the scale of the gradient begins
as large as a_c and not a thousand times smaller.

Shapes: B edits, n tokens of an edit's gradient, C size of the condition, ``in`` and ``out`` the
sizes of a linear module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ...core.errors import ConfigError
from ..deltas import LowRank
from ..mend.gradients import Factors
from .config import KEConfig

# Sizes (in, out) of each edited module, by name.
Shapes = Mapping[str, tuple[int, int]]


class Head(nn.Module):
    """The vectors of one weight matrix.

    Args:
        shape: (in, out).
        config: see :class:`KEConfig`.
    """

    def __init__(self, shape: tuple[int, int], config: KEConfig) -> None:
        super().__init__()
        inputs, outputs = shape
        self.sizes, self.max_scale = [outputs, inputs, outputs, inputs, 1], config.max_scale
        last = nn.Linear(config.hidden_size, sum(self.sizes))
        with torch.no_grad():  # sigma(0) is a half
            last.bias[outputs : outputs + inputs] -= 2 * config.edit_lr / config.max_scale
        self.inner = weight_norm(nn.Linear(config.condition_size, config.hidden_size))
        self.outer = weight_norm(last)

    def forward(self, condition: Tensor, gradient: Factors) -> LowRank:
        """The change of the matrix, of rank n + 1, from ``condition [C]`` and its gradient."""
        found = self.outer(self.inner(condition).tanh())
        a_row, a_col, b_row, b_col, eta = found.split(self.sizes)
        gate, outputs = self.max_scale * eta.sigmoid(), len(a_row)
        scaled = gradient.delta * (outputs * a_row.softmax(-1))
        down = torch.cat([gradient.x * a_col, b_col[None]])
        return LowRank(down, gate * torch.cat([scaled, b_row.softmax(-1)[None]]))


class HyperNetwork(nn.Module):
    """The reader of edits, and a :class:`Head` for each matrix.

    Args:
        shapes: what is edited.
        width: of a token's embedding.
        config: see :class:`KEConfig`.

    Raises:
        ConfigError: there is nothing to edit.
    """

    def __init__(self, shapes: Shapes, width: int, config: KEConfig) -> None:
        super().__init__()
        if not shapes:
            raise ConfigError("KE has nothing to edit", remedy="give inner_params")
        self.lstm = nn.LSTM(width, config.lstm_size, bidirectional=True, batch_first=True)
        self.condition = nn.Linear(2 * config.lstm_size, config.condition_size)
        heads = {name.replace(".", "#"): Head(shape, config) for name, shape in shapes.items()}
        self.heads = nn.ModuleDict(heads)

    def read(self, texts: Sequence[Tensor]) -> Tensor:
        """The condition [B, C] of each edit, its tokens embedded as [length, width]."""
        packed = nn.utils.rnn.pack_sequence(list(texts), enforce_sorted=False)
        _, (last, _) = self.lstm(packed)
        return self.condition(torch.cat([last[0], last[1]], dim=-1)).tanh()

    def forward(self, name: str, condition: Tensor, gradient: Factors) -> LowRank:
        """The change of module ``name``; see :class:`Head`."""
        return self.heads[name.replace(".", "#")](condition, gradient)
