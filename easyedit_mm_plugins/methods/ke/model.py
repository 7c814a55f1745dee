"""KE as an editor: a trained hypernetwork turns an edit's texts and gradient into a change of
weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...data.records import Question
from ..deltas import Delta, applied, combine
from ..mend.gradients import edit_gradients
from ..mend.model import default_params, edited_modules
from ..network_editor import NetworkEditor
from .config import KEConfig
from .network import HyperNetwork


class KE(NetworkEditor):
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
    config_class = KEConfig
    network: HyperNetwork

    def __init__(self, backbone: Backbone, config: KEConfig | None = None) -> None:
        super().__init__(backbone)
        config = config or KEConfig()
        language = [n for n in default_params(backbone) if n.startswith("layers.")]
        self.modules = edited_modules(backbone, config.inner_params or language)
        self.config = replace(config, inner_params=list(self.modules))
        shapes = {name: (m.in_features, m.out_features) for name, m in self.modules.items()}
        network = HyperNetwork(shapes, backbone.hidden_size, self.config)
        self.network = network.to(backbone.device).eval()

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
