"""What every scope encoder shares: texts to ids, images to pixels, the frame of its outputs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data import ImageLike, open_image
from ...data.images import tensor_values

LOG = logging.getLogger(__name__)


class TextIds(Protocol):
    """A text as token ids, start and end marks left out, plus the ids of these marks."""

    start: int
    end: int

    def ids(self, text: str) -> list[int]: ...

    def json(self) -> str | None: ...


class FileIds:
    """A ``tokenizers`` file beside the weights.

    Args:
        text: the file's content.
        start, end: the tokens that mark a text's start and end.

    Raises:
        ValueError: ``text`` is no such file's content.
    """

    def __init__(self, text: str, start: str = "<s>", end: str = "</s>") -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # tokenizers' own are of no class below Exception
            raise ValueError(f"no tokenizer: {error}") from error
        self.marks = [start, end]
        self.start = self._tokenizer.token_to_id(start)
        self.end = self._tokenizer.token_to_id(end)

    def ids(self, text: str) -> list[int]:
        """Token ids of ``text``."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def json(self) -> str | None:
        """The file's content."""
        return self._tokenizer.to_str(pretty=True)


class Encoder(nn.Module, ABC):
    """Images to regions and texts to tokens in CLIP's shared space.

    Args:
        clip: the model, with a ``logit_scale``.
        tokenizer: texts to ids.
        mean, std: pixel statistics.
        resize: ``"squash"`` or ``"crop"``.
        width: D of the shared space. context: longest text. size: S of the pixels.
    """

    clip: Any
    tokenizer: TextIds

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: TextIds,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        resize: str,
        width: int,
        context: int,
        size: int,
    ) -> None:
        super().__init__()
        self.clip, self.tokenizer = clip, tokenizer
        self.mean, self.std, self.resize = list(mean), list(std), resize
        self._mean, self._std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        self.width, self.context, self.size = width, context, size
        self._warned = False

    @abstractmethod
    def text(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``ids [B, L]`` -> pooled ``[B, D]``, tokens ``[B, L, D]``, their mask ``[B, L]``."""

    @abstractmethod
    def regions(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> patches in the shared space ``[N, R, D]``."""

    @abstractmethod
    def pooled(self, pixels: Tensor) -> Tensor:
        """``pixels [N, 3, S, S]`` -> CLIP's own vector of an image, ``[N, 1, D]``, as it comes."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """What ``encoder_from_description`` needs besides weights."""

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
        length = max(map(len, rows), default=2)
        padded = [row + [0] * (length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).reshape(-1, length).to(self.device)

    def pool(self, tokens: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first end mark's vector ``[B, D]``, ``tokens [B, L, D]``, and their mask.

        The text tower is causal, so what follows the end mark changes nothing.
        """
        end = (ids == self.tokenizer.end).int().argmax(-1)
        places = torch.arange(ids.shape[1], device=ids.device)
        rows = torch.arange(len(ids), device=ids.device)
        return tokens[rows, end], tokens, places <= end[:, None]

    def pixels(self, image: ImageLike) -> Tensor:
        """One image, normalised, ``[3, S, S]`` on the CPU.

        Raises:
            DataError: the image is missing or cannot be read.
        """
        if isinstance(image, Tensor):
            x = tensor_values(image).cpu()
        else:
            x = torch.tensor(np.asarray(open_image(image)))  # [H, W, 3]
            x = x.permute(2, 0, 1).contiguous().float().div_(255)
        height, width = x.shape[-2:]
        if self.resize == "crop" and height != width:
            side = min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            x = x[:, top : top + side, left : left + side]
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x[None], (self.size, self.size), mode="bicubic", antialias=True)[0]
            x = x.clamp(0, 1)  # the curve overshoots
        return (x - self._mean) / self._std
