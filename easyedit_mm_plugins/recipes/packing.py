"""Many questions on one picture in one row, kept apart by a block-causal mask.

The picture is the expensive part of a row, so it is computed once for all its questions: each
question sees the picture's prefix and itself, never its neighbours, and its positions are those it
would have alone.

Shapes: B rows, P prefix positions (picture and the tokens around it), L text positions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..scenes.second import language
from ..scenes.second.edits import draw_fact
from ..scenes.second.tokenizer import EOS, PAD
from ..scenes.second.world import ATTRIBUTES, VALUES, Entity, Scene
from .small_models import MERGE, Frame

TEMPLATE = "Question: {} Short answer:"
_WORD = re.compile(r"\w+|[^\w\s]")
_SMALL = re.compile(r"\b(?:what|which|is|the|of|does|have|in|tell|me|it)\b")
_HIDDEN = "<unk>"


@dataclass
class Block:
    """One question with its answer; ``entity`` is the one asked about, if there is one."""

    prompt: str
    answer: str
    image: bool = True
    entity: Entity | None = None
    weight: float = 1.0


def draw_blocks(
    scene: Scene, rng: random.Random, room: int, plain: float, hidden: float = 0.0
) -> list[Block]:
    """Training questions on a scene: one or two behind new facts, in some draws a caption or a
    text-only fact, and ordinary ones, as many as have room.

    Args:
        room: tokens of a row, about; equal rows leave little padding.
        plain: share of the questions that are asked without the template.
        hidden: share of the small words of ordinary questions that are hidden.
    """
    blocks = [Block(*draw_fact(scene, rng)) for _ in range(1 + (rng.random() < 0.3))]
    if rng.random() < 0.15:
        prompt = language.CAPTION_PROMPT
        prompt = TEMPLATE.format(prompt) if rng.random() < 0.5 else prompt
        blocks.append(Block(prompt, language.caption(scene), weight=0.3))
    if rng.random() < 0.5:
        fact = rng.choice(language.FACTS)
        blocks.append(Block(rng.choice(language.fact_questions(fact)), fact.answer, image=False))
    left = room - sum(map(_tokens, blocks))
    while left > 0 or len(blocks) < 4:
        question = language.sample_question(scene, rng)
        text = hide(language.phrase(question, rng), rng, hidden)
        text = text if rng.random() < plain else TEMPLATE.format(text)
        answer = language.answer(scene, question) or ""  # the scene has what is asked about
        blocks.append(Block(text, answer, entity=question.entity(scene)))
        left -= _tokens(blocks[-1])
    return blocks


def hide(text: str, rng: random.Random, share: float) -> str:
    """``text`` with a share of its small words hidden, so that less hangs on the exact wording."""
    if not share:
        return text
    return _SMALL.sub(lambda word: _HIDDEN if rng.random() < share else word[0], text)


def _tokens(block: Block) -> int:
    return len(_WORD.findall(block.prompt)) + len(_WORD.findall(block.answer))


@dataclass
class Prefix:
    """The part of each row that all its questions see.

    Attributes:
        embeds: [B, P, D], zero behind a row's own length.
        lengths: [B].
        positions: [B, P], or [3, B, P] where a model counts time, row and column.
        starts: [B], the position of the first text token.
    """

    embeds: torch.Tensor
    lengths: list[int]
    positions: np.ndarray
    starts: list[int]


def prefix(
    features: Sequence[torch.Tensor], parts: Frame, embed: Any, grids: torch.Tensor | None
) -> Prefix:
    """Lay out pictures [V, D] between the tokens around them."""
    before, after = (embed(torch.tensor(x, dtype=torch.long)) for x in (parts.before, parts.after))
    rows = [torch.cat([before, picture, after]) for picture in features]
    lengths = [len(row) for row in rows]
    width = max(lengths)
    embeds = torch.stack(
        [torch.nn.functional.pad(row, (0, 0, 0, width - len(row))) for row in rows]
    )
    if grids is None:
        return Prefix(embeds, lengths, np.tile(np.arange(width), (len(rows), 1)), lengths)
    positions, starts = np.zeros((3, len(rows), width), np.int64), []
    first = len(parts.before)
    for i, (_, height, across) in enumerate(grids.tolist()):
        height, across = height // MERGE, across // MERGE
        end = first + height * across
        positions[:, i, :first] = np.arange(first)
        positions[0, i, first:end] = first
        positions[1, i, first:end] = first + np.arange(height).repeat(across)
        positions[2, i, first:end] = first + np.tile(np.arange(across), height)
        after_it = first + max(height, across)
        starts.append(after_it + len(parts.after))
        positions[:, i, end : lengths[i]] = np.arange(after_it, starts[-1])
    return Prefix(embeds, lengths, positions, starts)


@dataclass
class Packed:
    """Text part of a packed batch; the prefix comes before it in every row."""

    ids: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [B, P + L] or [3, B, P + L]
    mask: torch.Tensor  # [B, 1, P + L, P + L], additive
    targets: torch.Tensor  # [B, L]: the next token where it belongs to an answer, else -100
    weights: torch.Tensor  # [B, L]
    ends: torch.Tensor  # [n, 2]: row and text column of the prompt's last token ...
    entities: torch.Tensor = field(repr=False)  # [n, 4]: ... and the attributes asked about


def pack(rows: list[list[Block]], tokenizer: Any, parts: Frame, front: Prefix) -> Packed:
    """Tokenize rows of blocks and lay them out behind their prefixes."""
    texts = [text for row in rows for b in row for text in (b.prompt, b.answer)]
    encoded = iter(
        e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    )
    layout: list[tuple[list, ...]] = []
    ends: list[tuple[int, int]] = []
    entities: list[list[int]] = []
    for r, row in enumerate(rows):
        columns: tuple[list, ...] = tuple([] for _ in range(6))
        ids, positions, block, sees, targets, weights = columns
        for b, item in enumerate(row):
            prompt, answer = next(encoded), [*next(encoded), EOS]
            prompt = [*([] if item.image else parts.alone), *prompt, *parts.end]
            tokens = [*prompt, *answer[:-1]]
            if item.entity is not None:
                ends.append((r, len(ids) + len(prompt) - 1))
                entities.append([VALUES[a].index(item.entity.value(a)) for a in ATTRIBUTES])
            start = front.starts[r] if item.image else 0
            ids += tokens
            positions += range(start, start + len(tokens))
            block += [b] * len(tokens)
            sees += [item.image] * len(tokens)
            targets += [-100] * (len(prompt) - 1) + answer
            weights += [item.weight] * len(tokens)
        layout.append(columns)

    length = max(len(row[0]) for row in layout)

    def table(column: int, fill: float, dtype: Any = np.int64) -> np.ndarray:
        out = np.full((len(layout), length), fill, dtype)
        for r, row in enumerate(layout):
            out[r, : len(row[column])] = row[column]
        return out

    blocks, pictured = table(2, -1), table(3, 0).astype(bool)
    width = front.embeds.shape[1]
    total = width + length
    real = np.arange(width) < np.array(front.lengths)[:, None]  # [B, P]
    allowed = np.zeros((len(layout), total, total), bool)
    allowed[:, width:, :width] = pictured[:, :, None] & real[:, None, :]
    allowed[:, width:, width:] = blocks[:, :, None] == blocks[:, None, :]
    allowed[:, :width, :width] = real[:, None, :]
    allowed |= np.eye(total, dtype=bool)  # padding sees itself: no row of the softmax is empty
    allowed &= np.tri(total, dtype=bool)
    mask = torch.zeros(len(layout), 1, total, total)
    mask.masked_fill_(~torch.from_numpy(allowed)[:, None], torch.finfo(torch.float32).min)
    text = np.broadcast_to(table(1, 0), (*front.positions.shape[:-1], length))
    return Packed(
        torch.from_numpy(table(0, PAD)),
        torch.from_numpy(np.concatenate([front.positions, text], axis=-1)),
        mask,
        torch.from_numpy(table(4, -100)),
        torch.from_numpy(table(5, 0, np.float32)),
        torch.tensor(ends, dtype=torch.long).reshape(-1, 2),
        torch.tensor(entities, dtype=torch.long).reshape(-1, len(ATTRIBUTES)),
    )
