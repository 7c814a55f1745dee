"""KE as an editor: a trained hypernetwork turns an edit's texts and gradient into a change of
weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...data.records import Question
from ..checkpoint import AGAIN, load_tensors, read_header, save_tensors, write_header
from ..deltas import Delta, DeltaEditor, applied, combine
from ..mend.gradients import edit_gradients
from ..mend.model import default_params, edited_modules
from ..settings import build
from .config import KEConfig
from .network import HyperNetwork

_AT_ONCE = 32  # edits per backward pass


class KE(DeltaEditor):
    """KnowledgeEditor (De Cao et al. 2021).

    The base model's weights stay as they are; an edit's change lies beside them, see
    ``methods/deltas.py``. Several edits are made one after another: each one's gradient is that of
    the model with the earlier ones in force.

    Args:
        backbone: the base model; never changed.
        config: see :class:`KEConfig`.

    Raises:
        ConfigError: a name or pattern in ``inner_params`` fits no linear module.
    """

    name = "ke"

    def __init__(self, backbone: Backbone, config: KEConfig | None = None) -> None:
        super().__init__(backbone)
        config = config or KEConfig()
        language = [n for n in default_params(backbone) if n.startswith("layers.")]
        self.modules = edited_modules(backbone, config.inner_params or language)
        self.config = replace(config, inner_params=list(self.modules))
        shapes = {name: (m.in_features, m.out_features) for name, m in self.modules.items()}
        network = HyperNetwork(shapes, backbone.hidden_size, self.config)
        self.network = network.to(backbone.device).eval()

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
        gradients = edit_gradients(self.backbone, self.modules, edits)
        conditions = self.network.read([self._text(edit) for edit in edits])
        return [
            {name: self.network(name, condition, own) for name, own in gradient.items()}
            for condition, gradient in zip(conditions, gradients, strict=True)
        ]

    @torch.no_grad()
    def together(self, edits: Sequence[Question], changes: Sequence[Delta]) -> Delta:
        """The edits made one after another, each on the model that the ones before it left."""
        total = changes[0]
        for edit in edits[1:]:
            with applied(self.backbone.linear_modules(), [total]):
                own = self.predicted([edit])
            total = combine([total, *own])
        return total

    @torch.no_grad()
    def _text(self, edit: Question) -> Tensor:
        """The edit as the hypernetwork reads it: question, end token, answer; [length, width]."""
        backbone = self.backbone
        asked = backbone.token_ids(edit.text, special=False)
        ids = [*asked, backbone.stop_token_id, *backbone.answer_ids(edit.answer)]
        return backbone.embed(torch.tensor(ids, device=backbone.device)).float()

    def describe(self) -> dict[str, Any]:
        """What is edited, and the network's size."""
        size = sum(p.numel() for p in self.network.parameters())
        return {"edits": list(self.modules), "parameters": size}

    # On disk ----------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``network/model.safetensors`` and, last, ``config.json``.

        Args:
            folder: made if absent.
            half: store as fp16 (it is used as fp32); ``False`` keeps every bit.
        """
        folder = Path(folder)
        state = self.network.state_dict()
        save_tensors(folder / "network" / "model.safetensors", state, half=half)
        write_header(folder, self.name, self.backbone, config=asdict(self.config))

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
            editor = cls(backbone, build(KEConfig, saved["config"], "config"))
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error
        load_tensors(editor.network, folder / "network" / "model.safetensors")
        return editor
