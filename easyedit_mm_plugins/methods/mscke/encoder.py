"""E_i, E_t and A_i, A_t of MSCKE eq. 4-5: an ``open_clip`` model that gives regions and tokens.

CLIP itself returns one vector per image; here every patch is projected into the shared space, so
that a text can attend to the part of the image it speaks of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import open_clip
import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from ...data import ImageLike, open_image
from ...errors import BackboneError, CheckpointError, ConfigError, DataError
from ...files import read_json
from ...registry import did_you_mean
from .checkpoint import load_tensors

LOG = logging.getLogger(__name__)
ASSETS = Path(__file__).parents[2] / "assets"


class TextIds(Protocol):
    """A text as token ids, start and end marks left out, plus the ids of these marks."""

    start: int
    end: int

    def ids(self, text: str) -> list[int]: ...


class BpeIds:
    """CLIP's own byte-pair tokenizer, whose vocabulary ``open_clip`` ships."""

    def __init__(self) -> None:
        self._tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self.start, self.end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        return self._tokenizer.encode(text)

    def json(self) -> str | None:
        """What a saved encoder must carry: nothing, every ``open_clip`` has it."""
        return None


class FileIds:
    """A ``tokenizers`` file beside the weights, with ``<s>`` and ``</s>`` as marks."""

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(text)
        self.start = self._tokenizer.token_to_id("<s>")
        self.end = self._tokenizer.token_to_id("</s>")

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def json(self) -> str | None:
        """The file's content."""
        return self._tokenizer.to_str(pretty=True)


