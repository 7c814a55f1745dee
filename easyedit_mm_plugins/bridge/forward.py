"""EasyEdit's kind of forward pass for backbones whose model does not take its samples itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from ..backbones.base import Backbone
from ..backbones.splice import Row, assemble, hidden_states
from ..data.records import Question


@dataclass
class EditedOutput(ModelOutput):
    """EasyEdit's output fields, for backbones whose model does not take samples itself."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    attention_mask: Tensor | None = None


def backbone_forward(
    backbone: Backbone, questions: Sequence[Question], *, changed: bool = False
) -> EditedOutput:
    """Logits [B, T, vocab] at every position, prompts and answers, padded on the right.

    ``changed`` says that the connector may be under a change: images are then embedded anew.
    """
    seen, embedded = [q.image for q in questions if q.image is not None], None
    if seen and changed:
        embedded = backbone.connect(backbone.vision_states(seen))
    rows = [
        Row(row.segments, backbone.answer_ids(q.answer) if q.answer else [])
        for row, q in zip(backbone.rows(questions, embedded=embedded), questions, strict=True)
    ]
    batch, lm = assemble(rows, backbone.embed, padding_side="right"), backbone.language_model
    logits = lm.get_output_embeddings()(hidden_states(lm, batch))
    labels = torch.full_like(batch.attention_mask, -100)
    labels[batch.answer_mask] = torch.tensor(
        [i for ids in batch.answers for i in ids], device=labels.device, dtype=labels.dtype
    )
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    loss = nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1))
    return EditedOutput(loss, logits, labels, batch.attention_mask)
