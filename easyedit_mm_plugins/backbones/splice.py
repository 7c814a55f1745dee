"""Rows of mixed text and image embeddings for a causal language model: one place that pads.

Every backbone here projects an image into the language model's embedding space and splices it
between text tokens. A :class:`Row` is such a sequence, a :class:`Batch` is rows padded on either
side, and the functions below run a Hugging Face causal language model on it. Base models and the
counterfactual model of MSCKE share this file.

Shapes: B rows, T positions, D hidden size, V image tokens, n_i answer tokens of row i, P axes of a
position (Qwen-VL has three: time, height, width), L layers after which image tokens get something
added (Qwen3-VL's deepstack).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Mixed:
    """Tokens of which some are an image's.

    Attributes:
        ids: all n of them.
        at: [n], true on image tokens.
        features: [V, D], what stands on them instead of embedded ids.
        positions: [n, P], counted from 0, where a model's positions have several axes.
        deepstack: [V, L, D], what is added to the image tokens after each of the first L layers.
        picture: what a backbone made them of.
    """

    ids: list[int]
    at: Tensor
    features: Tensor
    positions: Tensor | None = None
    deepstack: Tensor | None = None
    picture: Any = None

    def __len__(self) -> int:
        return len(self.ids)


# Token ids, ready embeddings [V, D], or both in one.
Segment: TypeAlias = "list[int] | Tensor | Mixed"


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
        position_ids: [B, T], counted from 0 over real positions, whatever the padding side; or
            [B, T, P].
        image_mask: [B, T], true where an image embedding lies.
        answer_mask: [B, T], true on answer tokens.
        prompt_end: [B], index of the last prompt position.
        answers: the answer ids of each row.
        ends: ``prompt_end`` as numbers, to be looked at without waiting for a device.
        image_spans: where each row's image begins and ends; ``None``: it has none, or not in one
            run.
        deepstack: [B, T, L, D], zero but on image tokens, see :class:`Mixed`.
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
    deepstack: Tensor | None = None


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
    ids = [i for row in rows for s in (*row.segments, row.answer) for i in _words(s)]
    device = _device(embed)
    embedded = embed(torch.tensor(ids, dtype=torch.long, device=device))
    sequences, images, cursor = [], [], 0
    for row in rows:
        parts, kinds = [], []
        for segment in (*row.segments, row.answer):
            if isinstance(segment, Tensor):
                parts.append(segment.to(embedded))
                kinds += [True] * len(segment)
                continue
            part = embedded[cursor : cursor + len(segment)]
            cursor += len(segment)
            if isinstance(segment, Mixed):
                places = segment.at.nonzero().flatten().to(part.device)
                part = part.index_put((places,), segment.features.to(part))
                kinds += segment.at.tolist()
            else:
                kinds += [False] * len(segment)
            parts.append(part)
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
        position_ids=_positions(rows, mask).to(device),
        image_mask=image_mask.to(device),
        answer_mask=answer_mask.to(device),
        prompt_end=ends.to(device),
        answers=[row.answer for row in rows],
        ends=ends.tolist(),
        image_spans=spans,
        deepstack=_deepstack(rows, mask, image_mask, batch_embeds),
    )


def _words(segment: Segment) -> list[int]:
    """The ids that are embedded; an image token's may lie outside of the vocabulary."""
    if isinstance(segment, Mixed):
        return [
            0 if image else i for i, image in zip(segment.ids, segment.at.tolist(), strict=True)
        ]
    return segment if isinstance(segment, list) else []


def _positions(rows: Sequence[Row], mask: Tensor) -> Tensor:
    """[B, T], or [B, T, P]: text goes on where what came before it ends."""
    plain = (mask.cumsum(-1) - 1).clamp(min=0)
    axes = {
        s.positions.shape[-1]
        for row in rows
        for s in row.segments
        if isinstance(s, Mixed) and s.positions is not None
    }
    if not axes:
        return plain
    found = plain[..., None].repeat(1, 1, axes.pop())
    for i, row in enumerate(rows):
        parts: list[Tensor] = []
        start = 0
        for segment in (*row.segments, row.answer):
            own = segment.positions if isinstance(segment, Mixed) else None
            if own is None:
                own = torch.arange(len(segment))[:, None].expand(-1, found.shape[-1])
            parts.append(start + own.cpu())
            start = int(parts[-1].max()) + 1 if len(own) else start
        found[i, mask[i].bool()] = torch.cat(parts)
    return found


