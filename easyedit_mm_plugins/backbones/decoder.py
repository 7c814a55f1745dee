"""A language model of any family: a decoder and a head, driven as the whole model drives them.

Shapes: B rows, T positions, D hidden size, P axes of a position, L deepstack layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .splice import Batch, runs_of, takes

Attention = Literal["causal", "image", "prefix"]


@dataclass(frozen=True)
class Habits:
    """How a model drives its decoder.

    Attributes:
        attention: every token sees those before it ("causal"); and an image's tokens each other
            ("image", Gemma 3); or the prompt's tokens each other ("prefix", PaliGemma).
        masks: where the decoder takes a mask for each kind of layer, their names.
        origin: the first token's position.
        axes: P, or 0 where a position is one number.
        deepstack: whether image features enter at several layers.
    """

    attention: Attention = "causal"
    masks: tuple[str, ...] = ()
    origin: int = 0
    axes: int = 0
    deepstack: bool = False


class CausalDecoder(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """``decoder`` and ``head`` of a model, which are shared with it, as one that generates.

    Args:
        decoder: has ``layers`` and takes ``inputs_embeds``.
        head: hidden states to logits.
        habits: how the whole model drives it.
    """

    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_cache_class = _supports_sdpa = _supports_attention_backend = True
    _supports_flash_attn = _supports_flash_attn_2 = _supports_flex_attn = True

    def __init__(self, decoder: Any, head: nn.Module, habits: Habits) -> None:
        super().__init__(decoder.config)
        self.model, self.lm_head, self.habits = decoder, head, habits
        self.generation_config = GenerationConfig()
        # Called "cache" by transformers from 5.24 on.
        self.cache_name = "cache" if takes(decoder, "cache") else "past_key_values"

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.lm_head

    # Batches --------------------------------------------------------------------------------------

    def decoder_inputs(self, batch: Batch) -> dict[str, Any]:
        """What the decoder takes of a batch."""
        together = self._together(batch.attention_mask, batch.image_mask, batch.answer_mask)
        return self._inputs(
            batch.inputs_embeds,
            batch.attention_mask,
            batch.position_ids,
            together,
            batch.image_mask,
            batch.deepstack,
        )

    def prompt_inputs(self, batch: Batch) -> dict[str, Tensor]:
        """What ``generate`` takes of a batch of prompts beside embeddings and mask."""
        inputs = {"positions": batch.position_ids, "image_mask": batch.image_mask}
        return inputs if batch.deepstack is None else {**inputs, "deepstack": batch.deepstack}

    def _together(self, mask: Tensor, image_mask: Tensor, answer_mask: Tensor | None) -> Any:
        """Numbers [B, T]: tokens of equal numbers above 0 see each other; ``None``: none do."""
        if self.habits.attention == "causal" or mask.dim() != 2:
            return None
        if self.habits.attention == "prefix":
            prompt = mask.bool() if answer_mask is None else mask.bool() & ~answer_mask
            return prompt.long()
        if not image_mask.any():
            return None
        return runs_of(image_mask)

    def _inputs(
        self,
        embeds: Tensor,
        mask: Tensor,
        positions: Tensor,
        together: Tensor | None,
        image_mask: Tensor | None,
        deepstack: Tensor | None,
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {"inputs_embeds": embeds, "attention_mask": mask}
        if together is not None:
            masks = {
                name: self._mask(embeds, mask, together, name) for name in self.habits.masks or [""]
            }
            inputs["attention_mask"] = masks if self.habits.masks else masks[""]
        if takes(self.model, "position_ids"):
            if self.habits.axes:
                if positions.dim() == 2:
                    positions = positions[..., None].expand(-1, -1, self.habits.axes)
                positions = positions.permute(2, 0, 1)
            inputs["position_ids"] = positions + self.habits.origin
        if deepstack is not None and image_mask is not None and image_mask.any():
            inputs["visual_pos_masks"] = image_mask
            inputs["deepstack_visual_embeds"] = list(deepstack[image_mask].unbind(1))
        return inputs

    def _mask(self, embeds: Tensor, mask: Tensor, together: Tensor, kind: str) -> Tensor:
        """[B, 1, T, T], added to attention's scores."""
        order = torch.arange(mask.shape[1], device=mask.device)
        back = order[:, None] - order
        allowed = back >= 0
        if kind == "sliding_attention":
            allowed = allowed & (back < self.config.get_text_config().sliding_window)
        same = (together[:, :, None] == together[:, None, :]) & (together > 0)[:, :, None]
        allowed = (allowed | same) & mask.bool()[:, None, :]
        allowed = allowed | (back == 0)  # a row of padding that sees nothing has no softmax
        out = torch.zeros(allowed.shape, dtype=embeds.dtype, device=embeds.device)
        return out.masked_fill_(~allowed, torch.finfo(embeds.dtype).min)[:, None]

    # Generation -----------------------------------------------------------------------------------

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        positions: Tensor | None = None,
        image_mask: Tensor | None = None,
        deepstack: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """See transformers: the prompt's embeddings first, then what is not in the cache yet.

        ``positions`` [B, T] or [B, T, P], ``image_mask`` [B, T] and ``deepstack`` [B, T, L, D] are
        the prompt's, see :class:`Batch`.
        """
        assert inputs_embeds is not None and positions is not None
        cache, width = kwargs.get(self.cache_name), inputs_embeds.shape[1]
        past = 0 if cache is None else int(cache.get_seq_length())
        length = width + input_ids.shape[1]
        new = length - max(past, width)  # generated and not in the cache
        if attention_mask is None:  # newer versions leave a mask of ones out
            attention_mask = positions.new_ones(len(positions), length)
        embeds = self.get_input_embeddings()(input_ids[:, input_ids.shape[1] - new :])
        steps = torch.arange(new, device=positions.device) + max(past - width, 0) + 1
        if positions.dim() == 2:
            after = positions[:, -1:] + steps
        else:
            after = positions[:, -1:].amax(-1, keepdim=True) + steps[:, None]
            after = after.expand(-1, -1, positions.shape[-1])
        inputs = {self.cache_name: cache, "use_cache": kwargs.get("use_cache", True)}
        inputs |= {"attention_mask": attention_mask, "inputs_embeds": embeds, "positions": after}
        if past:
            return inputs
        inputs["inputs_embeds"] = torch.cat([inputs_embeds, embeds.to(inputs_embeds)], dim=1)
        inputs["positions"] = torch.cat([positions, after], dim=1)
        pad = torch.nn.functional.pad
        inputs["image_mask"] = None if image_mask is None else pad(image_mask, (0, new))
        inputs["deepstack"] = None if deepstack is None else pad(deepstack, (0, 0, 0, 0, 0, new))
        answers = torch.arange(width + new, device=embeds.device) >= width
        inputs["answer_mask"] = answers.expand(len(embeds), -1)
        return inputs

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        image_mask: Tensor | None = None,
        answer_mask: Tensor | None = None,
        deepstack: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, 1, vocab] of the last position; see :meth:`prepare_inputs_for_generation`."""
        assert inputs_embeds is not None and attention_mask is not None and positions is not None
        together = None
        if image_mask is not None:
            together = self._together(attention_mask, image_mask, answer_mask)
        inputs = self._inputs(
            inputs_embeds, attention_mask, positions, together, image_mask, deepstack
        )
        cache = {self.cache_name: kwargs.get(self.cache_name)}
        out = self.model(**inputs, **cache, use_cache=use_cache, return_dict=True)
        logits = self.lm_head(out.last_hidden_state[:, -1:])
        return CausalLMOutputWithPast(logits=logits, **{self.cache_name: out[self.cache_name]})


class Capped(nn.Module):
    """A head whose logits are bent into (-cap, cap), as Gemma 2's are."""

    def __init__(self, head: Any, cap: float) -> None:
        super().__init__()
        self.head, self.cap = head, cap

    @property
    def weight(self) -> Tensor:
        """The head's."""
        return self.head.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] -> logits [..., vocab]."""
        return torch.tanh(self.head(hidden) / self.cap) * self.cap
