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
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.partial import hidden_of
from ...backbones.splice import Batch, hidden_states
from ...core.errors import ConfigError
from ...data import Question
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


def picture_places(batch: Batch, places: int) -> tuple[list[int], Tensor]:
    """The rows that have a picture, and their image features ``[., P, D]``."""
    rows = [i for i, some in enumerate(batch.image_mask.any(1).tolist()) if some]
    spans = {batch.image_spans[i] for i in rows}
    embeds = batch.inputs_embeds
    if len(spans) == 1 and (span := spans.pop()) is not None:
        tokens = embeds[:, span[0] : span[1]]
        return rows, pooled(tokens if len(rows) == len(embeds) else tokens[rows], places)
    found = [pooled(embeds[i][batch.image_mask[i]], places) for i in rows]
    return rows, torch.stack(found) if found else embeds.new_empty(0, places, embeds.shape[-1])


def keys_of(scope: SelfScope, hidden: Tensor, batch: Batch) -> Tensor:
    """The keys ``[B, Z]`` of a batch's questions, from the outputs of the scope's layer."""
    return scope.keys(last_states(hidden, batch), *picture_places(batch, scope.places))


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
    layer = max(0, layers // 2 - 1) if config.layer is None else config.layer
    if layer >= layers:
        raise ConfigError(
            f"scope.layer is {layer}, {backbone.name} has {layers} layers",
            remedy=f"give 0 to {layers - 1}; null is the middle",
        )
    places = config.places
    if backbone.takes_images and not backbone.ragged:
        blank = Image.new("RGB", (64, 64))
        places = min(places, len(backbone.image_features([blank])[0]))
    found = SelfScope(replace(config, layer=layer), backbone.hidden_size, places)
    return found.to(backbone.device).eval()