def _deepstack(
    rows: Sequence[Row], mask: Tensor, image_mask: Tensor, embedded: Tensor
) -> Tensor | None:
    """[B, T, L, D], see :class:`Batch`."""
    stacks = [
        [s.deepstack for s in row.segments if isinstance(s, Mixed) and s.deepstack is not None]
        for row in rows
    ]
    depths = {stack.shape[1] for own in stacks for stack in own}
    if not depths:
        return None
    found = embedded.new_zeros(*mask.shape, depths.pop(), embedded.shape[-1])
    for i, own in enumerate(stacks):
        if own:
            places = image_mask[i].nonzero().flatten().to(found.device)
            found[i] = found[i].index_put((places,), torch.cat(own).to(found))
    return found


def _span(row: Row, start: int) -> tuple[int, int] | None:
    """Where the image of a row that begins at ``start`` lies, if it has just one."""
    images = []
    for segment in row.segments:
        stop = start + len(segment)
        if isinstance(segment, Mixed):
            places = segment.at.nonzero().flatten().tolist()
            if places:
                if places[-1] - places[0] + 1 != len(places):
                    return None
                images.append((start + places[0], start + places[-1] + 1))
        elif isinstance(segment, Tensor):
            images.append((start, stop))
        start = stop
    return images[0] if len(images) == 1 else None


def hidden_states(lm: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, T, D] of the decoder under ``lm``, before its output head."""
    decoder = getattr(lm, lm.base_model_prefix)
    inputs = decoder_inputs(lm, batch)
    return decoder(**inputs, use_cache=False, return_dict=True).last_hidden_state


def decoder_inputs(lm: Any, batch: Batch) -> dict[str, Any]:
    """What the decoder under ``lm`` takes of a batch; a language model of ours says it itself."""
    if hasattr(lm, "decoder_inputs"):
        return lm.decoder_inputs(batch)
    inputs = {"inputs_embeds": batch.inputs_embeds, "attention_mask": batch.attention_mask}
    if takes(getattr(lm, lm.base_model_prefix), "position_ids"):
        inputs["position_ids"] = batch.position_ids
    return inputs


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
    eos_token_id: int | Sequence[int],
    pad_token_id: int,
    max_new_tokens: int = 8,
    **kwargs: Any,
) -> list[list[int]]:
    """New token ids of each row, without the end token; greedy unless ``kwargs`` say otherwise.

    The batch must be padded on the left and carry no answers. Of several end tokens each ends.
    """
    stops = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
    if hasattr(lm, "generate") and hasattr(lm, "generation_config"):
        out = lm.generate(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            **(lm.prompt_inputs(batch) if hasattr(lm, "prompt_inputs") else {}),
            **{"do_sample": False, "num_beams": 1, **kwargs},
        )
    else:  # language models with code of their own, older than generation mixins
        out = _greedy(lm, batch, stops[0], max_new_tokens)
    return [row[: next((i for i, t in enumerate(row) if t in stops), None)] for row in out.tolist()]


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


def runs_of(at: Tensor) -> Tensor:
    """1, 2, ... on the runs of true values in ``at`` [..., n], 0 elsewhere."""
    before = torch.nn.functional.pad(at, (1, 0))[..., :-1]
    return (at & ~before).cumsum(-1) * at


def takes(module: nn.Module, argument: str) -> bool:
    """Whether ``module.forward`` has a parameter of that name."""
    return argument in inspect.signature(module.forward).parameters


def _device(embed: Callable[[Tensor], Tensor]) -> torch.device | None:
    weight = getattr(embed, "weight", None)
    return weight.device if isinstance(weight, Tensor) else None
