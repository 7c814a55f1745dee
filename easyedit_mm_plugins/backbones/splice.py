"""Rows of mixed text and image embeddings for a causal language model: one place that pads.

Every backbone here projects an image into the language model's embedding space and splices it
between text tokens. A :class:`Row` is such a sequence, a :class:`Batch` is rows padded on either
side, and the functions below run a Hugging Face causal language model on it. Base models and the
counterfactual model of MSCKE share this file.

Shapes: B rows, T positions, D hidden size, V image tokens, n_i answer tokens of row i.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

# Token ids, or ready embeddings [V, D].
Segment: TypeAlias = "list[int] | Tensor"


@dataclass
class Row:
    """One sequence: prompt segments, then the token ids of an answer (may be empty)."""

    segments: list[Segment]
    answer: list[int] = field(default_factory=list)


@dataclass
class Batch:
    """Padded rows, ready for a language model.

    Attributes:
        inputs_embeds: [B, T, D].
        attention_mask: [B, T], 1 on real positions.
        position_ids: [B, T], counted from 0 over real positions, whatever the padding side.
        image_mask: [B, T], true where an image embedding lies.
        answer_mask: [B, T], true on answer tokens.
        prompt_end: [B], index of the last prompt position.
        answers: the answer ids of each row.
        ends: ``prompt_end`` as numbers, to be looked at without waiting for a device.
        image_spans: where each row's image begins and ends; ``None``: it has none, or not in one
            run.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    image_mask: Tensor
    answer_mask: Tensor
    prompt_end: Tensor
    answers: list[list[int]]
    ends: list[int] = field(default_factory=list)
    image_spans: list[tuple[int, int] | None] = field(default_factory=list)


def assemble(
    rows: Sequence[Row],
    embed: Callable[[Tensor], Tensor],
    *,
    padding_side: Literal["left", "right"] = "left",
) -> Batch:
    """Pad ``rows`` into a batch.

    Args:
        rows: at least one, none of them empty.
        embed: token ids [n] -> embeddings [n, D]; called once for all rows.
        padding_side: where the padding goes.
    """
    ids = [i for row in rows for s in (*row.segments, row.answer) if isinstance(s, list) for i in s]
    device = _device(embed)
    embedded = embed(torch.tensor(ids, dtype=torch.long, device=device))
    sequences, images, cursor = [], [], 0
    for row in rows:
        parts, kinds = [], []
        for segment in (*row.segments, row.answer):
            if isinstance(segment, list):
                parts.append(embedded[cursor : cursor + len(segment)])
                cursor += len(segment)
            else:
                parts.append(segment.to(embedded))
            kinds += [not isinstance(segment, list)] * len(segment)
        sequences.append(torch.cat(parts))
        images.append(torch.tensor(kinds, dtype=torch.bool))
    lengths = [len(s) for s in sequences]
    width, device = max(lengths), embedded.device
    batch_embeds = embedded.new_zeros(len(rows), width, embedded.shape[-1])
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    image_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    answer_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    ends = torch.zeros(len(rows), dtype=torch.long)
    pieces, spans = [], []
    for i, (row, sequence, is_image, n) in enumerate(
        zip(rows, sequences, images, lengths, strict=True)
    ):
        start = width - n if padding_side == "left" else 0
        mask[i, start : start + n] = 1
        image_mask[i, start : start + n] = is_image
        ends[i] = start + n - len(row.answer) - 1
        answer_mask[i, ends[i] + 1 : start + n] = True
        spans.append(_span(row, start))
        blank = batch_embeds[i, : width - n]
        pieces.append(torch.cat([blank, sequence] if padding_side == "left" else [sequence, blank]))
    return Batch(
        inputs_embeds=torch.stack(pieces),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
        image_mask=image_mask.to(device),
        answer_mask=answer_mask.to(device),
        prompt_end=ends.to(device),
        answers=[row.answer for row in rows],
        ends=ends.tolist(),
        image_spans=spans,
    )


def _span(row: Row, start: int) -> tuple[int, int] | None:
    """Where the image of a row that begins at ``start`` lies, if it has just one."""
    lengths = [len(segment) for segment in row.segments]
    images = [i for i, segment in enumerate(row.segments) if not isinstance(segment, list)]
    if len(images) != 1:
        return None
    before = start + sum(lengths[: images[0]])
    return before, before + lengths[images[0]]


def hidden_states(lm: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, T, D] of the decoder under ``lm``, before its output head."""
    decoder = getattr(lm, lm.base_model_prefix)
    kwargs: dict[str, Any] = {
        "inputs_embeds": batch.inputs_embeds,
        "attention_mask": batch.attention_mask,
        "use_cache": False,
        "return_dict": True,
    }
    if _takes(decoder, "position_ids"):
        kwargs["position_ids"] = batch.position_ids
    return decoder(**kwargs).last_hidden_state


def answer_logits(lm: Any, batch: Batch) -> list[Tensor]:
    """Teacher-forced logits [n_i, vocab] of each row's answer tokens; differentiable.

    The output head runs on the answer positions only. The logits that predict a token stand one
    position before it.
    """
    hidden = hidden_states(lm, batch)
    logits = lm.get_output_embeddings()(hidden[answered_from(batch)])
    return list(logits.split([len(a) for a in batch.answers]))


def answered_from(batch: Batch) -> Tensor:
    """The positions ``[B, T]`` whose outputs predict answer tokens: one before each."""
    before = batch.answer_mask.roll(-1, dims=1)  # an answer never starts at position 0
    before[:, -1] = False
    return before


def generate_ids(
    lm: Any,
    batch: Batch,
    *,
    eos_token_id: int,
    pad_token_id: int,
    max_new_tokens: int = 8,
    **kwargs: Any,
) -> list[list[int]]:
    """New token ids of each row, without the end token; greedy unless ``kwargs`` say otherwise.

    The batch must be padded on the left and carry no answers.
    """
    if hasattr(lm, "generate") and hasattr(lm, "generation_config"):
        out = lm.generate(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            **{"do_sample": False, "num_beams": 1, **kwargs},
        )
    else:  # language models with code of their own, older than generation mixins
        out = _greedy(lm, batch, eos_token_id, max_new_tokens)
    rows = out.tolist()
    return [r[: r.index(eos_token_id)] if eos_token_id in r else r for r in rows]


@torch.no_grad()
def _greedy(lm: Any, batch: Batch, eos_token_id: int, max_new_tokens: int) -> Tensor:
    embeds, mask = batch.inputs_embeds, batch.attention_mask
    new = torch.empty(len(embeds), 0, dtype=torch.long, device=embeds.device)
    for _ in range(max_new_tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        step = Batch(embeds, mask, positions, mask.bool(), mask.bool(), mask[:, 0], [])
        logits = lm.get_output_embeddings()(hidden_states(lm, step)[:, -1])
        token = logits.argmax(-1, keepdim=True)
        new = torch.cat([new, token], dim=1)
        if (new == eos_token_id).any(1).all():
            break
        embeds = torch.cat([embeds, lm.get_input_embeddings()(token).to(embeds)], dim=1)
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
    return new


def _takes(module: nn.Module, argument: str) -> bool:
    return argument in inspect.signature(module.forward).parameters


def _device(embed: Callable[[Tensor], Tensor]) -> torch.device | None:
    weight = getattr(embed, "weight", None)
    return weight.device if isinstance(weight, Tensor) else None
