"""The multimodal scope classifier f_cls (MSCKE section 3.3, eq. 4-8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...backbones.image_cache import in_bytes
from ...core.errors import CheckpointError
from ...core.files import digest, write_json
from ...data import ImageLike, Question
from ...data.images import image_key
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors
from ..keys import Metric
from ..settings import build
from .config import ScopeConfig
from .encoder import encoder_from_description, load_encoder
from .encoding import Encoder
from .fusion import FUSIONS
from .similarity import SIMILARITIES

PICTURE_BYTES = 256 * 2**20


def edit_text(edit: Question) -> str:
    """What E_t reads of an edit: question and answer, (t_e, y_e) of eq. 4."""
    return f"{edit.text} {edit.answer}".strip()


class ScopeClassifier(nn.Module):
    """Features z of edits and queries, and their similarity rho.

    A row's feature depends on its own text and image alone: not on the batch it is computed in,
    not on the edits in memory. Only the release's fusions (``released.py``) do otherwise, where
    features are compared.

    Attributes:
        seen: regions of pictures that came up before, as long as the weights stay what they are;
            call ``seen.clear()`` after changing them by other means than training or loading.

    Args:
        encoder: E and A of eq. 4-5.
        config: fusion and similarity by name, see :class:`ScopeConfig`.

    Raises:
        UnknownNameError: an unknown fusion or similarity.
    """

    def __init__(self, encoder: Encoder, config: ScopeConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.fusion: nn.Module = FUSIONS.get(config.fusion)(encoder.width, config.dim, config.heads)
        self.compare: Any = SIMILARITIES.get(config.similarity)()
        # Stands in for the regions of an absent image (section 3.3: "image input to null").
        self.null = nn.Parameter(torch.randn(encoder.width) * 0.02)
        self.seen = in_bytes(PICTURE_BYTES)
        self.register_load_state_dict_post_hook(_forget_pictures)

    @property
    def mixes(self) -> bool:
        """Whether rows that are compared together change each other's features, as released."""
        return hasattr(self.fusion, "mix")

    @property
    def metric(self) -> Metric | None:
        """How kept features are compared; ``None``: by :meth:`similarity` alone."""
        return None if self.mixes else getattr(self.compare, "metric", None)

    def kept(self, z: Tensor) -> Tensor:
        """Features as a memory keeps them and compares queries with them."""
        return z if self.metric is None else self.compare.kept(z)

    def rho(self, compared: Tensor) -> Tensor:
        """rho of what :attr:`metric` gives of kept features (eq. 8)."""
        return self.compare.of(compared)[0].exp()

    @property
    def stored(self) -> int:
        """Width of what :meth:`encode` gives and a memory keeps."""
        return getattr(self.fusion, "stored", self.config.dim)

    @classmethod
    def from_config(cls, config: ScopeConfig) -> ScopeClassifier:
        """A classifier whose fusion is untrained, on the encoder that ``config`` names."""
        return cls(load_encoder(config.encoder, config.pretrained, config.resize), config)

    def regions(self, images: Sequence[ImageLike]) -> tuple[Tensor, Tensor]:
        """Regions ``[B, R, D]`` and their mask ``[B, R]``; each distinct image is encoded once.

        Without gradients, pictures given by path are known again in later calls (:attr:`seen`).
        ``None`` gives the null token as the only region; under a released fusion, the vector of an
        all-zero picture.

        Raises:
            DataError: an image is missing or cannot be read.
        """
        distinct, index = _distinct(images)
        device, pooled = self.null.device, getattr(self.fusion, "pooled", False)
        if not distinct:
            seen = self.null.new_zeros(0, 1, self.encoder.width)
        elif self.training or torch.is_grad_enabled():
            seen = self._encode(distinct)
        else:
            seen = self.seen.through(distinct, self._encode)
        if pooled and -1 in index:
            size = self.encoder.size
            black = torch.zeros(1, 3, size, size, device=device)  # as released
            seen = torch.cat([seen, self.encoder.pooled(black)])
        mask = torch.ones(seen.shape[:2], dtype=torch.bool, device=device)
        if not pooled and -1 in index:
            null = torch.zeros_like(self.null).expand(1, seen.shape[1], -1).clone()
            null[0, 0] = self.null
            seen = torch.cat([seen, null.to(seen.dtype)])
            mask = torch.cat([mask, torch.arange(seen.shape[1], device=device)[None] == 0])
        if index == list(range(len(seen))):
            return seen, mask
        at = torch.tensor(index, device=device) % len(seen)  # -1 is the absent image, the last
        return seen[at], mask[at]

    def _encode(self, images: Sequence[ImageLike]) -> Tensor:
        pixels = torch.stack([self.encoder.pixels(image) for image in images])
        encode = self.encoder.pooled if getattr(self.fusion, "pooled", False) else None
        return (encode or self.encoder.regions)(pixels.to(self.null.device))

    def train(self, mode: bool = True) -> Self:
        """As every module's; training forgets what was kept of pictures."""
        if mode:
            self.seen.clear()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self.seen.clear()  # another device or dtype
        return super()._apply(*args, **kwargs)

    def prompt(self, question: Question) -> str:
        """What E_t reads of a question: its text (eq. 5); the release adds its template."""
        template = getattr(self.fusion, "template", "{}")
        return question.text if question.image is None else template.replace("{}", question.text)

    def encode(self, texts: Sequence[str], images: Sequence[ImageLike]) -> Tensor:
        """Fused features ``z [B, Z]`` of texts with their images (eq. 4-7); ``None``: no image.

        Raises:
            DataError: an image is missing or cannot be read.
        """
        if not texts:
            return self.null.new_zeros(0, self.stored)
        pooled, tokens, token_mask = self.encoder.text(self.encoder.tokens(texts))
        blind = getattr(self.fusion, "blind", False)
        regions, region_mask = self.regions([None] * len(texts) if blind else images)
        return self.fusion(pooled, tokens, token_mask, regions, region_mask)

    def encode_edits(self, edits: Sequence[Question]) -> Tensor:
        """z_e ``[N, Z]`` from each edit's image, question and answer (eq. 4, 6)."""
        texts = [edit_text(replace(e, text=self.prompt(e))) for e in edits]
        return self.encode(texts, [e.image for e in edits])

    def encode_queries(self, queries: Sequence[Question]) -> Tensor:
        """z_test ``[B, Z]`` from each query's image and bare question (eq. 5, 7)."""
        return self.encode([self.prompt(q) for q in queries], [q.image for q in queries])

    def log_similarity(self, z_t: Tensor, z_e: Tensor) -> tuple[Tensor, Tensor]:
        """log rho and log(1 - rho), both ``[B, N]``, for the loss of eq. 11."""
        mix = getattr(self.fusion, "mix", None)
        if mix is not None:
            z_t, z_e = mix(z_t), mix(z_e)
        return self.compare(z_t, z_e)

    def similarity(self, z_t: Tensor, z_e: Tensor) -> Tensor:
        """rho ``[B, N]`` of queries ``z_t [B, Z]`` and edits ``z_e [N, Z]`` (eq. 8)."""
        return self.log_similarity(z_t, z_e)[0].exp()

    def fingerprint(self) -> str:
        """A hash of the architecture and of the weights: equal keys, comparable features."""
        sums = {name: round(float(t.double().sum()), 6) for name, t in self.state_dict().items()}
        return digest([asdict(self.config), sums])

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``config.json`` and ``model.safetensors``; nothing else is needed to load them."""
        folder = Path(folder)
        save_tensors(folder / "model.safetensors", self.state_dict(), half=half)
        described = {"scope": asdict(self.config), "encoder": self.encoder.description()}
        write_json(folder / "config.json", described)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> ScopeClassifier:
        """A classifier saved by :meth:`save_pretrained`; downloads nothing.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the other.
        """
        folder = Path(folder)
        described = read_config(folder / "config.json", ("scope", "encoder"))
        try:
            config = build(ScopeConfig, described["scope"], str(folder / "config.json"))
            model = cls(encoder_from_description(described["encoder"]), config)
        except Exception as error:  # of wrong values open_clip raises nearly anything
            raise CheckpointError(
                f"{folder / 'config.json'} does not describe a scope classifier: {error}",
                remedy=AGAIN,
            ) from error
        load_tensors(model, folder / "model.safetensors")
        return model.eval()


def _forget_pictures(module: ScopeClassifier, _: Any) -> None:
    module.seen.clear()


def _distinct(images: Sequence[ImageLike]) -> tuple[list[ImageLike], list[int]]:
    """The distinct images, and for each image its place among them, -1 for none."""
    places: dict[object, int] = {}
    distinct: list[ImageLike] = []
    index = []
    for image in images:
        if image is None:
            index.append(-1)
            continue
        key = image_key(image)
        if key not in places:
            places[key] = len(distinct)
            distinct.append(image)
        index.append(places[key])
    return distinct, index
