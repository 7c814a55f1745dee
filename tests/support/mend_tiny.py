"""A tiny MEND: random weights that change what the model says."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.methods.mend import Mend, MendConfig

from ..conftest import build_tiny


def stir(network: torch.nn.Module, seed: int = 3) -> None:
    """Random weights and statistics, so that nothing is at its neutral start."""
    draw = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor, scale: float) -> torch.Tensor:
        return scale * torch.randn(like.shape, generator=draw)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name != "edit_lrs":
                parameter += noise(parameter, 0.1)
        for name, buffer in network.named_buffers():
            if name.endswith("std"):
                buffer.copy_(0.5 + noise(buffer, 1.0).abs())
            elif name.endswith("mean"):
                buffer.copy_(noise(buffer, 0.2))
            elif name.endswith("k"):
                buffer.fill_(100.0)
            else:
                buffer.copy_(noise(buffer, 1.0).abs())


def tiny_mend(family: str = "llava", cls: type[Mend] = Mend, **config) -> Mend:
    backbone = build_tiny(family)
    torch.manual_seed(4)
    editor = cls(backbone, MendConfig(**{"rank": 4, "edit_lr": -0.05, **config}))
    stir(editor.network)
    return editor
