"""Measurements of a decoder's layers on text and image tokens, for DualEdit's figures.

Layers are counted from 0; "layer k" means the output of decoder layer k.

Shapes: N questions, T positions, L layers, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import Backbone
from ..backbones.partial import capture, starting_above
from ..backbones.splice import Batch, decoder_inputs, hidden_states
from ..core.errors import BackboneError
from ..data import EditRecord, Question
from ..methods.dualedit.calibration import roc_area

TOKENS = ("visual", "text", "all")
_AT_ONCE = 50  # questions per forward pass
_TOP = 3  # visual tokens of highest attention (figure 1)


def batches(questions: Sequence[Question], backbone: Backbone, **kwargs: Any) -> Iterator[Batch]:
    """Questions as batches for one forward pass each."""
    for i in range(0, len(questions), _AT_ONCE):
        yield backbone.batch(questions[i : i + _AT_ONCE], **kwargs)


def token_mask(batch: Batch, tokens: str) -> Tensor:
    """Positions ``[B, T]`` of a prompt's image tokens, of its text tokens, or of both."""
    real = batch.attention_mask.bool() & ~batch.answer_mask
    if tokens == "all":
        return real
    return real & (batch.image_mask if tokens == "visual" else ~batch.image_mask)


@torch.no_grad()
def attention_received(backbone: Backbone, questions: Sequence[Question]) -> dict[str, list[float]]:
    """Figure 1: the mean attention that text and image tokens receive, per layer.

    The attention that a token receives is the mean over heads and over the positions that see it.
    It is averaged over a question's text tokens, over its image tokens, and over the three image
    tokens that receive most.

    Raises:
        BackboneError: the decoder does not return its attention weights.
    """
    sums: dict[str, Tensor] = {}
    with _eager(backbone.language_model):
        for batch in batches(questions, backbone):
            for layer, weights in enumerate(_attentions(backbone, batch)):
                real = batch.attention_mask.bool()
                seen = real[:, :, None] & real[:, None, :]
                seen &= torch.ones_like(seen[0]).tril()
                given = weights.float().mean(1) * seen
                received = given.sum(1) / seen.sum(1).clamp(min=1)
                for name, value in _by_modality(received, batch).items():
                    total = sums.setdefault(name, torch.zeros(len(backbone.layers)))
                    total[layer] += value.sum().cpu()
    return {name: (total / len(questions)).tolist() for name, total in sums.items()}


def _by_modality(received: Tensor, batch: Batch) -> dict[str, Tensor]:
    found = {}
    for name in ("text", "visual"):
        mask = token_mask(batch, name)
        found[name] = (received * mask).sum(1) / mask.sum(1).clamp(min=1)
    only = received.masked_fill(~batch.image_mask, 0)
    found[f"visual, top {_TOP}"] = only.topk(min(_TOP, only.shape[1])).values.mean(1)
    return found


def _attentions(backbone: Backbone, batch: Batch) -> Sequence[Tensor]:
    decoder = backbone.decoder
    kwargs = decoder_inputs(backbone.language_model, batch)
    out = decoder(**kwargs, use_cache=False, output_attentions=True, return_dict=True)
    found = out.attentions
    if not found or found[0] is None:
        raise BackboneError(f"{backbone.name} does not return its attention weights")
    return found


