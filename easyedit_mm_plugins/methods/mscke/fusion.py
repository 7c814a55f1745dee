"""Fusion of MSCKE eq. 6-7: one feature z from a text and the regions of an image.

A fusion is a module called with ``text [B, D]`` (the pooled text), ``tokens [B, L, D]`` with
``token_mask [B, L]``, and ``regions [B, R, D]`` with ``region_mask [B, R]`` (True where there is
something); it returns ``z [B, Z]``. Row i of z depends on row i of the inputs alone. A row without
an image comes with the learned null token as its only region. The release's own fusions, which mix
rows, are in ``released.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.registry import Registry

FUSIONS: Registry[type[nn.Module]] = Registry("fusion")


def _head(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
    )


@FUSIONS.register("dot-attention")
class DotAttention(nn.Module):
    """The text attends to the image's regions by a scaled dot product (paper section 3.3).

    v = softmax(h_t h_i^T / sqrt(D)) h_i, z = head([v; h_t]). With several heads several linear
    maps of the text attend, each to the same regions.

    Args:
        width: D of the shared space. dim: Z. heads: attending text vectors (paper: 1).
    """

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.heads, self.scale = heads, width**-0.5
        self.query = nn.Linear(width, heads * width) if heads > 1 else nn.Identity()
        self.head = _head((heads + 1) * width, dim)

    def attention(self, text: Tensor, regions: Tensor, region_mask: Tensor) -> Tensor:
        """Weights of the regions, ``[B, H, R]``."""
        query = self.query(text).unflatten(-1, (self.heads, -1))
        scores = (query @ regions.transpose(1, 2)) * self.scale
        return scores.masked_fill(~region_mask[:, None], float("-inf")).softmax(-1)

    def forward(
        self, text: Tensor, tokens: Tensor, token_mask: Tensor, regions: Tensor, region_mask: Tensor
    ) -> Tensor:
        """See the module's docstring."""
        query = self.query(text).unflatten(-1, (self.heads, -1))[:, None]
        places = regions[:, None]  # the same weighted sum as by attention(), in one step
        seen = F.scaled_dot_product_attention(
            query, places, places, attn_mask=region_mask[:, None, None], scale=self.scale
        )
        return self.head(torch.cat([seen.flatten(1), text], -1))


@FUSIONS.register("cross-attention")
class CrossAttention(nn.Module):
    """Every token of the text attends to the regions; the mean over the tokens is fused.

    Args:
        width, dim, heads: as in :class:`DotAttention`.
    """

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cross = nn.MultiheadAttention(width, max(heads, 4), batch_first=True)
        self.head = _head(2 * width, dim)

    def forward(
        self, text: Tensor, tokens: Tensor, token_mask: Tensor, regions: Tensor, region_mask: Tensor
    ) -> Tensor:
        """See the module's docstring."""
        seen, _ = self.cross(
            self.norm(tokens), regions, regions, key_padding_mask=~region_mask, need_weights=False
        )
        weight = token_mask.unsqueeze(-1).to(seen.dtype)
        mean = ((tokens + seen) * weight).sum(1) / weight.sum(1).clamp_min(1)
        return self.head(torch.cat([mean, text], -1))


@FUSIONS.register("concat")
class Concat(nn.Module):
    """The mean of the regions beside the text: the whole picture, not a part (table 2).

    Args:
        width, dim, heads: as in :class:`DotAttention`; ``heads`` is not used.
    """

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.head = _head(2 * width, dim)

    def forward(
        self, text: Tensor, tokens: Tensor, token_mask: Tensor, regions: Tensor, region_mask: Tensor
    ) -> Tensor:
        """See the module's docstring."""
        weight = region_mask.unsqueeze(-1).to(regions.dtype)
        mean = (regions * weight).sum(1) / weight.sum(1)
        return self.head(torch.cat([mean, text], -1))


@FUSIONS.register("text")
class TextOnly(nn.Module):
    """The text alone, as in SERAC's scope classifier (figure 4's baseline).

    Args:
        width, dim, heads: as in :class:`DotAttention`; ``heads`` is not used.
    """

    blind = True  # images need not be encoded

    def __init__(self, width: int, dim: int, heads: int = 1) -> None:
        super().__init__()
        self.head = _head(width, dim)

    def forward(
        self, text: Tensor, tokens: Tensor, token_mask: Tensor, regions: Tensor, region_mask: Tensor
    ) -> Tensor:
        """See the module's docstring."""
        return self.head(text)


_RELEASED = "easyedit_mm_plugins.methods.mscke.release_fusion:"
FUSIONS.register("released", _RELEASED + "ReleasedDot")
FUSIONS.register("released-concat", _RELEASED + "ReleasedConcat")
FUSIONS.register("released-cross", _RELEASED + "ReleasedCross")
