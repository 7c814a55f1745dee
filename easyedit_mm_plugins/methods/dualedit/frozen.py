"""What the frozen base model says about training questions, computed once and kept in bounds.

Nothing below the first edited layer changes in training, so a question's states there, and for a
locality question the base model's own output, are the same in every step and epoch. They are kept
in memory up to a limit and computed again when pushed out; nothing is written to a disk.

Shapes: n positions of a row, D hidden size, a answer tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ...backbones.partial import capture, only_below, starting_above
from ...backbones.splice import hidden_states
from ...core.lru import LRU
from ...data import Question
from ...data.images import image_key
from .gate import gate_input
from .model import DualEdit
from .packing import QuestionStates, can_share, pack


class KeyedQuestion(NamedTuple):
    """A training question: which record of the batch it belongs to, its kind, and itself.

    ``key`` names it for good: same key, same question.
    """

    record: int
    kind: str
    question: Question
    key: Hashable


class FrozenStates:
    """A cache of :class:`QuestionStates` by key, the longest unused pushed out first.

    Args:
        editor: whose backbone and layers.
        limit: bytes; 0 keeps nothing.
        stop: answers end with the token that ends generation.
    """

    def __init__(self, editor: DualEdit, limit: int, *, stop: bool = False) -> None:
        self.editor, self.stop = editor, stop
        self.plain = False  # what layers return; known after the first pass
        self.kept: LRU[QuestionStates] = LRU(limit, lambda row: row.size)

    @torch.no_grad()
    def get(self, asked: Sequence[KeyedQuestion]) -> list[QuestionStates]:
        """The states of each question; those not kept go through the lower layers together."""
        found: dict[Hashable, QuestionStates] = {}
        for a in asked:
            if (kept := self.kept.get(a.key)) is not None:
                found[a.key] = kept
        missing = {a.key: a for a in asked if a.key not in found}
        # An edit's states are needed at every adapter's layer, other questions' at the first.
        for edits in (True, False):
            group = [a for a in missing.values() if (a.kind == "edit") == edits]
            if group:
                rows = self._run([a.question for a in group], edits=edits)
                for a, row in zip(group, rows, strict=True):
                    found[a.key] = row
                    self.kept.put(a.key, row)
        return [found[a.key] for a in asked]

    @torch.no_grad()
    def complete(self, asked: Sequence[KeyedQuestion], rows: Sequence[QuestionStates]) -> None:
        """Add the base model's logits to those of ``rows`` that have none."""
        lacking = {
            a.key: (a, row) for a, row in zip(asked, rows, strict=True) if row.logits is None
        }
        if not lacking:
            return
        backbone, layer = self.editor.backbone, self.editor.config.first_layer
        groups = self.groups([a for a, _ in lacking.values()], [0] * len(lacking))
        packed = pack([row for _, row in lacking.values()], groups)
        decoder, hidden = backbone.decoder, packed.batch.inputs_embeds
        with starting_above(decoder, layer, hidden, plain=self.plain):
            logits = packed.logits(backbone.language_model, decoder.layers[-1])
        for (key, (_, row)), own in zip(lacking.items(), logits, strict=True):
            row.logits = own.clone()
            if key in self.kept:
                self.kept.put(key, row)  # it has grown

    def groups(self, asked: Sequence[KeyedQuestion], owners: Sequence[int]) -> list[Hashable]:
        """For :func:`pack`: an owner's questions on one image; those without one go along."""
        if not can_share(self.editor.backbone.language_model):
            return list(range(len(asked)))
        found = [(o, image_key(a.question.image)) for a, o in zip(asked, owners, strict=True)]
        last = {owner: (owner, picture) for owner, picture in found if picture is not None}
        return [last.get(g[0], g) if g[1] is None else g for g in found]

    def _run(self, questions: Sequence[Question], *, edits: bool) -> list[QuestionStates]:
        editor = self.editor
        backbone, config = editor.backbone, editor.config
        batch = backbone.batch(questions, with_answers=True, with_stop=self.stop)
        decoder = backbone.decoder
        edited = sorted({a.layer for a in config.adapters})
        top = (edited[-1] if edits else config.first_layer) + 1
        layers = [config.gate_layer, *(edited if edits else [config.first_layer])]
        with only_below(decoder, top), capture(decoder, layers) as outputs:
            hidden_states(backbone.language_model, batch)
        self.plain = outputs.plain
        # Without the token that ends an answer: rows are padded on the left, so it comes last.
        width = batch.attention_mask.shape[1] - self.stop
        seen = replace(
            batch,
            attention_mask=batch.attention_mask[:, :width],
            image_mask=batch.image_mask[:, :width],
        )
        read = gate_input(config.gate.kind, outputs[config.gate_layer][:, :width], seen)
        rows, deepstack = [], batch.deepstack
        for i, real in enumerate(batch.attention_mask.bool()):
            kept = real.nonzero().flatten()
            # An edit sample is what an edit is added with: without the token that ends it.
            sample = kept[: len(kept) - self.stop]
            # Clones: a view of the batch would keep all of it alive.
            states = {k: outputs[k][i, sample].clone() for k in edited} if edits else {}
            rows.append(
                QuestionStates(
                    outputs[config.first_layer][i, real].clone(),
                    batch.image_mask[i, real].clone(),
                    batch.answers[i],
                    read[i].clone(),
                    len(kept) - len(batch.answers[i]) - 1,
                    states,
                    position=batch.position_ids[i, real].clone(),
                    deepstack=deepstack[i, real].clone() if deepstack is not None else None,
                )
            )
        return rows
