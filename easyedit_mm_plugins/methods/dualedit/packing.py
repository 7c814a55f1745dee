"""Questions in the frozen base model, as a batch for the layers above the first edited one.

Questions on one image begin with the same tokens, which a causal decoder gives the same states:
they lie behind one copy of them, kept apart by a block-causal mask, each at the positions it would
have alone. Questions without an image lie behind any of them and do not see it.

Shapes: n positions of a question, T positions of a packed row, B packed rows, D hidden size, P axes
of a position, L deepstack layers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.partial import feed_forward_at
from ...backbones.splice import Batch, answer_logits, answered_from

# Decoders known to take a mask [B, 1, T, T].
_BLOCK_MASKS = ("llama", "opt", "qwen2_vl", "qwen2_vl_text")


@dataclass
class QuestionStates:
    """One question in the base model.

    Attributes:
        hidden: ``[n, D]``, what the first edited layer gives out, unedited.
        image: ``[n]``, true on image tokens.
        answer: the ids of its answer, the row's last tokens.
        gate: what the gate reads.
        end: index of the prompt's last token.
        states: for an edit ``[n, D]`` by adapter layer, what adapters take keys and values from.
        logits: where they were needed ``[a, vocab]``, the base model's at the answer.
        position: ``[n]`` or ``[n, P]``; ``None``: counted.
        deepstack: ``[n, L, D]``, as of :class:`Batch`, where the model has it.
    """

    hidden: Tensor
    image: Tensor
    answer: list[int]
    gate: Tensor
    end: int
    states: dict[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None
    position: Tensor | None = None
    deepstack: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        kept = [self.hidden, self.image, self.gate, *self.states.values()]
        kept += [t for t in (self.logits, self.position, self.deepstack) if t is not None]
        return sum(t.nbytes for t in kept)


class Packed(NamedTuple):
    """Packed rows.

    Attributes:
        batch: padded on the right; its embeddings are the first edited layer's output.
        mask: ``[B, 1, T, T]``, added to attention's scores.
        order: for each packed row its questions, as their answers come: index, answer tokens.
    """

    batch: Batch
    mask: Tensor
    order: list[list[tuple[int, int]]]

    def logits(self, lm: nn.Module, last: nn.Module) -> list[Tensor]:
        """Each question's logits ``[a, vocab]`` at its answer, in the order of the questions.

        ``last`` is the decoder's last layer.
        """
        # A question alone in its row needs no mask of blocks, which not every decoder takes.
        shared = any(len(members) > 1 for members in self.order)
        mask = self.mask if shared else self.batch.attention_mask
        batch = replace(self.batch, attention_mask=mask)
        with feed_forward_at(last, answered_from(batch)):
            found = answer_logits(lm, batch)
        by_index: dict[int, Tensor] = {}
        for row, members in zip(found, self.order, strict=True):
            parts = row.split([n for _, n in members])
            by_index |= {i: part for (i, _), part in zip(members, parts, strict=True)}
        return [by_index[i] for i in sorted(by_index)]


def can_share(lm: nn.Module) -> bool:
    """Whether the decoder takes a mask of its own for each pair of positions."""
    if getattr(lm.config, "model_type", None) not in _BLOCK_MASKS:
        return False
    habits = getattr(lm, "habits", None)  # of a decoder that is driven by us
    if habits is not None:
        return habits.attention == "causal"
    return type(lm).__module__.startswith("transformers.")


def pack(rows: Sequence[QuestionStates], groups: Sequence[Hashable]) -> Packed:
    """``rows``, those of equal ``groups`` in one packed row; they share an image or have none."""
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    rows = _alike(rows)
    laid = [_lay(rows, indices) for indices in members.values()]
    pad = nn.utils.rnn.pad_sequence
    hidden = pad([row["hidden"] for row in laid], batch_first=True)

    def table(name: str, fill: float = 0) -> Tensor:
        return pad([row[name] for row in laid], batch_first=True, padding_value=fill)

    block, sees = table("block", -1), table("sees", False)
    length = hidden.shape[1]
    allowed = block[:, :, None] == block[:, None, :]
    allowed |= sees[:, :, None] & (block == 0)[:, None, :]
    allowed &= torch.ones(length, length, dtype=torch.bool, device=hidden.device).tril()
    mask = torch.zeros(allowed.shape, dtype=hidden.dtype, device=hidden.device)
    mask = mask.masked_fill_(~allowed, torch.finfo(hidden.dtype).min)[:, None]
    batch = Batch(
        inputs_embeds=hidden,
        attention_mask=(block >= 0).long(),
        position_ids=table("position"),
        image_mask=table("image", False),
        answer_mask=table("answer", False),
        prompt_end=torch.zeros(len(laid), dtype=torch.long, device=hidden.device),
        answers=[row["ids"] for row in laid],
        deepstack=table("deepstack") if "deepstack" in laid[0] else None,
    )
    return Packed(batch, mask, [row["order"] for row in laid])


def _alike(rows: Sequence[QuestionStates]) -> list[QuestionStates]:
    """``rows`` with positions of as many axes, and deepstack for all if one has it."""
    axes = [r.position.shape[-1] for r in rows if r.position is not None and r.position.dim() == 2]
    deep = next((r.deepstack for r in rows if r.deepstack is not None), None)
    found = []
    for row in rows:
        position, deepstack = row.position, row.deepstack
        if position is None:
            position = torch.arange(len(row.hidden), device=row.hidden.device)
        if axes and position.dim() == 1:
            position = position[:, None].expand(-1, axes[0])
        if deep is not None and deepstack is None:
            deepstack = deep.new_zeros(len(row.hidden), *deep.shape[1:])
        found.append(replace(row, position=position, deepstack=deepstack))
    return found


def _lay(rows: Sequence[QuestionStates], indices: Sequence[int]) -> dict:
    """One packed row: the shared prefix is block 0, questions are blocks 1, 2, ..."""
    pictured = [i for i in indices if rows[i].image.any()]
    order = pictured + [i for i in indices if i not in pictured]
    shared = int(rows[pictured[0]].image.nonzero()[-1]) + 1 if pictured else 0
    first = rows[order[0]]
    device = first.hidden.device
    # Of which question which positions, the block's number, and the answer's length.
    parts = [(first, slice(0, shared), 0, 0)]
    for number, i in enumerate(order, 1):
        start = shared if i in pictured else 0
        parts.append((rows[i], slice(start, None), number, len(rows[i].answer)))
    made: dict = {
        "ids": [t for i in order for t in rows[i].answer],
        "order": [(i, len(rows[i].answer)) for i in order],
    }
    for name in ("hidden", "image", "position", "deepstack"):
        if getattr(first, name) is not None:
            made[name] = torch.cat([getattr(row, name)[where] for row, where, _, _ in parts])
    columns: dict[str, list] = {"block": [], "sees": [], "answer": []}
    for row, where, number, answer in parts:
        n = len(row.hidden[where])
        columns["block"] += [number] * n
        columns["sees"] += [number > 0 and where.start > 0] * n
        columns["answer"] += [False] * (n - answer) + [True] * answer
    return made | {k: torch.tensor(v, device=device) for k, v in columns.items()}
