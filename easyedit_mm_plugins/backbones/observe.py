"""What a vision-language model hands its decoder, seen by running it: no family needs code for it.

A model of any family turns token ids and pixels into embeddings, positions and a mask, each in its
own way, and gives them to a decoder. :func:`reach` runs the model up to there. From one such look
:func:`habits_of` tells how the decoder is driven, and :func:`pictures_of` what an image becomes.

Shapes: B rows, T positions, D hidden size, V image tokens, P axes of a position, L deepstack
layers.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core.errors import BackboneError, DataError
from .splice import Mixed, runs_of

if TYPE_CHECKING:
    from .decoder import Habits

# What a decoder is given here, too, or what is not about the input.
_KNOWN = {
    *("inputs_embeds", "attention_mask", "position_ids"),
    *("visual_pos_masks", "deepstack_visual_embeds"),
    *("past_key_values", "cache", "cache_position", "use_cache", "return_dict"),
}


def find_decoder(model: Any) -> Any:
    """The part of ``model`` that holds the word embeddings and a list of layers.

    Raises:
        BackboneError: there is none.
    """
    words = model.get_input_embeddings()
    for module in model.modules():
        layers = isinstance(getattr(module, "layers", None), nn.ModuleList)
        if layers and any(child is words for child in module.children()):
            return module
    raise BackboneError(f"no decoder was found in a {type(model).__name__}")


class _Reached(Exception):
    """Ends a model's pass at its decoder."""


