"""How much single image tokens matter for an answer, measured, and the loss that teaches it.

Shapes: n image tokens, m of them sampled, T positions up to the prompt's end, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.partial import starting_above
from ...backbones.splice import Batch, hidden_states
from ...core.errors import BackboneError
from ..dualedit.adapters import InfluenceAdapter
from ..dualedit.frozen import FrozenStates, KeyedQuestion
from ..dualedit.losses import GEN, LOC, REL
from ..dualedit.packing import QuestionStates
from .model import VisEdit


@torch.no_grad()
def measured_influence(
    editor: VisEdit,
    row: QuestionStates,
    places: Tensor,
    sigma: float,
    *,
    plain: bool,
    seed: int = 0,
) -> Tensor:
    """What noise on each of ``places [m]`` changes at the prompt's end, ``[m]``, the largest 1.

    The token's input to the attention of every layer above the adapter's (the last left out)
    gets Gaussian noise; 1 minus the cosine of the decoder's outputs, over its largest value.
    """
    decoder, lm = editor.backbone.decoder, editor.backbone.language_model
    layer = editor.config.first_layer
    hidden = row.hidden[None, : row.end + 1].expand(len(places) + 1, -1, -1)
    ones = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    kept = {"position": row.position, "deepstack": row.deepstack}
    repeated = {
        name: tensor[None, : row.end + 1].expand(len(hidden), *[-1] * tensor.dim())
        for name, tensor in kept.items()
        if tensor is not None
    }
    batch = Batch(
        inputs_embeds=hidden,
        attention_mask=ones,
        position_ids=repeated.get("position", ones.cumsum(-1) - 1),
        image_mask=row.image[None, : row.end + 1].expand(len(hidden), -1),
        answer_mask=torch.zeros_like(ones, dtype=torch.bool),
        prompt_end=ones.sum(-1) - 1,
        answers=[[]] * len(hidden),
        deepstack=repeated.get("deepstack"),
    )
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(places), device=hidden.device)

    def disturb(states: Tensor) -> Tensor:
        noise = torch.randn(len(places), states.shape[-1], generator=generator).to(states)
        moved = states.clone()
        moved[rows, places] += sigma * noise
        return moved

    above = range(layer + 1, max(layer + 2, len(decoder.layers) - 1))
    with (
        starting_above(decoder, layer, hidden, plain=plain),
        _attention_inputs([decoder.layers[k] for k in above if k < len(decoder.layers)], disturb),
    ):
        ends = hidden_states(lm, batch)[:, -1].float()
    changed = 1 - F.cosine_similarity(ends[:-1], ends[-1:])
    return (changed / changed.max().clamp(min=1e-6)).clamp(0, 1)


@contextmanager
def _attention_inputs(
    layers: Sequence[nn.Module], change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """The attention of ``layers`` sees its input changed inside the block."""

    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}
        return (change(args[0]), *args[1:]), kwargs

    with ExitStack() as stack:
        for layer in layers:
            attention = getattr(layer, "self_attn", None)
            if attention is None:
                raise BackboneError("a decoder layer without self_attn: influence not measurable")
            handle = attention.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield


def influence_losses(
    editor: VisEdit,
    store: FrozenStates,
    asked: Sequence[KeyedQuestion],
    targets: Mapping[int, tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """Terms of the influence's loss, by name, each a mean.

    ``up``: -log influence on the images of edits and generality questions. ``down``: -log
    (1 - influence) on locality images. ``measured``: squared distance to what was measured.

    Args:
        targets: by record of the batch, places and measured influence ``[m]`` on its edit.
    """
    adapter, layer = editor.adapters[0], editor.config.first_layer
    assert isinstance(adapter, InfluenceAdapter)  # VisEdit takes no others
    rows = store.get(asked)
    edits = {a.record: r for a, r in zip(asked, rows, strict=True) if a.kind in REL}
    terms: dict[str, list[Tensor]] = {"up": [], "down": [], "measured": []}
    for a, row in zip(asked, rows, strict=True):
        if not row.image.any():
            continue
        edit = edits[a.record]
        own = influence_of(adapter, row.hidden[row.image], edit.states[layer][edit.end])
        if a.kind in REL + GEN:
            terms["up"].append(-own.clamp(min=1e-6).log().mean())
        elif a.kind in LOC:
            terms["down"].append(-(1 - own).clamp(min=1e-6).log().mean())
        if a.kind in REL and a.record in targets:
            places, wanted = targets[a.record]
            index = row.image.nonzero().flatten()
            chosen = (index[:, None] == places).nonzero()
            terms["measured"].append((own[chosen[:, 0]] - wanted[chosen[:, 1]]).pow(2).mean())
    return {name: torch.stack(values).mean() for name, values in terms.items() if values}


def influence_of(adapter: InfluenceAdapter, tokens: Tensor, end: Tensor) -> Tensor:
    """Influence ``[n]`` of image tokens ``[n, D]``; ``end [D]`` is the edit's last prompt token."""
    return adapter.influence_on(tokens, adapter.map_end(end.to(adapter.query.weight.dtype)))
