"""Editors whose trained network makes the changes of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from ..backbones.base import Backbone
from ..core.errors import CheckpointError, ConfigError
from ..data.records import Question
from .checkpoint import AGAIN, load_tensors, read_header, save_tensors, write_header
from .deltas import Delta, DeltaEditor
from .settings import build

_AT_ONCE = 32  # edits per backward pass
_WEIGHTS = Path("network", "model.safetensors")


class NetworkEditor(DeltaEditor):
    """A network, the same for all edits, turns what an edit says into a change of weights.

    A subclass is made from a backbone and a configuration, and implements :meth:`predicted`.

    Attributes:
        config_class: the class of its configuration.
        config: an instance of it.
        modules: the linear modules that are changed, by name.
        network: what is trained.
    """

    config_class: ClassVar[type[Any]]
    config: Any
    modules: dict[str, nn.Linear]
    network: nn.Module

    @abstractmethod
    def __init__(self, backbone: Backbone, config: Any = None) -> None:
        super().__init__(backbone)

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

    @abstractmethod
    def predicted(self, edits: Sequence[Question]) -> list[Delta]:
        """As :meth:`learn`, all in one pass and differentiable in the network."""

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
        self.save_network(folder / _WEIGHTS, half)
        write_header(folder, self.name, self.backbone, config=asdict(self.config))

    def save_network(self, path: Path, half: bool) -> None:
        """The network's state, to ``path``."""
        save_tensors(path, self.network.state_dict(), half=half)

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
        saved = read_header(folder, cls.name, backbone, ["config"])
        try:
            editor = cls(backbone, build(cls.config_class, saved["config"], "config"))
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error
        load_tensors(editor.network, folder / _WEIGHTS)
        return editor
