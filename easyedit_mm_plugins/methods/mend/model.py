"""MEND as an editor: a trained network turns an edit's gradient into a change of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...data.records import Question
from ..checkpoint import AGAIN, load_tensors, read_header, save_tensors, write_header
from ..deltas import Delta, DeltaEditor, LowRank, linear_modules
from ..settings import build
from .config import MendConfig
from .gradients import Factors, edit_gradients
from .transform import GradientTransform, MendNetwork

_AT_ONCE = 32  # edits per backward pass


class Mend(DeltaEditor):
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

    @torch.no_grad()
    def learn(self, edits: Sequence[Question]) -> list[Delta]:
        """One change per edit, from one backward pass for up to 32 of them.

        Raises:
            TrainingError: a gradient is not finite.
        """
        found: list[Delta] = []
        for start in range(0, len(edits), _AT_ONCE):
            found += self.predicted(edits[start : start + _AT_ONCE])
        return found

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

    def describe(self) -> dict[str, Any]:
        """What is edited, and the network's size."""
        size = sum(p.numel() for p in self.network.parameters())
        return {"edits": list(self.modules), "parameters": size}

    # On disk ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``network/model.safetensors`` and, last, ``config.json``.

        Args:
            folder: made if absent.
            half: store what was learned as fp16 (it is used as fp32); ``False`` keeps every bit.
        """
        folder = Path(folder)
        state = self.network.halved() if half else self.network.state_dict()
        save_tensors(folder / "network" / "model.safetensors", state)
        write_header(folder, "mend", self.backbone, config=asdict(self.config))

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe: trained if ``settings.archive`` names one.

        Raises:
            ConfigError: a name in ``inner_params`` that fits no module. CheckpointError: see
                :meth:`Editor.from_hparams`.
        """
        if settings.archive is not None:
            return cls.from_pretrained(settings.archive, backbone)
        return cls(backbone, settings.config)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An editor saved by :meth:`save_pretrained`, for the backbone it was trained on.

        Raises:
            CheckpointError: something is missing or damaged, or the editor is for another
                backbone; the message names both.
        """
        folder = Path(folder)
        saved = read_header(folder, "mend", backbone, ["config"])
        try:
            editor = cls(backbone, build(MendConfig, saved["config"], "config"))
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error
        load_tensors(editor.network, folder / "network" / "model.safetensors")
        return editor


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
