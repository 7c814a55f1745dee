"""Fusion as in MSCKE's release, for comparison and for its checkpoints; the paper means another.

The release fuses CLIP's one vector of a text with CLIP's one vector of an image. Its dot product
attends over the images *of all rows that are fused together*, queries over the queries of the
batch and edits over the edits in memory, so a row's feature depends on the others. Alone, a row
attends to its own image only: concatenation.

These modules give each row's vectors side by side, ``[B, 2 D]``, and ``mix`` fuses rows as the
release does; the classifier calls it where features are compared. A text without an image comes
with an all-zero picture, and questions about an image in the release's template.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class Released(nn.Module):
    """What the release's fusions share.

    Args:
        width: D of the shared space.
        dim: Z, where the fusion has a size of its own.
        heads: not used.
    """

    pooled: ClassVar[bool] = True
    template: ClassVar[str] = "Question: {} Short answer:"

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.stored = 2 * width

    def forward(
        self, text: Tensor, tokens: Tensor, token_mask: Tensor, regions: Tensor, region_mask: Tensor
    ) -> Tensor:
        """``text [B, D]`` and its image's vector ``regions [B, 1, D]`` side by side, unfused."""
        return torch.cat([text, regions[:, 0]], -1)

    def mix(self, rows: Tensor) -> Tensor:
        """Rows ``[B, 2 D]`` fused with one another, ``[B, Z]``."""
        raise NotImplementedError

    @staticmethod
    def attend(text: Tensor, image: Tensor) -> Tensor:
        """Every text attends to every image: no scale, softmax over the rows."""
        return (text @ image.T).softmax(-1) @ image


class ReleasedDot(Released):
    """``fusion_type: dot``, what the release trains."""

    def mix(self, rows: Tensor) -> Tensor:
        text, image = rows.chunk(2, -1)
        return torch.cat([text, self.attend(text, image)], -1)


class ReleasedConcat(Released):
    """``fusion_type: cat``: the one of the three that does not mix rows."""

    def mix(self, rows: Tensor) -> Tensor:
        return rows


class ReleasedCross(Released):
    """``fusion_type: cross``: as dot, between linear maps and before one; the release's Z is 512.

    The maps keep the release's names, so that its checkpoints fit.
    """

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__(width, dim, heads)
        self.text_projection = nn.Linear(width, dim)
        self.image_projection = nn.Linear(width, dim)
        self.output_projection = nn.Linear(2 * dim, dim)

    def mix(self, rows: Tensor) -> Tensor:
        text, image = rows.chunk(2, -1)
        text, image = self.text_projection(text), self.image_projection(image)
        return self.output_projection(torch.cat([text, self.attend(text, image)], -1))
