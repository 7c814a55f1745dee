"""What the heads read, taken from the base model's own forward pass while it runs.

Hooks act in their own thread only and go however a pass ends, so that editors on one base model do
not meet.

Shapes: B questions, F rows that a generating model makes of each (beams), T positions, D hidden
size, P places of a picture, Z width of a key.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.partial import hidden_of
from ...backbones.splice import Batch, hidden_states
from ...core.errors import ConfigError
from ...data import Question
from ..base import Visible
from ..routed import Hit
from ..store import InForce
from .config import SelfScopeConfig
from .scope import SelfScope, pooled

AT_ONCE = 64  # questions of a pass that reads only
Result = TypeVar("Result")


class _Stop(Exception):
    pass


def until(
    decoder: Any, layer: int, decide: Callable[[Tensor], bool], run: Callable[[], Result]
) -> Result | None:
    """``run()``, whose first pass shows ``decide`` the outputs ``[B F, T, D]`` of ``layer``.

    Returns:
        What ``run`` returns; ``None`` if ``decide`` says that the pass may end there.
    """
    mine = threading.get_ident()
    handles: list[Any] = []

    def hook(module: Any, args: Any, output: Any) -> None:
        if threading.get_ident() == mine and handles:
            handles.pop().remove()
            if not decide(hidden_of(output)):
                raise _Stop

    handles.append(decoder.layers[layer].register_forward_hook(hook))
    try:
        return run()
    except _Stop:
        return None
    finally:
        for handle in handles:
            handle.remove()


def last_states(hidden: Tensor, batch: Batch) -> Tensor:
    """The states ``[B, D]`` at each prompt's last token; of beams, equal so far, the first."""
    times = len(hidden) // len(batch.ends)
    hidden = hidden if times == 1 else hidden[::times]
    ends = set(batch.ends)
    if len(ends) == 1:  # as when generating: a view, no index
        return hidden[:, ends.pop()]
    return hidden[torch.arange(len(hidden), device=hidden.device), batch.prompt_end]


def picture_places(
    batch: Batch, places: int, some: Sequence[int] | None = None
) -> tuple[list[int], Tensor]:
    """Which of the rows (of ``some`` rows) have a picture, and their image features ``[., P, D]``.

    Rows are counted among ``some``.
    """
    embeds, spans = batch.inputs_embeds, batch.image_spans
    some = range(len(embeds)) if some is None else some
    rows = [
        i for i, row in enumerate(some) if spans[row] is not None or batch.image_mask[row].any()
    ]
    found = {spans[some[i]] for i in rows}
    if len(found) == 1 and (span := found.pop()) is not None:  # all in one place: a view
        tokens = embeds[:, span[0] : span[1]]
        return rows, pooled(
            tokens if len(rows) == len(embeds) else tokens[[some[i] for i in rows]], places
        )
    parts = [pooled(embeds[some[i]][batch.image_mask[some[i]]], places) for i in rows]
    return rows, torch.stack(parts) if parts else embeds.new_empty(0, places, embeds.shape[-1])


def pictures_of(scope: SelfScope, batch: Batch, some: Sequence[int]) -> Tensor:
    """The picture keys ``[b, K]`` of the questions in b rows of a batch."""
    return scope.pictures(len(some), *picture_places(batch, scope.places, some))


def keys_of(scope: SelfScope, hidden: Tensor, batch: Batch) -> Tensor:
    """The keys ``[B, Z]`` of a batch's questions, from the outputs of the scope's layer."""
    return scope.keys(last_states(hidden, batch), *picture_places(batch, scope.places))


def decided(
    scope: SelfScope,
    hidden: Tensor,
    batch: Batch,
    now: InForce,
    threshold: float,
    visible: Visible = None,
) -> list[Hit]:
    """:meth:`SelfScope.decide` of a batch's questions, from the outputs of the scope's layer."""
    asked = scope.scope_keys(last_states(hidden, batch))
    return scope.decide(now, asked, partial(pictures_of, scope, batch), threshold, visible)


@torch.no_grad()
def read(
    backbone: Backbone,
    layer: int,
    questions: Sequence[Question],
    take: Callable[[Tensor, Batch], None],
) -> None:
    """Run the base model up to ``layer``; ``take`` gets each batch and the layer's outputs."""
    for start in range(0, len(questions), AT_ONCE):
        batch = backbone.batch(questions[start : start + AT_ONCE])

        def decide(hidden: Tensor, batch: Batch = batch) -> bool:
            take(hidden, batch)
            return False

        until(
            backbone.decoder,
            layer,
            decide,
            lambda batch=batch: hidden_states(backbone.language_model, batch),  # type: ignore[misc]
        )


@torch.no_grad()
def read_keys(backbone: Backbone, scope: SelfScope, questions: Sequence[Question]) -> Tensor:
    """The keys ``[B, Z]`` of ``questions``."""
    parts = [scope.bias.new_empty(0, scope.stored)]
    read(backbone, scope.layer, questions, lambda h, batch: parts.append(keys_of(scope, h, batch)))
    return torch.cat(parts)


def new_scope(config: SelfScopeConfig, backbone: Backbone) -> SelfScope:
    """Untrained heads for a backbone, on its device.

    Raises:
        ConfigError: it has no such layer.
    """
    layers = len(backbone.layers)
    layer = 2 * layers // 3 if config.layer is None else config.layer
    if layer >= layers:
        raise ConfigError(
            f"scope.layer is {layer}, {backbone.name} has {layers} layers",
            remedy=f"give 0 to {layers - 1}; null is two thirds of the way up",
        )
    places = config.places
    if backbone.takes_images and not backbone.ragged:
        blank = Image.new("RGB", (64, 64))
        places = min(places, len(backbone.image_features([blank])[0]))
    found = SelfScope(replace(config, layer=layer), backbone.hidden_size, places)
    return found.to(backbone.device).eval()