class ClipEncoder(nn.Module):
    """Images to regions and texts to tokens in CLIP's shared space.

    Args:
        clip: a plain ``open_clip.CLIP`` with a vision transformer.
        config: what builds it again: ``{"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}``.
        tokenizer: texts to ids.
        mean, std: pixel statistics.
        resize: ``"squash"`` or ``"crop"``.

    Raises:
        BackboneError: the model is of another kind.
    """

    def __init__(
        self,
        clip: nn.Module,
        config: dict[str, Any],
        tokenizer: BpeIds | FileIds,
        *,
        mean: Sequence[float] = open_clip.OPENAI_DATASET_MEAN,
        std: Sequence[float] = open_clip.OPENAI_DATASET_STD,
        resize: str = "squash",
    ) -> None:
        super().__init__()
        visual = getattr(clip, "visual", None)
        if not isinstance(clip, open_clip.CLIP) or not hasattr(visual, "_embeds"):
            raise BackboneError(
                f"the scope encoder must be a CLIP with a vision transformer, not "
                f"{type(clip).__name__} with {type(visual).__name__}",
                remedy="choose ViT-B-32, ViT-L-14 or another plain ViT of open_clip",
            )
        self.clip, self.config, self.tokenizer = clip, config, tokenizer
        self.mean, self.std, self.resize = list(mean), list(std), resize
        self.width: int = visual.output_dim
        self.context: int = clip.context_length
        size = visual.image_size
        self.size: int = size if isinstance(size, int) else size[0]
        self._warned = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.clip.logit_scale.device

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Ids ``[B, L]``, padded with 0; L is the longest text's length, at most CLIP's context.

        Longer texts lose their end; the first time this is said in a warning.
        """
        rows = []
        for text in texts:
            ids = self.tokenizer.ids(text)
            if len(ids) > self.context - 2 and not self._warned:
                self._warned = True
                LOG.warning(
                    "a prompt of %d tokens is cut to the %d that the scope encoder reads "
                    "(further ones are cut without a word): %.60s...",
                    len(ids),
                    self.context - 2,
                    text,
                )
            rows.append([self.tokenizer.start, *ids[: self.context - 2], self.tokenizer.end])
        out = torch.zeros(len(rows), max(map(len, rows), default=2), dtype=torch.long)
        for i, ids in enumerate(rows):
            out[i, : len(ids)] = torch.tensor(ids)
        return out.to(self.device)

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``ids [B, L]`` -> pooled ``[B, D]``, tokens ``[B, L, D]``, their mask ``[B, L]``.

        The text tower is causal, so leaving out padding changes nothing.
        """
        clip, length = self.clip, ids.shape[1]
        x = clip.token_embedding(ids) + clip.positional_embedding[:length]
        mask = None if clip.attn_mask is None else clip.attn_mask[:length, :length].to(x.dtype)
        x = clip.ln_final(clip.transformer(x, attn_mask=mask))
        x = x @ clip.text_projection
        end = (ids == self.tokenizer.end).int().argmax(-1)
        places = torch.arange(length, device=ids.device)
        return x[torch.arange(len(x), device=ids.device), end], x, places <= end[:, None]

    def pixels(self, image: ImageLike) -> Tensor:
        """One image, normalised, ``[3, S, S]`` on the CPU.

        Raises:
            DataError: the image is missing or cannot be read.
        """
        if isinstance(image, Tensor):
            if image.ndim != 3 or image.shape[0] != 3:
                raise DataError(f"an image tensor must be [3, H, W], not {list(image.shape)}")
            x = image.detach().float().cpu()
        else:
            x = pil_to_tensor(open_image(image)).float() / 255
        height, width = x.shape[-2:]
        if self.resize == "crop" and height != width:
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            x = x[:, top : top + side, left : left + side]
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x[None], (self.size, self.size), mode="bicubic", antialias=True)[0]
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (x.clamp(0, 1) - mean[:, None, None]) / std[:, None, None]

    def regions(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> patches in the shared space ``[N, R, D]``."""
        visual = self.clip.visual
        x = visual.transformer(visual._embeds(pixels))
        return visual.ln_post(x[:, 1:]) @ visual.proj

    def description(self) -> dict[str, Any]:
        """What :func:`encoder_from_description` needs besides weights."""
        return {
            "clip": self.config,
            "mean": self.mean,
            "std": self.std,
            "resize": self.resize,
            "tokenizer": self.tokenizer.json(),
        }


def encoder_from_description(described: dict[str, Any]) -> ClipEncoder:
    """An encoder with random weights from :meth:`ClipEncoder.description`."""
    text = described.get("tokenizer")
    return ClipEncoder(
        open_clip.CLIP(**described["clip"]),
        described["clip"],
        FileIds(text) if text else BpeIds(),
        mean=described["mean"],
        std=described["std"],
        resize=described.get("resize", "squash"),
    )


def load_encoder(name: str, pretrained: str | None, resize: str = "squash") -> ClipEncoder:
    """An encoder by ``open_clip`` name, or from a folder written by :func:`save_encoder`.

    Raises:
        ConfigError: ``open_clip`` has no such model.
        BackboneError: its weights cannot be had.
        CheckpointError: the folder is broken.
    """
    for folder in (Path(name), ASSETS / name):
        if (folder / "config.json").is_file():
            try:
                described = read_json(folder / "config.json")
                encoder = encoder_from_description({**described, "resize": resize})
            except (DataError, KeyError, TypeError) as error:
                raise CheckpointError(f"scope encoder {folder} is broken: {error}") from error
            load_tensors(encoder.clip, folder / "model.safetensors")
            return encoder
    config = open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(
            f"unknown scope encoder {name!r}; {did_you_mean(name, open_clip.list_models())}"
        )
    if not pretrained:
        LOG.warning("scope encoder %s has random weights (pretrained is not set)", name)
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    quick = bool(config.get("quick_gelu") or (tag or {}).get("quick_gelu"))
    try:
        clip = open_clip.create_model(name, pretrained=pretrained, force_quick_gelu=quick)
    except Exception as error:  # the hub's and open_clip's own, of many kinds
        raise BackboneError(
            f"the weights {pretrained!r} of scope encoder {name} cannot be had: {error}",
            remedy="give scope.pretrained a tag of open_clip.list_pretrained(), a weights file on "
            "disk, or null for random weights",
        ) from error
    seen = open_clip.get_model_preprocess_cfg(clip)
    config = {
        "embed_dim": config["embed_dim"],
        "vision_cfg": _plain(config["vision_cfg"]),
        "text_cfg": _plain(config["text_cfg"]),
        "quick_gelu": any(isinstance(m, QuickGELU) for m in clip.modules()),
    }
    mean = seen.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = seen.get("std") or open_clip.OPENAI_DATASET_STD
    return ClipEncoder(clip, config, BpeIds(), mean=mean, std=std, resize=resize)


def _plain(value: Any) -> dict[str, Any]:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
