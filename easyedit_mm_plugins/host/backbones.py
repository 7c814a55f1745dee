"""EasyEdit's own `Blip2OPT` and `MiniGPT4` as subclasses of :class:`Backbone`.

The Hugging Face models that its HEAD loads beside them become an :class:`HFAuto`.

The two generations lay a row out differently; each is reproduced, found by what the class offers:

=============  ==============================================  ==================================
               image row                                       text row
=============  ==============================================  ==================================
BLIP-2 pypi    [image V] </s> prompt                           </s> prompt
BLIP-2 head    [image V] prompt                                prompt
MiniGPT-4 pypi <s> ###Human: <Img> [image V] </Img> prompt     prompt
MiniGPT-4 head ###Human: <Img> [image V] </Img> prompt         prompt
=============  ==============================================  ==================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..backbones.auto import HFAuto
from ..backbones.base import Backbone
from ..backbones.splice import Batch, Segment
from ..core.errors import BackboneError, DataError
from ..data.images import open_image
from ..data.records import ImageLike

IMAGE_SIZE = 364
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
WRAP = ("###Human: <Img>", "</Img> ")  # MiniGPT-4's words around an image


def normalise(image: Tensor) -> Tensor:
    """RGB in [0, 1] -> what EasyEdit's BLIP processor gives; any shape [..., 3, H, W]."""
    mean, std = (image.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (image - mean) / std


def denormalise(pixels: Tensor) -> Tensor:
    """EasyEdit's pixels [..., 3, H, W] -> RGB in [0, 1], the inverse of :func:`normalise`."""
    mean, std = (pixels.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels * std + mean).clamp(0, 1)


def blip_pixels(image: ImageLike) -> Tensor:
    """One image as EasyEdit's BLIP-2 sees it: bicubic to 364 x 364, normalised; [3, 364, 364].

    Raises:
        DataError: the image is missing or broken.
    """
    from torchvision.transforms import InterpolationMode, functional

    if isinstance(image, Tensor) and image.shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE):
        return normalise(image.float())
    size = [IMAGE_SIZE, IMAGE_SIZE]
    resized = functional.resize(open_image(image), size, InterpolationMode.BICUBIC)
    return normalise(functional.to_tensor(resized))