def reach(
    model: Any, decoder: Any, inputs: Mapping[str, Any], *, stop: bool = True
) -> tuple[dict[str, Any], Any]:
    """What ``decoder`` is given when ``model`` gets ``inputs``, by name; the model's output.

    ``stop``: the decoder does not run, and the output is ``None``. Differentiable.

    Raises:
        BackboneError: the model does not get to its decoder.
    """
    found: dict[str, Any] = {}
    mine, signature = threading.get_ident(), inspect.signature(decoder.forward)
    rest = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)

    def look(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == mine:
            bound = signature.bind_partial(*args, **kwargs).arguments
            found.update((bound.pop(rest, {}) if rest else {}) | bound)
            if stop:
                raise _Reached

    handle = decoder.register_forward_pre_hook(look, with_kwargs=True)
    output = None
    try:
        output = model(**inputs, use_cache=False, return_dict=True)
    except _Reached:
        pass
    finally:
        handle.remove()
    if found.get("inputs_embeds") is None:
        raise BackboneError(f"a {type(model).__name__} hands its decoder no embeddings")
    return found, output


def unknown(found: Mapping[str, Any]) -> list[str]:
    """Names of what a decoder was given and is not given here."""
    plain = (bool, int, float, str, type(None))
    return [n for n, v in found.items() if n not in _KNOWN and not isinstance(v, plain)]


@dataclass(frozen=True)
class Picture:
    """An image, or several asked about together, as a language model takes it.

    Attributes:
        before, after: what a prompt says around the question, as the processor wrote it for
            this image.
        features: [V, D].
        runs: how many image tokens follow each other, in their order; what stands between them
            is in ``before``.
        steps: [V, P], positions within each run, from where the text before it ended.
        deepstack: [V, L, D], see :class:`Mixed`.
    """

    before: str
    after: str
    features: Tensor
    runs: tuple[int, ...]
    steps: Tensor | None = None
    deepstack: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory."""
        kept = (self.features, self.steps, self.deepstack)
        return sum(t.nbytes for t in kept if t is not None)

    def clone(self) -> Picture:
        """With tensors of its own."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in tensors.items()}
        return replace(self, **copies)

    def seen_by(self, features: Tensor) -> Picture:
        """With other features [V, D'], for a language model that has neither several axes of
        positions nor deepstack."""
        return replace(self, features=features, steps=None, deepstack=None)

    def among(self, ids: list[int], image_token: int) -> Mixed:
        """``ids`` of a prompt with this image's features on its image tokens.

        Raises:
            DataError: the question holds image tokens of its own.
        """
        at = torch.tensor(ids) == image_token
        if _runs(at) != self.runs:
            raise DataError(
                "has a word that stands for an image",
                field="prompt",
                remedy="leave it out; the image has its place in the prompt",
            )
        positions = None
        if self.steps is not None:
            positions = place(at, self.steps)
        return Mixed(ids, at, self.features, positions, self.deepstack, self)


def _runs(at: Tensor) -> tuple[int, ...]:
    """Lengths of the runs of true values in ``at`` [n]."""
    return tuple(torch.bincount(runs_of(at))[1:].tolist())


def place(at: Tensor, steps: Tensor) -> Tensor:
    """Positions [n, P] of tokens, ``steps`` [V, P] within each run of image tokens ``at`` [n].

    A word stands one behind the farthest position of what came before it.
    """
    out = torch.empty(len(at), steps.shape[-1], dtype=torch.long)
    values, counts = at.long().unique_consecutive(return_counts=True)
    start = cursor = used = 0
    for image, count in zip(values.tolist(), counts.tolist(), strict=True):
        if image:
            own = steps[used : used + count]
            used += count
        else:
            own = torch.arange(count)[:, None].expand(-1, steps.shape[-1])
        out[cursor : cursor + count] = start + own
        start = start + int(own.max()) + 1
        cursor += count
    return out


def _positions(given: Any, row: int, real: Tensor) -> Tensor | None:
    """Positions [n] or [n, P] of a row, without padding, of what a decoder was given."""
    if given is None:
        return None
    given = given.cpu()
    if given.dim() == 3:
        # Newer Qwen models put one axis more in front, a text's own count.
        own = given[1:] if len(given) == 4 else given
        return own[:, row if own.shape[1] > 1 else 0, real].T
    return given[row if len(given) > 1 else 0, real]


def pictures_of(
    found: Mapping[str, Any], ids: Tensor, real: Tensor, image_token: int, frames: Sequence[Any]
) -> list[Picture]:
    """What :func:`reach` found, picture by picture.

    Args:
        ids: [B, T], what the model was given.
        real: bool [B, T], false on padding.
        frames: for each row what stands before and after the question.
    """
    out, used = [], 0
    embeds, deep = found["inputs_embeds"], found.get("deepstack_visual_embeds")
    for row, (before, after) in enumerate(frames):
        kept = real[row].nonzero().flatten()
        at = (ids[row, kept] == image_token).cpu()
        places = kept[at.to(kept.device)].to(embeds.device)
        positions = _positions(found.get("position_ids"), row, kept.cpu())
        steps = None
        if positions is not None and positions.dim() == 2:
            steps = _steps(at, positions)
        stacks = None
        if deep is not None:
            stacks = torch.stack([level[used : used + len(places)] for level in deep], dim=1)
        used += len(places)
        out.append(Picture(before, after, embeds[row, places], _runs(at), steps, stacks))
    return out


def _steps(at: Tensor, positions: Tensor) -> Tensor:
    """[V, P] of :class:`Picture`, from the positions [n, P] that a model gave.

    Raises:
        BackboneError: words do not follow each other one by one.
    """
    parts, start, cursor = [], int(positions[0].max()) if len(at) else 0, 0
    values, counts = at.long().unique_consecutive(return_counts=True)
    for image, count in zip(values.tolist(), counts.tolist(), strict=True):
        own = positions[cursor : cursor + count]
        if image:
            parts.append(own - start)
        start, cursor = int(own.max()) + 1, cursor + count
    steps = torch.cat(parts) if parts else positions[:0]
    if not torch.equal(place(at, steps), positions - int(positions[0].min())):
        raise BackboneError("the model counts the positions of words in a way not known here")
    return steps


def habits_of(
    found: Mapping[str, Any], model: Any, ids: Tensor, image_token: int, embed: Any
) -> Habits:
    """How a decoder is driven, from one row without padding that has words after its image.

    Raises:
        BackboneError: in a way that is not known here.
    """
    from .decoder import Habits

    kind = type(model).__name__
    image = ids[0] == image_token
    words = embed(ids.masked_fill(ids == image_token, 0))[0][~image]
    if not torch.allclose(found["inputs_embeds"][0][~image].to(words), words, rtol=1e-3, atol=1e-5):
        raise BackboneError(f"a {kind} changes the embeddings of words in a way not known here")
    positions = _positions(found.get("position_ids"), 0, torch.ones_like(image).cpu())
    origin, axes = 0, 0
    if positions is not None:
        origin, axes = int(positions[0].min()), 0 if positions.dim() == 1 else positions.shape[-1]
        counted = torch.arange(len(positions)) + origin
        if not axes and not torch.equal(positions, counted):
            raise BackboneError(f"a {kind} counts positions in a way not known here")
    mask = found.get("attention_mask")
    masks = tuple(mask) if isinstance(mask, dict) else ()
    attention: Any = "causal"
    given = mask.get("full_attention") if isinstance(mask, dict) else mask
    if isinstance(given, Tensor) and given.dim() == 4:
        attention = _attention(given[0, 0], image.cpu())
        if attention is None:
            raise BackboneError(f"in a {kind} tokens see each other in a way not known here")
    deepstack = found.get("deepstack_visual_embeds") is not None
    return Habits(attention, masks, origin, axes, deepstack)


def _attention(mask: Tensor, image: Tensor) -> str | None:
    """Which of :data:`decoder.Attention` a mask [T, T] shows."""
    seen = (mask if mask.dtype == torch.bool else mask == 0).cpu()
    causal = torch.ones_like(seen).tril()
    if torch.equal(seen, causal):
        return "causal"
    if seen.all():
        return "prefix"
    run = runs_of(image)
    together = (run[:, None] == run) & image
    return "image" if torch.equal(seen, causal | together) else None
