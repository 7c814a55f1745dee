"""E_i, E_t and A_i, A_t of MSCKE eq. 4-5 from a Hugging Face ``CLIPModel``, as the release has it.

The same frame as ``encoder.py``'s open_clip models: regions and tokens in the shared space, beside
CLIP's own pooled vectors (``get_image_features``, ``get_text_features``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...core.errors import BackboneError
from ...data import ImageLike, open_image
from .encoding import Encoder, FileIds

if TYPE_CHECKING:
    from transformers import CLIPModel


class HFClipEncoder(Encoder):
    """Images to regions and texts to tokens by a ``CLIPModel``.

    Args:
        clip: the model.
        tokenizer: texts to ids.
        processor: settings of its ``CLIPImageProcessor``, which prepares images if ``resize`` is
            ``"crop"``; only mean and deviation are taken from it for ``"squash"``.
        resize: ``"squash"`` or ``"crop"``.
    """

    tokenizer: FileIds

    def __init__(
        self, clip: CLIPModel, tokenizer: FileIds, processor: dict[str, Any], resize: str = "crop"
    ) -> None:
        from transformers import CLIPImageProcessor

        self._processor = CLIPImageProcessor.from_dict(processor)
        config = clip.config
        super().__init__(
            clip,
            tokenizer,
            mean=self._processor.image_mean,
            std=self._processor.image_std,
            resize=resize,
            width=config.projection_dim,
            context=config.text_config.max_position_embeddings,
            size=config.vision_config.image_size,
        )

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``ids [B, L]`` -> pooled ``[B, D]``, tokens ``[B, L, D]``, their mask ``[B, L]``."""
        states = self.clip.text_model(input_ids=ids).last_hidden_state
        return self.pool(self.clip.text_projection(states), ids)

    def pixels(self, image: ImageLike) -> Tensor:
        """One image, normalised, ``[3, S, S]`` on the CPU; see :class:`Encoder`."""
        if self.resize != "crop":
            return super().pixels(image)
        picture = open_image(image)
        return self._processor(images=picture, return_tensors="pt")["pixel_values"][0].float()

    def regions(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> patches in the shared space ``[N, R, D]``."""
        return self._project(self._states(pixels)[:, 1:])

    def pooled(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> CLIP's image features ``[N, 1, D]``, not normalised."""
        return self._project(self._states(pixels)[:, :1])

    def _states(self, pixels: Tensor) -> Tensor:
        return self.clip.vision_model(pixel_values=pixels).last_hidden_state

    def _project(self, states: Tensor) -> Tensor:
        return self.clip.visual_projection(self.clip.vision_model.post_layernorm(states))

    def description(self) -> dict[str, Any]:
        """What :meth:`from_description` needs besides weights."""
        described = self._processor.to_dict()
        return {
            "kind": "hf-clip",
            "clip": self.clip.config.to_diff_dict(),
            "tokenizer": self.tokenizer.json(),
            "marks": self.tokenizer.marks,
            "processor": {k: described[k] for k in _SETTINGS if k in described},
            "resize": self.resize,
        }

    @classmethod
    def from_description(cls, described: dict[str, Any]) -> HFClipEncoder:
        """An encoder with random weights from :meth:`description`."""
        from transformers import CLIPConfig, CLIPModel

        config: Any = CLIPConfig.from_dict(described["clip"])
        return cls(
            CLIPModel(config).float(),
            FileIds(described["tokenizer"], *described["marks"]),
            described["processor"],
            described["resize"],
        )

    @classmethod
    def load(cls, name: str, resize: str = "crop", *, weights: bool = True) -> HFClipEncoder:
        """From a folder with a ``CLIPModel``, its tokenizer and image processor, or a hub name.

        Without ``weights`` only the configuration is read; the weights are random.

        Raises:
            BackboneError: a file is missing or cannot be read, or the hub is out of reach.
        """
        from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

        try:
            if weights:
                clip = CLIPModel.from_pretrained(name).float()
            else:
                config: Any = CLIPConfig.from_pretrained(name)
                clip = CLIPModel(config).float()
            tokens = AutoTokenizer.from_pretrained(name, use_fast=True)
            processor = CLIPImageProcessor.from_pretrained(name).to_dict()
            text = tokens.backend_tokenizer.to_str()
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BackboneError(
                f"scope encoder {name} cannot be loaded as a CLIPModel: {error}",
                remedy="give a folder with a CLIPModel, its tokenizer and its image processor, as "
                "save_pretrained writes them, or a hub name where the hub can be reached",
            ) from error
        return cls(clip, FileIds(text, tokens.bos_token, tokens.eos_token), processor, resize)


_SETTINGS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
    "rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb",
)  # fmt: skip