class EasyEditBackbone(Backbone):
    """What the two classes share; ``takes_samples`` says that ``model(samples)`` works."""

    takes_samples: ClassVar[bool] = True

    def pixels(self, images: Sequence[ImageLike]) -> Tensor:
        """Preprocess images into [N, 3, 364, 364]."""
        device = next(self.model.visual_encoder.parameters()).device
        return torch.stack([blip_pixels(image).to(device) for image in images])

    def vision(self, pixels: Tensor) -> Tensor:
        """EVA ViT and its layer norm: [N, 3, 364, 364] -> [N, S, E]."""
        with self.model.maybe_autocast():
            return self.model.ln_vision(self.model.visual_encoder(pixels))

    def _queried(self, states: Tensor) -> Tensor:
        """The Q-Former: [N, S, E] -> [N, V, Q-Former size]."""
        mask = torch.ones(states.shape[:-1], dtype=torch.long, device=states.device)
        return self.model.Qformer.bert(
            query_embeds=self.model.query_tokens.expand(len(states), -1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            return_dict=True,
        ).last_hidden_state

    def generate_ids(self, batch: Batch, **kwargs: Any) -> list[list[int]]:
        """As :meth:`Backbone.generate_ids`, but the tokenizer's end token ends an answer too."""
        eos = self.tokenizer.eos_token_id
        rows = super().generate_ids(batch, **kwargs)
        return [row[: row.index(eos)] if eos in row else row for row in rows]


class EasyEditBlip2(EasyEditBackbone):
    """EasyEdit's ``Blip2OPT``."""

    family = "easyedit-blip2"

    def __init__(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(name, model, model.opt_tokenizer, **kwargs)
        self.language_model = model.opt_model
        # head tokenizes a row without special tokens, and has this method
        self.special = not hasattr(model, "image_encoding")

    def connect(self, states: Tensor) -> Tensor:
        """Q-Former and projection: [N, S, E] -> [N, V, D]."""
        return self.model.opt_proj(self._queried(states))

    @property
    def connector(self) -> dict[str, nn.Module]:
        """``qformer`` and ``projection``."""
        return {"qformer": self.model.Qformer, "projection": self.model.opt_proj}

    def splice(self, image: Tensor | None, prompt: str) -> list[Segment]:
        """See the module's table."""
        ids = self.token_ids(prompt, special=self.special)
        return [ids] if image is None else [image, ids]

    @property
    def stop_token_id(self) -> int:
        """BLIP-2's OPT ends an answer with a line break."""
        return self.model.eos_token_id


class EasyEditMiniGPT4(EasyEditBackbone):
    """EasyEdit's ``MiniGPT4``."""

    family = "easyedit-minigpt4"

    def __init__(self, name: str, model: nn.Module, **kwargs: Any) -> None:
        super().__init__(name, model, model.llama_tokenizer, **kwargs)
        self.language_model = model.llama_model
        # head drops the start token, so that its image begins one position earlier
        start = not hasattr(model, "text_encoding")
        self._before = [self.tokenizer.bos_token_id] if start else []
        self._before += self.token_ids(WRAP[0], special=False)
        self._after = self.token_ids(WRAP[1], special=False)

    def connect(self, states: Tensor) -> Tensor:
        """Q-Former and projection: [N, S, E] -> [N, V, D]."""
        with self.model.maybe_autocast():
            return self.model.llama_proj(self._queried(states))

    @property
    def connector(self) -> dict[str, nn.Module]:
        """``qformer`` and ``projection``."""
        return {"qformer": self.model.Qformer, "projection": self.model.llama_proj}

    def splice(self, image: Tensor | None, prompt: str) -> list[Segment]:
        """See the module's table."""
        ids = self.token_ids(prompt, special=False)
        return [ids] if image is None else [self._before, image, self._after, ids]

    def answer_ids(self, answer: str) -> list[int]:
        """Target tokens as they follow a prompt.

        A sentencepiece tokenizer puts a space of its own before a text, so the answer is cut out
        of a longer one.

        Raises:
            DataError: the answer is empty.
        """
        start = self.token_ids(":", special=False)
        ids = self.token_ids(f": {answer.strip()}", special=False)[len(start) :]
        if not answer.strip() or not ids:
            raise DataError("an answer is empty", field="answer", remedy="give the target a text")
        return ids


def wrap(
    model: nn.Module, name: str | None = None, processor: Any = None, **kwargs: Any
) -> Backbone:
    """``model`` of EasyEdit as a backbone; a :class:`Backbone` is returned as it is.

    ``processor`` is what HEAD calls ``tok`` beside a Hugging Face model.

    Raises:
        BackboneError: it is neither ``Blip2OPT``, ``MiniGPT4`` nor a backbone, nor a Hugging Face
            model with its processor.
    """
    if isinstance(model, Backbone):
        return model
    if hasattr(model, "opt_model") and hasattr(model, "opt_proj"):
        return EasyEditBlip2(name or "blip2", model, **kwargs)
    if hasattr(model, "llama_model") and hasattr(model, "llama_proj"):
        return EasyEditMiniGPT4(name or "minigpt4", model, **kwargs)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind and hasattr(processor, "tokenizer"):
        return HFAuto(name or kind, model, processor, **kwargs)
    raise BackboneError(
        f"cannot make a backbone of a {type(model).__name__}",
        remedy="pass EasyEdit's Blip2OPT or MiniGPT4, a Hugging Face model with its AutoProcessor, "
        "or a Backbone of this package",
    )
