"""The learnable adapters: cross-attention from current tokens to an edit sample's tokens.

Both forms keep an edit's keys and values apart from the queries, so that they are computed once,
when the edit is added. Parameters stay in float32; tokens are cast to it and back.

Shapes: R rows, T query tokens, N tokens of the edit sample, D hidden size, A attention width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from .config import AdapterConfig


class Adapter(nn.Module, ABC):
    """An edit's states become keys and values, tokens become edited tokens."""

    @abstractmethod
    def memory(self, states: Tensor, end: int | None = None) -> tuple[Tensor, Tensor]:
        """The edit sample's states ``h_e [..., N, D]`` -> keys and values ``[..., N, A or D]``.

        ``end`` is the index of its prompt's last token; not every adapter needs it.
        """

    @abstractmethod
    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Tokens ``h [R, T, D]`` -> edited tokens ``[R, T, D]``.

        Args:
            keys, values: ``[R, N, A or D]``, from :meth:`memory`.
            mask: ``[R, N]``, false where a row's edit sample is padded.
        """


class Adapters(nn.ModuleList):
    """The adapters of an editor, in the order of its config."""

    if TYPE_CHECKING:  # torch's own says no more than that they are modules

        def __iter__(self) -> Iterator[Adapter]: ...


class PaperAdapter(Adapter):
    """Softmax(h W1 (h_e W2)^T) h_e W3, the formula of section 3.2 as it stands.

    One head, no scale, no normalisation, no residual: a token becomes a mixture of the edit's. W3
    starts as the identity and W1, W2 small, so the mixture starts as a mean; the paper says
    nothing about this.
    """

    def __init__(self, hidden: int, width: int | None = None, heads: int | None = None) -> None:
        super().__init__()
        if heads not in (None, 1):
            raise ConfigError(
                f"adapter heads is {heads}, but the paper's formula has one",
                remedy="use form: released for several heads",
            )
        self.w1, self.w2 = (nn.Linear(hidden, width or hidden, bias=False) for _ in range(2))
        self.w3 = nn.Linear(hidden, hidden, bias=False)
        for layer in (self.w1, self.w2):
            nn.init.normal_(layer.weight, std=0.2 / hidden**0.5)
        nn.init.eye_(self.w3.weight)

    def memory(self, states: Tensor, end: int | None = None) -> tuple[Tensor, Tensor]:
        """h_e W2 and h_e W3."""
        states = states.to(self.w2.weight.dtype)
        return self.w2(states), self.w3(states)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """The formula; see the class."""
        query = self.w1(hidden.to(self.w1.weight.dtype))
        scores = query @ keys.to(query.dtype).transpose(1, 2)
        weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
        return (weights @ values.to(query.dtype)).to(hidden.dtype)


class ReleasedAdapter(Adapter):
    """The release's form: both sides normalised, D -> A, attention with heads, A -> D, added.

    The last projection starts at zero, so that an untrained adapter changes nothing. Queries and
    keys start wide, so that heads look at different tokens from the start instead of all beginning
    with the mean.
    """

    def __init__(self, hidden: int, width: int | None = None, heads: int | None = None) -> None:
        super().__init__()
        width, self.heads = width or 1024, heads or 8
        if width % self.heads:
            raise ConfigError(f"adapter width {width} is not a multiple of its {self.heads} heads")
        self.norm_h, self.norm_e = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, width) for _ in range(3))
        self.out = nn.Linear(width, hidden)
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=1.5 / hidden**0.5)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def memory(self, states: Tensor, end: int | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values ``[..., N, A]`` of the normalised states."""
        states = self.norm_e(states.to(self.key.weight.dtype))
        return self.key(states), self.value(states)

    def mix(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attention(norm(h), keys, values), ``[R, T, A]``."""
        query = self.query(self.norm_h(hidden.to(self.query.weight.dtype)))
        query, keys, values = (
            x.to(query.dtype).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (query, keys, values)
        )
        mixed = nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask[:, None, None]
        )
        return mixed.transpose(1, 2).flatten(2)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """h + out(attention(norm(h), keys, values))."""
        return hidden + self.out(self.mix(hidden, keys, values, mask)).to(hidden.dtype)


class InfluenceAdapter(ReleasedAdapter):
    """VisEdit's: the released form, its change scaled token by token with an influence in (0, 1).

    The influence of an image token is the sigmoid of the mean over heads of the scaled dot product
    between the mapped token and the mapped last token of the edit's prompt; a mapping is a
    normalisation and a two-layer perceptron with a residual.

    The mapped token is kept as the first rows of an edit's keys, folded to their width.

    Attributes:
        influence: ``[R, T]`` of the last forward pass, for its own loss in training.
    """

    def __init__(self, hidden: int, width: int | None = None, heads: int | None = None) -> None:
        super().__init__(hidden, width, heads)
        if hidden % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide tokens of size {hidden}")
        self.map_token, self.map_end = _Mapping(hidden), _Mapping(hidden)
        self.hidden, self.rows = hidden, -(-hidden // self.key.out_features)
        self.influence: Tensor | None = None

    def memory(self, states: Tensor, end: int | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values, before them the mapped last prompt token and zeros."""
        if end is None:
            raise ConfigError("the influence needs the place of the edit's last prompt token")
        keys, values = super().memory(states)
        mapped = self.map_end(states[..., end, :].to(keys.dtype))
        width = keys.shape[-1]
        folded = nn.functional.pad(mapped, (0, self.rows * width - self.hidden))
        folded = folded.unflatten(-1, (self.rows, width))
        blank = torch.zeros_like(folded)
        return torch.cat([folded, keys], dim=-2), torch.cat([blank, values], dim=-2)

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """h + influence * out(attention(norm(h), keys, values))."""
        own = [x[:, self.rows :] for x in (keys, values, mask)]
        edited = super().forward(hidden, *own)
        end = keys[:, : self.rows].flatten(1)[:, : self.hidden]
        self.influence = self.influence_on(hidden, end)
        return hidden + (edited - hidden) * self.influence[..., None].to(hidden.dtype)

    def influence_on(self, tokens: Tensor, end: Tensor) -> Tensor:
        """Influence ``[..., T]`` of ``tokens [..., T, D]``.

        ``end [..., D]`` is the mapped last token of the edit's prompt.
        """
        mapped = self.map_token(tokens.to(self.query.weight.dtype))
        size = self.hidden // self.heads
        # The mean over heads of their dot products is the whole dot product over their number.
        scores = (mapped @ end.to(mapped.dtype)[..., None])[..., 0] / (self.heads * size**0.5)
        return scores.sigmoid()


class _Mapping(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.inner, self.outer = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, states: Tensor) -> Tensor:
        normal = self.norm(states)
        return normal + self.outer(nn.functional.gelu(self.inner(normal)))


_FORMS: dict[str, type[Adapter]] = {
    "paper": PaperAdapter,
    "released": ReleasedAdapter,
    "visedit": InfluenceAdapter,
}


def new_adapter(config: AdapterConfig, hidden: int) -> Adapter:
    """The adapter that ``config`` describes, for tokens of size ``hidden``."""
    return _FORMS[config.form](hidden, config.width, config.heads)


def pad_memory(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values ``[N_i, A]`` of R edits as ``[R, N, A]`` each, and their mask ``[R, N]``."""
    lengths = torch.tensor([len(keys) for keys, _ in parts], device=parts[0][0].device)
    keys, values = (
        nn.utils.rnn.pad_sequence([part[i] for part in parts], batch_first=True) for i in (0, 1)
    )
    mask = torch.arange(keys.shape[1], device=keys.device) < lengths[:, None]
    return keys, values, mask
