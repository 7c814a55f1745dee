"""Sim of MSCKE eq. 8: how much a query's fused feature resembles an edit's, from 0 to 1.

Each is a module whose ``forward`` gives the logarithms of rho and of 1 - rho, which is what the
loss of eq. 11 needs. One that also says how features are kept (``kept``), what of two kept ones is
compared (``metric``, see :class:`KeyTable`) and what rho follows from it (``of``, rising) has its
edits looked up in the table of keys, however many there are.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import Registry
from ..keys import Metric, distance, dot

SIMILARITIES: Registry[type[nn.Module]] = Registry("similarity")


@SIMILARITIES.register("exp-squared-distance")
class ExpSquaredDistance(nn.Module):
    """rho = exp(-|z_e - z_t|^2), as released. No parameters.

    Features are taken as they come: their length is what lets rho fall to 0.
    """

    metric: ClassVar[Metric] = "distance"

    def kept(self, z: Tensor) -> Tensor:
        """Features as they are kept and compared: as they come."""
        return z.float()

    def of(self, compared: Tensor) -> tuple[Tensor, Tensor]:
        """log rho and log(1 - rho) of minus squared distances."""
        # At distance 0 the loss of a negative pair would be infinite: stop a little short of it.
        return compared, torch.log(-torch.expm1(compared.clamp_max(-1e-6)))

    def forward(self, z_t: Tensor, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """``z_t [B, Z]``, ``z_e [N, Z]`` -> log rho, log(1 - rho), both ``[B, N]``."""
        return self.of(distance(self.kept(z_t), self.kept(z_e)))


@SIMILARITIES.register("cosine")
class Cosine(nn.Module):
    """rho = sigmoid(scale * cos(z_e, z_t) + bias), scale and bias learned.

    Args:
        scale, bias: where training starts; cos 0.7 is then rho 0.5.
    """

    metric: ClassVar[Metric] = "dot"

    def __init__(self, scale: float = 10.0, bias: float = -7.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def kept(self, z: Tensor) -> Tensor:
        """Features as they are kept and compared: of length 1. Such ones stay bit for bit."""
        z = z.float()
        length = z.detach().norm(dim=-1, keepdim=True)
        return torch.where((length - 1).abs() < 1e-6, z, F.normalize(z, dim=-1))

    def of(self, compared: Tensor) -> tuple[Tensor, Tensor]:
        """log rho and log(1 - rho) of cosines."""
        logit = self.log_scale.exp() * compared + self.bias
        return F.logsigmoid(logit), F.logsigmoid(-logit)

    def forward(self, z_t: Tensor, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """``z_t [B, Z]``, ``z_e [N, Z]`` -> log rho, log(1 - rho), both ``[B, N]``."""
        return self.of(dot(self.kept(z_t), self.kept(z_e)))
