"""MEND as an editor: a trained network turns an edit's gradient into a change of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ...backbones.base import Backbone
from ...data.records import Question
from ..checkpoint import save_tensors
from ..deltas import Delta, LowRank, linear_modules
from ..network_editor import NetworkEditor
from .config import MendConfig
from .gradients import Factors, edit_gradients
from .transform import GradientTransform, MendNetwork


class Mend(NetworkEditor):
    """Model Editor Networks with Gradient Decomposition (Mitchell et al. 2022).

    The base model's weights stay as they are; an edit's change lies beside them, see
    ``methods/deltas.py``. Several edits in force act as the sum of their changes.

    Args:
        backbone: the base model; never changed.
        config: see :class:`MendConfig`.

    Raises:
        ConfigError: a name or pattern in ``inner_params`` fits no linear module.
    """

    name = "mend"
    config_class = MendConfig
    network: MendNetwork

    def __init__(self, backbone: Backbone, config: MendConfig | None = None) -> None:
        super().__init__(backbone)
        config = config or MendConfig()
        self.modules = edited_modules(backbone, config.inner_params)
        self.config = replace(config, inner_params=list(self.modules))
        shapes = {name: (m.in_features, m.out_features) for name, m in self.modules.items()}
        network = MendNetwork(shapes, self.config, self.network_class())
        self.network = network.to(backbone.device).eval()

    @classmethod
    def network_class(cls) -> type[nn.Module]:
        """The class of a shape's network, called as :class:`GradientTransform` is."""
        return GradientTransform

    def predicted(self, edits: Sequence[Question]) -> list[Delta]:
        """As :meth:`learn`, all in one pass and differentiable in the network."""
        return self.changes(self.gradients(edits))

    def gradients(self, edits: Sequence[Question]) -> list[dict[str, Factors]]:
        """See :func:`edit_gradients`."""
        return edit_gradients(self.backbone, self.modules, edits)

    def changes(self, gradients: Sequence[dict[str, Factors]]) -> list[Delta]:
        """The network's answer to each gradient; differentiable in the network."""
        deltas: list[Delta] = [{} for _ in gradients]
        for name in self.modules:
            rows = [i for i, own in enumerate(gradients) if name in own]
            if not rows:
                continue
            counts = [len(gradients[i][name].x) for i in rows]
            x = torch.cat([gradients[i][name].x for i in rows])
            delta = torch.cat([gradients[i][name].delta for i in rows])
            down, up = self.network(name, x, delta)
            parts = zip(rows, down.split(counts), up.split(counts), strict=True)
            for i, own_down, own_up in parts:
                deltas[i][name] = LowRank(own_down, own_up)
        return deltas

    def save_network(self, path: Path, half: bool) -> None:
        """See :class:`NetworkEditor`; statistics keep every bit."""
        save_tensors(path, self.network.halved() if half else self.network.state_dict())


def edited_modules(backbone: Backbone, patterns: Sequence[str] | None) -> dict[str, nn.Linear]:
    """The modules that ``patterns`` name, pattern by pattern, each once; by default those of
    :func:`default_params`.

    Raises:
        ConfigError: a pattern fits none; the nearest name is offered.
    """
    found: dict[str, nn.Linear] = {}
    for pattern in default_params(backbone) if patterns is None else patterns:
        found |= linear_modules(backbone, [pattern])
    return found


def default_params(backbone: Backbone) -> list[str]:
    """The MLPs of the last three decoder layers and what the connector ends with."""
    every = list(backbone.linear_modules())
    last = [name for name in every if name.startswith(f"layers.{len(backbone.layers) - 1}.")]
    inside = {name.split(".", 2)[2] for name in last if "attn" not in name}
    depth = min(3, len(backbone.layers))
    names = [f"layers.-{k}.{name}" for k in range(depth, 0, -1) for name in sorted(inside)]
    final = [n for n in every if n.startswith("connector.")][-1:]
    return [*names, *final]
