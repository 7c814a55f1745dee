"""What the frozen base model says about training questions, computed once and kept in bounds.

Nothing below the first edited layer changes in training, so a question's states there, and for a
locality question the base model's own output, are the same in every step and epoch. They are kept
in memory up to a limit and computed again when pushed out; nothing is written to a disk.

Shapes: n positions of a row, D hidden size, a answer tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.splice import Batch, answer_logits, hidden_states
from ...data import Question
from .layers import capture, decoder_of, only_below
from .model import DualEdit, gate_position


class Asked(NamedTuple):
    """A training question: which record of the batch it belongs to, its kind, and itself.

    ``key`` names it for good: same key, same question.
    """

    record: int
    kind: str
    question: Question
    key: Hashable


@dataclass
class Frozen:
    """One question in the base model.

    Attributes:
        hidden: ``[n, D]``, what the first edited layer gives out, unedited.
        image: ``[n]``, true on image tokens.
        answer: the ids of its answer, the row's last tokens.
        gate: ``[D]``, the token that the gate reads.
        states: for an edit ``[n, D]`` by adapter layer, what adapters take keys and values from.
        logits: for a locality question ``[a, vocab]``, the base model's at the answer.
    """

    hidden: Tensor
    image: Tensor
    answer: list[int]
    gate: Tensor
    states: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        kept = [self.hidden, self.image, self.gate, *self.states.values()]
        kept += [] if self.logits is None else [self.logits]
        return sum(t.numel() * t.element_size() for t in kept)


class FrozenStates:
    """A cache of :class:`Frozen` by key, the longest unused pushed out first.

    Args:
        editor: whose backbone and layers.
        limit: bytes; 0 keeps nothing.
    """

    def __init__(self, editor: DualEdit, limit: int) -> None:
        self.editor, self.limit, self.used = editor, limit, 0
        self.plain = False  # what layers return; known after the first pass
        self._kept: OrderedDict[Hashable, Frozen] = OrderedDict()

    @torch.no_grad()
    def get(self, asked: Sequence[Asked], unmoved: Sequence[str]) -> list[Frozen]:
        """One :class:`Frozen` a question; those not kept go through the base model together.

        Args:
            unmoved: the kinds whose base output is needed.
        """
        found: dict[Hashable, Frozen] = {}
        for a in asked:
            if a.key in self._kept:
                self._kept.move_to_end(a.key)
                found[a.key] = self._kept[a.key]
        missing = {a.key: a for a in asked if a.key not in found}
        whole = [a for a in missing.values() if a.kind in unmoved]
        lower = [a for a in missing.values() if a.kind not in unmoved]
        for group, complete in ((whole, True), (lower, False)):
            if group:
                rows = self._run([a.question for a in group], complete=complete)
                found |= {a.key: row for a, row in zip(group, rows, strict=True)}
        for a in missing.values():
            if a.kind != "edit":
                found[a.key].states = {}
            self._keep(a.key, found[a.key])
        return [found[a.key] for a in asked]

    def _run(self, questions: Sequence[Question], *, complete: bool) -> list[Frozen]:
        editor = self.editor
        backbone, config = editor.backbone, editor.config
        batch = backbone.batch(questions, with_answers=True)
        decoder = decoder_of(backbone)
        edited = sorted({a.layer for a in config.adapters})
        top = len(decoder.layers) if complete else edited[-1] + 1
        logits: list[Tensor | None] = [None] * len(questions)
        with (
            only_below(decoder, top),
            capture(decoder, [config.gate_layer, *edited]) as outputs,
        ):
            if complete:
                logits = list(answer_logits(backbone.language_model, batch))
            else:
                hidden_states(backbone.language_model, batch)
        self.plain = outputs.plain
        position = gate_position(config.gate.kind, batch)
        rows = []
        for i, real in enumerate(batch.attention_mask.bool()):
            # Clones: a view of the batch would keep all of it alive.
            states = {k: outputs[k][i, real].clone() for k in edited if not complete}
            rows.append(
                Frozen(
                    outputs[config.first_layer][i, real].clone(),
                    batch.image_mask[i, real].clone(),
                    batch.answers[i],
                    outputs[config.gate_layer][i, position[i]].clone(),
                    states,
                    None if logits[i] is None else logits[i].clone(),
                )
            )
        return rows

    def _keep(self, key: Hashable, row: Frozen) -> None:
        self._kept[key] = row
        self.used += row.size
        while self.used > self.limit and self._kept:
            self.used -= self._kept.popitem(last=False)[1].size


def stack(rows: Sequence[Frozen]) -> Batch:
    """Rows as a batch padded on the right, whose embeddings are the first edited layer's output."""
    pad = nn.utils.rnn.pad_sequence
    hidden = pad([row.hidden for row in rows], batch_first=True)
    image = pad([row.image for row in rows], batch_first=True)
    lengths = torch.tensor([len(row.hidden) for row in rows], device=hidden.device)
    answers = torch.tensor([len(row.answer) for row in rows], device=hidden.device)
    places = torch.arange(hidden.shape[1], device=hidden.device).expand(len(rows), -1)
    real = places < lengths[:, None]
    return Batch(
        inputs_embeds=hidden,
        attention_mask=real.long(),
        position_ids=places.clamp(max=(lengths - 1)[:, None]),
        image_mask=image,
        answer_mask=real & (places >= (lengths - answers)[:, None]),
        prompt_end=lengths - answers - 1,
        answers=[row.answer for row in rows],
    )
