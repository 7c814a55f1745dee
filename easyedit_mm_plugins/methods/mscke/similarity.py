"""Sim of MSCKE eq. 8: how much a query's fused feature resembles an edit's, from 0 to 1.

Each is a module whose ``forward`` gives the logarithms of rho and of 1 - rho, which is what the
loss of eq. 11 needs; both come from one product over queries and edits, so that looking a query up
among N edits costs that product and nothing more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import Registry

SIMILARITIES: Registry[type[nn.Module]] = Registry("similarity")


@SIMILARITIES.register("exp-squared-distance")
class ExpSquaredDistance(nn.Module):
    """rho = exp(-|z_e - z_t|^2), as released. No parameters.

    Features are taken as they come: their length is what lets rho fall to 0.
    """

    def forward(self, z_t: Tensor, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """``z_t [B, Z]``, ``z_e [N, Z]`` -> log rho, log(1 - rho), both ``[B, N]``."""
        # Differences, not |a|^2 + |b|^2 - 2ab: CLIP's features are long, and what is left of near
        # ones after that subtraction is rounding.
        exact = "donot_use_mm_for_euclid_dist"
        distance = torch.cdist(z_t.float(), z_e.float(), compute_mode=exact).square()
        # At distance 0 the loss of a negative pair would be infinite: stop a little short of it.
        return -distance, torch.log(-torch.expm1(-distance.clamp_min(1e-6)))


@SIMILARITIES.register("cosine")
class Cosine(nn.Module):
    """rho = sigmoid(scale * cos(z_e, z_t) + bias), scale and bias learned.

    Args:
        scale, bias: where training starts; cos 0.7 is then rho 0.5.
    """

    def __init__(self, scale: float = 10.0, bias: float = -7.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, z_t: Tensor, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """``z_t [B, Z]``, ``z_e [N, Z]`` -> log rho, log(1 - rho), both ``[B, N]``."""
        cosine = F.normalize(z_t.float(), dim=-1) @ F.normalize(z_e.float(), dim=-1).T
        logit = self.log_scale.exp() * cosine + self.bias
        return F.logsigmoid(logit), F.logsigmoid(-logit)
