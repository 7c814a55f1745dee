"""MEND's network: an edit's gradient in, a change of weights out (Mitchell et al. 2022, section 3).

The gradient of a linear module's weight is a sum over tokens of delta x^T, x the token's input and
delta the gradient at its output. Each pair goes through a small residual network that is shared by
all modules of a shape; a scale and an offset per module tell them apart.

Names and order of the tensors are those of EasyEdit's ``GradientTransform`` and ``MEND``, so that
weights trained there can be loaded here and the other way round. What differs: the running
statistics take all tokens of a call at once, and begin as mean 0 and deviation 1 instead of
"not a number", so that a first step with a single token is no error.

Shapes: n tokens, ``in`` and ``out`` the sizes of a linear module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from .config import MendConfig

# Sizes (in, out) of each edited module, by name, in the order of their learning rates.
Shapes = Mapping[str, tuple[int, int]]


class LowRankLayer(nn.Module):
    """x + max(0, scale * (U V x + b) + shift), or without the x for ``init="xavier"``.

    Args:
        size: of x.
        rank: of U V, at most ``size``.
        init: ``"id"`` begins as the identity on the positive side, ``"xavier"`` as any layer.
        modes: how many modules share the layer.
    """

    def __init__(self, size: int, rank: int, init: str, modes: int | None) -> None:
        super().__init__()
        rank = min(rank, size)
        self.residual = init == "id"
        self.u = nn.Parameter(torch.zeros(size, rank))
        self.v = nn.Parameter(torch.randn(rank, size))
        if not self.residual:
            nn.init.xavier_uniform_(self.u, gain=nn.init.calculate_gain("relu"))
            nn.init.xavier_uniform_(self.v)
        if modes is not None:
            self.mode_shift = nn.Embedding(modes, size)
            self.mode_scale = nn.Embedding(modes, size)
            nn.init.zeros_(self.mode_shift.weight)
            nn.init.ones_(self.mode_scale.weight)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, mode: int | None = None) -> Tensor:
        """[n, size] -> [n, size]."""
        inner = x @ self.v.T @ self.u.T + self.bias
        if mode is not None:
            inner = inner * self.mode_scale.weight[mode] + self.mode_shift.weight[mode]
        # clamp and not relu: at 0, where every layer begins, relu has no gradient
        acted = inner.clamp(min=0)
        return acted + x if self.residual else acted


class IDMLP(nn.Module):
    """``n_hidden`` + 1 layers of one size."""

    def __init__(self, size: int, config: MendConfig, modes: int | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            LowRankLayer(size, config.rank, config.init, modes) for _ in range(config.n_hidden + 1)
        )

    def forward(self, x: Tensor, mode: int | None = None) -> Tensor:
        """[n, size] -> [n, size]."""
        for layer in self.layers:
            x = layer(x, mode)
        return x


class GradientTransform(nn.Module):
    """The network of one shape, with the running mean and deviation of what it sees.

    Args:
        x_dim, delta_dim: ``in`` and ``out``.
        cfg: see :class:`MendConfig`.
        n_modes: how many modules share it; ``None``: it has one of its own.
    """

    u_mean: Tensor
    u_std: Tensor
    v_mean: Tensor
    v_std: Tensor
    k: Tensor  # number of tokens seen

    def __init__(
        self, x_dim: int, delta_dim: int, cfg: MendConfig, n_modes: int | None = None
    ) -> None:
        super().__init__()
        self.cfg = cfg
        for name, size in (("u", x_dim), ("v", delta_dim)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
            self.register_buffer(f"{name}_s", torch.zeros(size))
        self.register_buffer("k", torch.zeros(1))
        if cfg.combine:
            self.mlp = IDMLP(x_dim + delta_dim, cfg, n_modes)
        else:
            one_x, one_delta = cfg.x_only, cfg.delta_only
            if cfg.one_sided:  # the narrower side alone
                one_x, one_delta = x_dim <= delta_dim, x_dim > delta_dim
            self.mlp1 = None if one_delta else IDMLP(x_dim, cfg, n_modes)
            self.mlp2 = None if one_x else IDMLP(delta_dim, cfg, n_modes)

    def forward(self, u: Tensor, v: Tensor, param_idx: int | None = None) -> tuple[Tensor, Tensor]:
        """x [n, in] and delta [n, out] -> what takes their place; in training mode they count.

        Tokens whose x or delta is all zero must have been left out.
        """
        u, v = u.float(), v.float()
        if self.training:
            self.observe(u, v)
        if self.cfg.norm:
            u = (u - self.u_mean) / (self.u_std + 1e-7)
            v = (v - self.v_mean) / (self.v_std + 1e-7)
        if self.cfg.combine:
            out = self.mlp(torch.cat((u, v), -1), param_idx)
            return out[:, : u.shape[-1]], out[:, u.shape[-1] :]
        return (
            u if self.mlp1 is None else self.mlp1(u, param_idx),
            v if self.mlp2 is None else self.mlp2(v, param_idx),
        )

    @torch.no_grad()
    def observe(self, u: Tensor, v: Tensor) -> None:
        """Count n more tokens into mean and deviation (Chan's update of Welford's)."""
        seen, n = float(self.k), len(u)
        if not n:
            return
        for name, values in (("u", u), ("v", v)):
            mean, total = getattr(self, f"{name}_mean"), getattr(self, f"{name}_s")
            own = values.mean(0)
            apart = own - mean
            total += ((values - own) ** 2).sum(0) + apart**2 * (seen * n / (seen + n))
            mean += apart * (n / (seen + n))
            if seen + n > 1:
                getattr(self, f"{name}_std").copy_((total / (seen + n - 1)).sqrt())
        self.k += n


class MendNetwork(nn.Module):
    """All networks of an editor and the learned rate of each module (MEND section 3.2).

    Args:
        shapes: what is edited.
        config: see :class:`MendConfig`.
        transform: the class of a network, called as :class:`GradientTransform` is.
    """

    def __init__(
        self,
        shapes: Shapes,
        config: MendConfig,
        transform: type[nn.Module] = GradientTransform,
    ) -> None:
        super().__init__()
        if not shapes:
            raise ConfigError("MEND has nothing to edit", remedy="give inner_params")
        self.places: dict[str, tuple[str, int | None]] = {}  # module: its network and its mode
        sharing: dict[tuple[int, int], list[str]] = {}
        for name, shape in shapes.items():
            sharing.setdefault(shape, []).append(name)
        networks: dict[str, nn.Module] = {}
        for shape, names in sharing.items():
            if config.shared:
                networks[str(tuple(shape))] = transform(*shape, config, len(names))
                self.places |= {n: (str(tuple(shape)), i) for i, n in enumerate(names)}
            else:
                for name in names:
                    key = name.replace(".", "#")
                    networks[key] = transform(*shape, config)
                    self.places[name] = (key, None)
        self.mend = nn.ModuleDict(networks)
        self.edit_lrs = nn.Parameter(torch.full((len(shapes),), float(config.edit_lr)))
        self.order = {name: i for i, name in enumerate(shapes)}

    def forward(self, name: str, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """The change of module ``name`` from n tokens: ``down [n, in]`` and ``up [n, out]``.

        W becomes W + up^T down; the module's learned rate is in ``up``.
        """
        key, mode = self.places[name]
        x, delta = self.mend[key](x, delta, mode)
        return x, self.edit_lrs[self.order[name]] * delta

    def halved(self) -> dict[str, Any]:
        """The state with parameters in fp16; statistics, of many magnitudes, stay as they are."""
        learned = {name for name, _ in self.named_parameters()}
        return {n: t.half() if n in learned else t for n, t in self.state_dict().items()}
