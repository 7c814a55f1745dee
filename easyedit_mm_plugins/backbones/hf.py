"""Hugging Face BLIP-2, models built like MiniGPT-4, and LLaVA as subclasses of :class:`Backbone`.

Attribute paths moved between transformers 4.49 and 5.x (``model.language_model`` or
``model.model.language_model``), so modules are looked up by name at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import BackboneError, ConfigError
from ..data.images import open_image
from ..data.records import ImageLike
from .base import Backbone, unmarked
from .hub import from_where, unreachable
from .splice import Segment


def find_module(model: nn.Module, name: str) -> Any:
    """The submodule or parameter called ``name`` of ``model``, or of the model inside it.

    Raises:
        BackboneError: there is none.
    """
    for holder in (model, getattr(model, "model", None)):
        if holder is not None and getattr(holder, name, None) is not None:
            return getattr(holder, name)
    raise BackboneError(f"{type(model).__name__} has no {name}")


def _dtype_argument() -> str:
    """``from_pretrained`` renamed its argument in transformers 4.56."""
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    return "dtype" if version >= (4, 56) else "torch_dtype"


def load_parts(
    folder: str | Path,
    what: str,
    parts: Mapping[str, str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    device_map: Any = None,
    bits: int | None = None,
) -> dict[str, Any]:
    """A model and what belongs to it, from a folder or hub id.

    Args:
        what: the kind of model, for messages.
        parts: "model" and others, each with its class in transformers.
        device, dtype: float32 on a CPU and the stored dtype on a GPU by default.
        device_map: as transformers takes it, e.g. "auto"; ``device`` then does not count.
        bits: 4 or 8 loads the weights quantised, by bitsandbytes; what an editor adds is not.

    Raises:
        BackboneError: files are missing or unreadable, or bitsandbytes is needed and missing.
        ConfigError: another number of bits.
    """
    where = from_where(folder)
    import transformers

    cpu = device_map is None and torch.device(device).type == "cpu"
    wanted = dtype if dtype is not None else (torch.float32 if cpu else "auto")
    options: dict[str, Any] = {_dtype_argument(): wanted}
    if bits is not None:
        options["quantization_config"] = _quantised(bits, dtype)
        device_map = {"": str(device)} if device_map is None else device_map
    if device_map is not None:
        options["device_map"] = device_map
    found: dict[str, Any] = {}
    try:
        for name, kind in parts.items():
            own = options if name == "model" else {}
            # Processors on NumPy, where there is a choice: the same numbers in every version.
            own = own | ({"use_fast": False} if kind == "AutoImageProcessor" else {})
            found[name] = getattr(transformers, kind).from_pretrained(folder, **own, **where)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        if where:
            raise unreachable(folder) from error
        raise BackboneError(
            f"cannot load {what} from {folder}: {error}",
            remedy="give a complete model folder, or a hub id where the hub can be reached",
        ) from error
    if device_map is None:
        found["model"].to(device)
    found["model"].requires_grad_(False)
    return found


def _quantised(bits: int, dtype: torch.dtype | None) -> Any:
    import importlib.util

    import transformers

    if bits not in (4, 8):
        raise ConfigError(f"bits is {bits!r}", remedy="4 or 8, or leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise BackboneError(
            f"weights of {bits} bits need bitsandbytes", remedy="pip install bitsandbytes"
        )
    if bits == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype or torch.bfloat16,
    )


class HFBackbone(Backbone):
    """What the Hugging Face families share: image processing and loading from a folder or hub."""

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, image_processor: Any, **kwargs: Any
    ) -> None:
        super().__init__(name, model, tokenizer, **kwargs)
        self.image_processor = image_processor
        self.vision_tower = find_module(model, self._vision)

    _vision = "vision_model"

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        device_map: Any = None,
        bits: int | None = None,
        **kwargs: Any,
    ) -> HFBackbone:
        """Load a model folder or hub id; arguments as for :func:`load_parts`.

        Raises:
            BackboneError: files are missing or unreadable; the message names the folder.
        """
        parts = {
            "model": cls.model_class,
            "tokenizer": "AutoTokenizer",
            "processor": "AutoImageProcessor",
        }
        found = load_parts(
            *(folder, cls.family, parts),
            device=device,
            dtype=dtype,
            device_map=device_map,
            bits=bits,
        )
        args = (found[part] for part in parts)
        return cls(name or str(folder), *args, **kwargs)

    model_class: str

    def pixels(self, images: Sequence[ImageLike]) -> Tensor:
        """Preprocess images into [N, 3, H, W]."""
        pictures = [open_image(image) for image in images]
        options = {"return_tensors": "pt"}
        bases = {base.__name__ for base in type(self.image_processor).__mro__}
        if not bases & {"BaseImageProcessorFast", "TorchvisionBackend"}:
            # Those on NumPy take a picture 1 or 3 pixels high for one with its channels first.
            options["input_data_format"] = "channels_last"
        pixels = self.image_processor(images=pictures, **options)["pixel_values"]
        weight = next(self.vision_tower.parameters())
        return pixels.to(weight.device, weight.dtype)


class HFBlip2(HFBackbone):
    """``Blip2ForConditionalGeneration`` with an OPT decoder: [image V][</s>] prompt."""

    family = "blip2"
    model_class = "Blip2ForConditionalGeneration"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.language_model = find_module(self.model, "language_model")
        self.qformer = find_module(self.model, "qformer")
        self.projection = find_module(self.model, "language_projection")

    def vision(self, pixels: Tensor) -> Tensor:
        """The ViT's last states: [N, 3, H, W] -> [N, S, E]."""
        return self.vision_tower(pixel_values=pixels, return_dict=True).last_hidden_state

    def connect(self, states: Tensor) -> Tensor:
        """Q-Former and projection: [N, S, E] -> [N, V, D]."""
        queries = find_module(self.model, "query_tokens").expand(len(states), -1, -1)
        queried = self.qformer(
            query_embeds=queries.to(states.dtype),
            encoder_hidden_states=states,
            return_dict=True,
        ).last_hidden_state
        return self.projection(queried)

    @property
    def connector(self) -> dict[str, nn.Module]:
        """``qformer`` and ``projection``."""
        return {"qformer": self.qformer, "projection": self.projection}

    def splice(self, image: Tensor | None, prompt: str) -> list[Segment]:
        """Image embeddings come first, the tokenizer's start token after them."""
        ids = self.token_ids(prompt)
        return [ids] if image is None else [image, ids]


