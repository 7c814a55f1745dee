"""What the gate reads, and the learned gate that compares more than one token.

Shapes: B rows, T positions, D hidden size, S parts of an image, K size of a gate's key.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.splice import Batch
from ...core.errors import TrainingError
from ...data import EditRecord, Question

KEY = 128  # K of the learned gate
PARTS = 4  # S of the learned gate
_SAME = ("edit", "rephrase", "image_rephrase", "image_far")
_OTHER = ("image_loc", "image_near", "text_loc", "out_scope")


def gate_position(kind: str, batch: Batch) -> Tensor:
    """Index ``[B]`` of the token that the gate reads, whichever side is padded.

    The last one of the prompt, or, as released, the last one of the sequence. (With right padding
    the release reads padding; here it is the last real token.)
    """
    if kind != "released":
        return batch.prompt_end
    places = torch.arange(batch.attention_mask.shape[1], device=batch.attention_mask.device)
    return (batch.attention_mask * places).argmax(-1)


def gate_input(kind: str, hidden: Tensor, batch: Batch) -> Tensor:
    """What the gate reads of ``hidden [B, T, D]``: ``[B, D]``, of a learned gate ``[B, (1+S) D]``.

    The token at :func:`gate_position`; a learned gate also takes the mean of each part of the
    image (zero where a row has none), its tokens in their order cut into S runs of equal length:
    one mean of all would not tell what stands where.
    """
    token = _token(kind, hidden, batch)
    if kind != "learned":
        return token
    return torch.cat([token[:, None], _parts(hidden, batch)], dim=1).flatten(1)


def _token(kind: str, hidden: Tensor, batch: Batch) -> Tensor:
    ends = set(batch.ends)
    if kind != "released" and len(ends) == 1:  # as when generating: a view, no index
        return hidden[:, ends.pop()]
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, gate_position(kind, batch)]


def _parts(hidden: Tensor, batch: Batch) -> Tensor:
    """The image's parts ``[B, S, D]``, see :func:`gate_input`."""
    spans = set(batch.image_spans)
    if len(spans) == 1:  # all rows have their image in one place: a few calls instead of a dozen
        start, stop = spans.pop() or (0, 0)
        if stop > start and (stop - start) % PARTS == 0:
            parts = hidden[:, start:stop].view(len(hidden), PARTS, -1, hidden.shape[-1])
            return parts.mean(2)
    image = batch.image_mask
    place, count = image.cumsum(1) - 1, image.sum(1, keepdim=True).clamp_(min=1)
    part = (place * PARTS // count).masked_fill_(~image, PARTS)
    share = (part[:, None] == torch.arange(PARTS, device=part.device)[:, None]).to(hidden)
    share = share / share.sum(-1, keepdim=True).clamp_(min=1)  # [B, S, T]
    return share @ hidden


class LearnedGate(nn.Module):
    """A projection under which a question is near its own edit and far from all others.

    The prompt's last token tells what is asked, the parts of the image of which picture. Each is
    normalised, all are joined and projected; keys are compared by the cosine, as in eq. 4. Not in
    the paper.
    """

    def __init__(self, hidden: int, key: int = KEY) -> None:
        super().__init__()
        self.hidden = hidden
        self.project = nn.Linear((1 + PARTS) * hidden, key)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, (1+S) D]`` of :func:`gate_input` -> keys ``[B, K]``."""
        weight = self.project.weight
        # Functions and views, not modules: with few rows calls cost more than what they compute.
        parts = inputs.to(weight.dtype).view(len(inputs), 1 + PARTS, self.hidden)
        normal = F.layer_norm(parts, (self.hidden,)).view(inputs.shape)
        return F.linear(normal, weight, self.project.bias)


def new_gate(backbone: Backbone) -> LearnedGate:
    """An untrained learned gate."""
    return LearnedGate(backbone.hidden_size).to(backbone.device).eval()


def fit_gate(
    gate: LearnedGate,
    records: Sequence[EditRecord],
    read: Callable[[str, Sequence[tuple[EditRecord, Question]]], Tensor],
    *,
    steps: int = 1500,
    batch_size: int = 128,
    lr: float = 4e-3,
    seed: int = 0,
) -> float:
    """Train ``gate`` on training records; returns the mean loss of the last tenth.

    In a batch of records every question is compared with every record's edit: an edit, its
    rephrasing and its redrawn image with their own edit must agree; locality questions,
    out-of-scope questions and other records' questions must not.

    Args:
        read: (kind, questions) -> what the gate reads of them ``[n, (1+S) D]``; called once a kind.

    Raises:
        TrainingError: fewer than two records, or one without an edit of its own kind.
    """
    if len(records) < 2:
        raise TrainingError("a gate is learned by comparing edits", remedy="give two records")
    inputs = {}
    for kind in _SAME + _OTHER:
        asked = [(i, q) for i, r in enumerate(records) for q in r.questions()[kind][:1]]
        if asked:
            at = torch.full((len(records),), -1)
            at[[i for i, _ in asked]] = torch.arange(len(asked))
            inputs[kind] = (at, read(kind, [(records[i], q) for i, q in asked]).float())
    rng = random.Random(f"gate {seed}")
    gate.train()
    scale = nn.Parameter(torch.tensor([2.3, -3.0]))  # temperature (log) and bias of the loss
    optimizer = torch.optim.AdamW([*gate.parameters(), scale], lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, steps))
    last: list[float] = []
    with torch.enable_grad():
        for step in range(steps):
            rows = torch.tensor(rng.sample(range(len(records)), min(batch_size, len(records))))
            keys = {}
            for kind, (at, found) in inputs.items():
                here = at[rows] >= 0
                keys[kind] = (here, F.normalize(gate(found[at[rows][here]]), dim=-1))
            edits = keys["edit"][1]
            loss = edits.new_zeros(())
            for kind, (here, own) in keys.items():
                logits = scale[0].exp() * (own @ edits.T) + scale[1]
                same = torch.eye(len(rows), device=logits.device)[here]
                if kind in _OTHER:
                    same = torch.zeros_like(same)
                elif kind != "edit":
                    loss = loss + F.cross_entropy(logits, here.nonzero().flatten()) / 4
                # One pair of many is the same: positives weigh as much as negatives.
                weight = 1 + same * (len(rows) - 1)
                pairs = F.binary_cross_entropy_with_logits(logits, same, weight, reduction="sum")
                loss = loss + pairs / len(own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if step >= steps * 9 // 10:
                last.append(float(loss.detach()))
    gate.eval()
    return sum(last) / len(last)


def _rate(steps: int, step: int) -> float:
    """A short warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2


def paper_threshold(backbone: Backbone) -> float:
    """tau of appendix D: 0.8 on BLIP-2, 0.6 on LLaVA; others, not in the paper, get LLaVA's."""
    return 0.8 if "blip2" in backbone.family else 0.6
