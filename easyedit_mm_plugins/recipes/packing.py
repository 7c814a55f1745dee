"""Many questions on one image in one row, kept apart by a block-causal mask.

The image is the expensive part of a row, so it is computed once for all its questions: each
question sees the image prefix and itself, never its neighbours, and its positions are those it
would have alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import torch

from ..scenes import language
from ..scenes.tokenizer import BOS, EOS, PAD
from ..scenes.world import ATTRIBUTES, VALUES, Entity, Scene

TEMPLATE = "Question: {} Short answer:"


@dataclass
class Block:
    """One question with its answer; ``entity`` is the one asked about, if there is one."""

    prompt: str
    answer: str
    image: bool = True
    entity: Entity | None = None
    weight: float = 1.0


def draw_blocks(scene: Scene, rng: random.Random, n: int) -> list[Block]:
    """``n`` training questions on a scene; in some draws a caption or a text-only fact too."""
    blocks = []
    for _ in range(n):
        question = language.sample_question(scene, rng)
        text = TEMPLATE.format(language.phrase(question, rng))
        answer = language.answer(scene, question) or ""  # the scene has what is asked about
        blocks.append(Block(text, answer, entity=question.entity(scene)))
    if rng.random() < 0.15:
        prompt = language.CAPTION_PROMPT
        prompt = TEMPLATE.format(prompt) if rng.random() < 0.5 else prompt
        blocks[-1] = Block(prompt, language.caption(scene), weight=0.3)
    if rng.random() < 0.5:
        fact = rng.choice(language.FACTS)
        blocks.append(Block(rng.choice(language.fact_questions(fact)), fact.answer, image=False))
    return blocks


@dataclass
class Packed:
    """Text part of a packed batch; ``prefix`` image positions come before it in every row."""

    ids: torch.Tensor  # [B, L]
    positions: torch.Tensor  # [B, P + L]
    mask: torch.Tensor  # [B, 1, P + L, P + L], additive
    targets: torch.Tensor  # [B, L]: the next token where it belongs to an answer, else -100
    weights: torch.Tensor  # [B, L]
    ends: torch.Tensor  # [n, 2]: row and text column of the prompt's last token ...
    entities: torch.Tensor = field(repr=False)  # [n, 4]: ... and the attributes asked about


def pack(rows: list[list[Block]], tokenizer, prefix: int) -> Packed:
    """Tokenize and lay out rows of blocks behind ``prefix`` positions of image and ``<s>``."""
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
            if not item.image:
                prompt = [BOS, *prompt]
            tokens = [*prompt, *answer[:-1]]
            if item.entity is not None:
                ends.append((r, len(ids) + len(prompt) - 1))
                entities.append([VALUES[a].index(item.entity.value(a)) for a in ATTRIBUTES])
            start = prefix if item.image else 0
            ids += tokens
            positions += range(start, start + len(tokens))
            block += [b] * len(tokens)
            sees += [item.image] * len(tokens)
            targets += [-100] * (len(prompt) - 1) + answer
            weights += [item.weight] * len(tokens)
        layout.append(columns)

    length = max(len(row[0]) for row in layout)

    def table(column: int, fill: float, dtype=np.int64) -> np.ndarray:
        out = np.full((len(layout), length), fill, dtype)
        for r, row in enumerate(layout):
            out[r, : len(row[column])] = row[column]
        return out

    blocks, pictured = table(2, -1), table(3, 0).astype(bool)
    total = prefix + length
    allowed = np.zeros((len(layout), total, total), bool)
    allowed[:, prefix:, :prefix] = pictured[:, :, None]
    allowed[:, prefix:, prefix:] = blocks[:, :, None] == blocks[:, None, :]
    allowed[:, :prefix, :prefix] = True
    allowed &= np.tri(total, dtype=bool)
    mask = torch.zeros(len(layout), 1, total, total)
    mask.masked_fill_(~torch.from_numpy(allowed)[:, None], torch.finfo(torch.float32).min)
    before = np.broadcast_to(np.arange(prefix), (len(layout), prefix))
    return Packed(
        torch.from_numpy(table(0, PAD)),
        torch.from_numpy(np.concatenate([before, table(1, 0)], axis=1)),
        mask,
        torch.from_numpy(table(4, -100)),
        torch.from_numpy(table(5, 0, np.float32)),
        torch.tensor(ends, dtype=torch.long).reshape(-1, 2),
        torch.tensor(entities, dtype=torch.long).reshape(-1, len(ATTRIBUTES)),
    )