class HFMiniGPT4(HFBlip2):
    """ViT, Q-Former and a Llama decoder in MiniGPT-4's words: [<s> ###Human: <Img>][image V][</Img>
    prompt]. Its class is ``Blip2ForConditionalGeneration`` with a Llama inside."""

    family = "minigpt4"

    def splice(self, image: Tensor | None, prompt: str) -> list[Segment]:
        """The image between ``<Img>`` and ``</Img>``; a prompt without one stands alone."""
        if image is None:
            return [self.token_ids(prompt)]
        after = self.token_ids("</Img> " + prompt, special=False)
        return [self.token_ids("###Human: <Img>"), image, after]


class HFLlava(HFBackbone):
    """``LlavaForConditionalGeneration`` with a Llama decoder: [<s>][image V] prompt.

    A template may say where the image goes by ``<image>``; otherwise it follows the start token.
    """

    family = "llava"
    model_class = "LlavaForConditionalGeneration"
    _vision = "vision_tower"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.language_model = _causal(self.model)
        self.projector = find_module(self.model, "multi_modal_projector")

    def vision(self, pixels: Tensor) -> Tensor:
        """The states that the model's own layer and strategy select: [N, 3, H, W] -> [N, S, E]."""
        config = self.model.config
        states = self.vision_tower(pixels, output_hidden_states=True).hidden_states
        which = config.vision_feature_layer
        chosen = [states[i] for i in ([which] if isinstance(which, int) else which)]
        if config.vision_feature_select_strategy == "default":
            chosen = [state[:, 1:] for state in chosen]  # without the class position
        return torch.cat(chosen, dim=-1)

    def connect(self, states: Tensor) -> Tensor:
        """The projector: [N, S, E] -> [N, V, D]."""
        return self.projector(states)

    @property
    def connector(self) -> dict[str, nn.Module]:
        """``projector``, two linear maps."""
        return {"projector": self.projector}

    def splice(self, image: Tensor | None, prompt: str) -> list[Segment]:
        """Start token, image, prompt; or the image where the template says ``<image>``."""
        if image is None:
            return [self.token_ids(unmarked(prompt))]
        if "<image>" in prompt:
            before, after = prompt.split("<image>", 1)
            return [
                self.token_ids(before),
                image,
                self.token_ids(after, special=False),
            ]
        ids, bare = self.token_ids(prompt), self.token_ids(prompt, special=False)
        start = len(ids) - len(bare)
        return [ids[:start], image, ids[start:]] if start else [image, ids]


def _causal(model: Any) -> nn.Module:
    inner = find_module(model, "language_model")
    if hasattr(inner, "lm_head"):
        return inner
    import transformers

    # 4.52 and later hold a bare decoder beside an outer head. The causal class of the same config
    # is built empty and given the very modules, so no weight is copied.
    with torch.device("meta"):
        causal = transformers.AutoModelForCausalLM.from_config(model.config.text_config)
    setattr(causal, causal.base_model_prefix, inner)
    causal.set_output_embeddings(model.get_output_embeddings())
    causal.config = inner.config
    return causal.eval()