@contextmanager
def _eager(model: nn.Module) -> Iterator[None]:
    """Attention weights are only computed by the plain implementation."""
    configs: dict[int, Any] = {
        id(m.config): m.config for m in model.modules() if hasattr(m, "config")
    }
    before = {key: getattr(c, "_attn_implementation", None) for key, c in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


@torch.no_grad()
def noise_effects(
    backbone: Backbone,
    questions: Sequence[Question],
    sigmas: Sequence[float],
    seed: int = 0,
) -> dict[tuple[str, float], list[float]]:
    """Figure 2: KL of the output under Gaussian noise on one modality's tokens, per layer.

    The output is the distribution of the first answer token. Sigma is in units of the root mean
    square of layer 0's output, the same for all layers.
    """
    decoder, lm = backbone.decoder, backbone.language_model
    count = len(decoder.layers)
    effects = {(t, s): [0.0] * count for t in TOKENS for s in sigmas}
    generator = torch.Generator().manual_seed(seed)
    for batch in batches(questions, backbone):
        with capture(decoder, range(count)) as outputs:
            clean = _log_p(lm, batch, hidden_states(lm, batch))
        real = batch.attention_mask.bool()
        unit = outputs[0][real].float().pow(2).mean().sqrt()
        for layer in range(count):
            hidden = outputs[layer]
            drawn = torch.randn(hidden.shape, generator=generator).to(hidden) * unit
            for tokens in TOKENS:
                mask = token_mask(batch, tokens)[..., None]
                for sigma in sigmas:
                    moved = hidden + drawn * sigma * mask
                    with starting_above(decoder, layer, moved, plain=outputs.plain):
                        log_p = _log_p(lm, batch, hidden_states(lm, batch))
                    kl = (clean.exp() * (clean - log_p)).sum(-1).sum()
                    effects[tokens, sigma][layer] += float(kl) / len(questions)
    return effects


def _log_p(lm: nn.Module, batch: Batch, hidden: Tensor) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    logits = lm.get_output_embeddings()(hidden[rows, batch.prompt_end])
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class Similarity:
    """Cosines of questions with their record's edit, of one kind of token (figure 4)."""

    edited: list[float]
    unrelated: list[float]

    @property
    def auc(self) -> float:
        """Area under the ROC curve."""
        return roc_area(self.edited, self.unrelated)


@torch.no_grad()
def gate_similarities(
    backbone: Backbone, records: Sequence[EditRecord], layers: Sequence[int]
) -> dict[int, dict[str, Similarity]]:
    """Figure 4: cosines at each layer of the mean image token, mean text token and last token.

    Edited: rephrasings and redrawn images. Unrelated: locality questions with an image, and
    without one (these have no image token to compare).
    """
    kinds = {"edited": ("rephrase", "image_rephrase"), "unrelated": ("image_loc", "text_loc")}
    edits = _read(backbone, [r.edit for r in records], layers)
    found: dict[int, dict[str, dict[str, list[float]]]] = {
        k: {t: {"edited": [], "unrelated": []} for t in ("visual", "text", "last")} for k in layers
    }
    for side, names in kinds.items():
        pairs = [(i, q) for i, r in enumerate(records) for n in names for q in r.questions()[n][:1]]
        asked = _read(backbone, [q for _, q in pairs], layers)
        own = torch.tensor([i for i, _ in pairs])
        pictured = torch.tensor([q.image is not None for _, q in pairs])
        for layer in layers:
            for tokens, states in asked[layer].items():
                cosine = F.cosine_similarity(states, edits[layer][tokens][own])
                kept = cosine[pictured] if tokens == "visual" else cosine
                found[layer][tokens][side] += kept.tolist()
    return {k: {t: Similarity(**v) for t, v in by.items()} for k, by in found.items()}


def _read(
    backbone: Backbone, questions: Sequence[Question], layers: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    parts: dict[int, dict[str, list[Tensor]]] = {k: {} for k in layers}
    for batch in batches(questions, backbone):
        with capture(backbone.decoder, layers) as outputs:
            hidden_states(backbone.language_model, batch)
        rows = torch.arange(len(batch.prompt_end), device=batch.prompt_end.device)
        for layer in layers:
            hidden = outputs[layer].float()
            for tokens in ("visual", "text"):
                mask = token_mask(batch, tokens)[..., None]
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                parts[layer].setdefault(tokens, []).append(mean.cpu())
            last = hidden[rows, batch.prompt_end]
            parts[layer].setdefault("last", []).append(last.cpu())
    return {k: {t: torch.cat(v) for t, v in by.items()} for k, by in parts.items()}


@torch.no_grad()
def answer_probe(
    backbone: Backbone, records: Sequence[EditRecord], layers: Sequence[int]
) -> list[float]:
    """Accuracy of a linear probe that reads an edit's answer from the edit sample's last token.

    One value for each layer: how much of the answer an adapter at this layer can read. The probe
    is a ridge regression on four fifths of the records, measured on the rest.
    """
    states: dict[int, list[Tensor]] = {k: [] for k in layers}
    ids: list[int] = []
    for batch in batches([r.edit for r in records], backbone, with_answers=True):
        with capture(backbone.decoder, layers) as outputs:
            hidden_states(backbone.language_model, batch)
        for layer in layers:  # padded on the left: the last position is an answer's last token
            states[layer].append(outputs[layer][:, -1].float().cpu())
        ids += [answer[-1] for answer in batch.answers]
    _, labels = torch.tensor(ids).unique(return_inverse=True)
    wanted, cut = F.one_hot(labels).float(), len(ids) * 4 // 5
    accuracies = []
    for layer in layers:
        x = torch.cat(states[layer])
        x = torch.cat([F.layer_norm(x, x.shape[-1:]), torch.ones(len(x), 1)], dim=1)
        seen = x[:cut]
        moment = seen.T @ seen / cut + 1e-3 * torch.eye(x.shape[1])
        probe = torch.linalg.solve(moment, seen.T @ wanted[:cut] / cut)
        right = (x[cut:] @ probe).argmax(-1) == labels[cut:]
        accuracies.append(float(right.float().mean()))
    return accuracies
