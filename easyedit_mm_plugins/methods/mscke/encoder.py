"""E_i, E_t and A_i, A_t of MSCKE eq. 4-5: an ``open_clip`` model that gives regions and tokens.

CLIP itself returns one vector per image; here every patch is projected into the shared space, so
that a text can attend to the part of the image it speaks of. ``open_clip`` takes seconds to import,
so the functions that need it import it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...core.errors import BackboneError, CheckpointError, ConfigError, DataError
from ...core.files import read_json
from ...core.registry import did_you_mean
from ...core.shipped import ASSETS
from ..checkpoint import load_tensors
from .encoding import Encoder, FileIds

LOG = logging.getLogger(__name__)


class BpeIds:
    """CLIP's own byte-pair tokenizer, whose vocabulary ``open_clip`` ships."""

    def __init__(self) -> None:
        import open_clip

        self._tokenizer = open_clip.get_tokenizer("ViT-B-32")
        self.start, self.end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        return self._tokenizer.encode(text)

    def json(self) -> str | None:
        """What a saved encoder must carry: nothing, every ``open_clip`` has it."""
        return None


class ClipEncoder(Encoder):
    """Images to regions and texts to tokens in CLIP's shared space.

    Args:
        clip: a plain ``open_clip.CLIP`` with a vision transformer.
        config: what builds it again: ``{"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}``.
        tokenizer: texts to ids.
        mean, std: pixel statistics; by default OpenAI's.
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
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resize: str = "squash",
    ) -> None:
        import open_clip

        visual: Any = getattr(clip, "visual", None)
        if not isinstance(clip, open_clip.CLIP) or not hasattr(visual, "_embeds"):
            raise BackboneError(
                f"the scope encoder must be a CLIP with a vision transformer, not "
                f"{type(clip).__name__} with {type(visual).__name__}",
                remedy="choose ViT-B-32, ViT-L-14 or another plain ViT of open_clip",
            )
        size = visual.image_size
        super().__init__(
            clip,
            tokenizer,
            mean=mean or open_clip.OPENAI_DATASET_MEAN,
            std=std or open_clip.OPENAI_DATASET_STD,
            resize=resize,
            width=visual.output_dim,
            context=clip.context_length,
            size=size if isinstance(size, int) else size[0],
        )
        self.config = config

    def text(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``ids [B, L]`` -> pooled ``[B, D]``, tokens ``[B, L, D]``, their mask ``[B, L]``.

        The text tower is causal, so leaving out padding changes nothing.
        """
        clip, length = self.clip, ids.shape[1]
        x = clip.token_embedding(ids) + clip.positional_embedding[:length]
        mask = clip.attn_mask
        mask = None if mask is None else mask[:length, :length].to(x.dtype)
        x = clip.ln_final(clip.transformer(x, attn_mask=mask))
        return self.pool(x @ clip.text_projection, ids)

    def regions(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> patches in the shared space ``[N, R, D]``."""
        visual = self.clip.visual
        x = visual.transformer(visual._embeds(pixels))
        return visual.ln_post(x[:, 1:]) @ visual.proj

    def pooled(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> CLIP's own vector of an image, ``[N, 1, D]``, as it comes."""
        return self.clip.visual(pixels)[:, None]

    def description(self) -> dict[str, Any]:
        """What :func:`encoder_from_description` needs besides weights."""
        return {
            "clip": self.config,
            "mean": self.mean,
            "std": self.std,
            "resize": self.resize,
            "tokenizer": self.tokenizer.json(),
        }


def encoder_from_description(described: dict[str, Any]) -> Encoder:
    """An encoder with random weights from its :meth:`Encoder.description`."""
    if described.get("kind") == "hf-clip":
        from .hf_clip import HFClipEncoder

        return HFClipEncoder.from_description(described)
    import open_clip

    text = described.get("tokenizer")
    return ClipEncoder(
        open_clip.CLIP(**described["clip"]),
        described["clip"],
        FileIds(text) if text else BpeIds(),
        mean=described["mean"],
        std=described["std"],
        resize=described.get("resize", "squash"),
    )


def load_encoder(name: str, pretrained: str | None, resize: str = "squash") -> Encoder:
    """An encoder by ``open_clip`` name, from a folder of ``scenes_clip.py``'s, or a Hugging Face
    ``CLIPModel`` by its folder or by ``hf:NAME``.

    Raises:
        ConfigError: ``open_clip`` has no such model.
        BackboneError: its weights cannot be had.
        CheckpointError: the folder is broken.
    """
    if name.startswith("hf:"):
        from .hf_clip import HFClipEncoder

        return HFClipEncoder.load(name.removeprefix("hf:"), resize)
    for folder in (Path(name), ASSETS / name):
        if (folder / "config.json").is_file():
            try:
                described = read_json(folder / "config.json")
                if described.get("model_type") == "clip":
                    return load_encoder(f"hf:{folder}", None, resize)
                encoder = encoder_from_description({**described, "resize": resize})
            except (DataError, KeyError, TypeError) as error:
                raise CheckpointError(f"scope encoder {folder} is broken: {error}") from error
            load_tensors(encoder.clip, folder / "model.safetensors")
            return encoder
    import open_clip
    from open_clip.transformer import QuickGELU

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
    mean, std = seen.get("mean"), seen.get("std")
    return ClipEncoder(clip, config, BpeIds(), mean=mean, std=std, resize=resize)


def _plain(value: Any) -> dict[str, Any]:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
