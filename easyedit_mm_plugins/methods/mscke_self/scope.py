"""The scope of an edit as the edited model itself sees it: two heads on what it computes anyway.

The **scope head** reads the hidden state at the prompt's last token, the **picture key** the image
features that enter the language model. Both give unit vectors, which are joined to one key an edit,
so that a look-up is a product with keys that are never normalised again::

    u = norm(S(h)),  p = norm(P(v)),  s(q, e) = sigmoid(a u_q . u_e + b),  m(q, e) = p_q . p_e

A question is in scope of an edit whose picture agrees (m at least the picture threshold) and whose
s is at least the scope threshold; of several the one with the largest s m. Ours, in no paper.

Shapes: B questions, N edits, D hidden size of the base model, P places of a picture, V image
tokens, Z = U + K width of a key, U of its part for the scope, K of that for the picture.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import CheckpointError, ConfigError
from ...core.files import digest, write_json
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors
from ..keys import INDEX_FROM
from ..newest import age
from ..routed import Hit
from ..settings import build
from ..store import InForce
from .config import SelfScopeConfig

U, K = 96, 128  # of K the last number says that there is no picture
_PROPOSED = 16  # edits for each question, where they are very many


class SelfScope(nn.Module):
    """Both heads and their thresholds: a router that any method may put before its answers.

    ``reading.py`` has what it reads. It keeps nothing of the edits.

    Args:
        config: see :class:`SelfScopeConfig`; ``layer`` must be set.
        hidden: D.
        places: P.
    """

    stored = U + K

    def __init__(self, config: SelfScopeConfig, hidden: int, places: int) -> None:
        super().__init__()
        if config.layer is None:
            raise ConfigError("a scope head reads one layer", remedy="set scope.layer")
        self.config, self.hidden, self.places = config, hidden, places
        self.layer = config.layer
        self.asked = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 192), nn.GELU(), nn.Linear(192, U)
        )
        self.place = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 32))
        self.picture = nn.Sequential(nn.Linear(32 * places, 512), nn.GELU(), nn.Linear(512, K - 1))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-7.0))
        self.log_temperature = nn.Parameter(torch.tensor(10.0).log())  # of the picture key's loss
        # In force, as calibrated: (picture, same); the scope threshold is the editor's.
        self.picture_threshold, self.same_threshold = config.picture_threshold, 0.99

    # Keys -------------------------------------------------------------------------------------

    def scope_keys(self, states: Tensor) -> Tensor:
        """u: ``[B, D]`` -> unit vectors ``[B, U]``."""
        return F.normalize(self.asked(states.float()), dim=-1)

    def picture_keys(self, places: Tensor) -> Tensor:
        """p: ``[B, P, D]`` -> unit vectors ``[B, K]``, all orthogonal to that of no picture."""
        found = self.picture(self.place(places.float()).flatten(1))
        return F.pad(F.normalize(found, dim=-1), (0, 1))

    def no_picture(self, rows: int) -> Tensor:
        """The picture key of questions without one, ``[B, K]``."""
        found = self.bias.new_zeros(rows, K)
        found[:, -1] = 1
        return found

    def keys(self, states: Tensor, pictured: Sequence[int], places: Tensor) -> Tensor:
        """Whole keys ``[B, Z]`` of states ``[B, D]`` and of the pictures of the rows ``pictured``.

        With ``binding: thing`` the part for the picture says only whether there is one.
        """
        rows = len(states)
        if self.config.binding == "thing":
            pictures = self.no_picture(rows)
            pictures[list(pictured), -1] = 0
        elif len(pictured) == rows:
            pictures = self.picture_keys(places)
        else:
            pictures = self.no_picture(rows)
            if pictured:
                pictures[list(pictured)] = self.picture_keys(places)
        return torch.cat([self.scope_keys(states), pictures], dim=-1)

    def kept(self, keys: Tensor) -> Tensor:
        """Keys as they are kept and compared: as they are made."""
        return keys.float()

    # Scores -----------------------------------------------------------------------------------

    def probability(self, cosine: Tensor) -> Tensor:
        """s of the product of two scope keys."""
        return torch.sigmoid(self.logit(cosine))

    def logit(self, cosine: Tensor) -> Tensor:
        """a cos + b."""
        return self.log_scale.exp() * cosine + self.bias

    def agreement(self, queries: Tensor, keys: Tensor) -> Tensor:
        """m ``[B, N]`` of whole keys; under ``thing`` it is 1 where both or none has a picture."""
        if self.config.binding == "picture":
            return queries[:, U:] @ keys[:, U:].T
        return 1 - (queries[:, -1:] - keys[:, -1]).abs()

    def agrees(self, agreement: Tensor) -> Tensor:
        """Whether pictures are the same."""
        least = self.picture_threshold if self.config.binding == "picture" else 0.5
        return agreement >= least

    def lookup(
        self,
        now: InForce,
        queries: Tensor,
        threshold: float,
        visible: Sequence[Collection[str]] | None = None,
    ) -> list[Hit]:
        """For each of ``queries [B, Z]`` the edit that it is in scope of, else the nearest one.

        The score is s; the id is ``None`` where no edit's picture agrees.

        Raises:
            ConfigError: ``visible`` has another length than ``queries``.
        """
        if visible is not None and len(visible) != len(queries):
            raise ConfigError(f"visible has {len(visible)} rows for {len(queries)} questions")
        ids, keys = self._compared(now, queries, visible)
        agreement = self.agreement(queries, keys)
        agrees = self.agrees(agreement)
        if visible is not None:
            at = {edit_id: place for place, edit_id in enumerate(ids)}
            seen = torch.zeros(agrees.shape, dtype=torch.bool)
            for row, mine in enumerate(visible):
                seen[row, [at[i] for i in mine if i in at]] = True
            agrees &= seen.to(agrees.device)
        rows, places = agrees.nonzero().unbind(1)
        if not len(rows):
            return [Hit(None, 0.0)] * len(queries)
        score = self.probability((queries[rows, :U] * keys[places, :U]).sum(-1))
        scores, worth = torch.zeros_like(agreement), torch.full_like(agreement, -1.0)
        scores[rows, places] = score
        # What fires comes before what does not; of equal ones the newest, which is the last.
        worth[rows, places] = score * agreement[rows, places] + 2.0 * (score >= threshold)
        most, back = worth.flip(1).max(1)
        best = worth.shape[1] - 1 - back
        own = scores.gather(1, best[:, None])[:, 0].tolist()
        found = zip(most.tolist(), best.tolist(), own, strict=True)
        return [
            Hit(None, 0.0) if value < 0 else Hit(ids[place], score) for value, place, score in found
        ]

    def _compared(
        self, now: InForce, queries: Tensor, visible: Sequence[Collection[str]] | None
    ) -> tuple[list[str], Tensor]:
        """The edits, oldest first, and their keys, that any of the queries may be in scope of.

        Of very many those with the largest u_q . u_e + m, which an index finds.
        """
        if visible is not None:
            seen = {i for ids in visible for i in ids if i in now.edits}
        elif len(now.edits) < INDEX_FROM:
            return now.ids, now.keys
        else:
            near = now.table.nearest(queries, k=_PROPOSED)
            seen = {found.id for own in near for found in own}
        ids = sorted(seen, key=age)
        return ids, now.table.of(ids) if ids else now.keys[:0]

    def same(self, new: Tensor, keys: Tensor) -> list[tuple[int, int]]:
        """Which edits mean the same: pairs of rows of ``new [n, Z]`` and ``keys [N, Z]``."""
        found: list[tuple[int, int]] = []
        for start in range(0, len(new), 256):  # not all of n x N at a time
            some = new[start : start + 256]
            alike = self.probability(some[:, :U] @ keys[:, :U].T) >= self.same_threshold
            alike &= self.agrees(self.agreement(some, keys))
            found += [(start + i, j) for i, j in alike.nonzero().tolist()]
        return found

    # On disk ----------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """A hash of the architecture and of the weights: equal keys, comparable edits."""
        sums = {name: round(float(t.double().sum()), 6) for name, t in self.state_dict().items()}
        return digest([asdict(self.config), self.hidden, self.places, sums])

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        folder = Path(folder)
        save_tensors(folder / "model.safetensors", self.state_dict(), half=half)
        thresholds = {"picture": self.picture_threshold, "same": self.same_threshold}
        sizes = {"hidden": self.hidden, "places": self.places, "thresholds": thresholds}
        write_json(folder / "config.json", {"scope": asdict(self.config), **sizes})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Heads saved by :meth:`save_pretrained`.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the other.
        """
        path = Path(folder) / "config.json"
        described = read_config(path, ("scope", "hidden", "places", "thresholds"))
        try:
            config = build(SelfScopeConfig, described["scope"], str(path))
            found = cls(config, int(described["hidden"]), int(described["places"]))
            found.picture_threshold = float(described["thresholds"]["picture"])
            found.same_threshold = float(described["thresholds"]["same"])
        except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} describes no scope: {error}", remedy=AGAIN) from error
        load_tensors(found, Path(folder) / "model.safetensors")
        return found.eval()


def pooled(tokens: Tensor, places: int) -> Tensor:
    """An image's tokens ``[..., V, D]`` at a fixed number of places ``[..., P, D]``.

    P tokens stay as they are (a Q-Former's queries, a small grid). Others are averaged: a square of
    tokens over a square of places, any other number in runs of (nearly) equal length.
    """
    count = tokens.shape[-2]
    if count == places:
        return tokens
    flat = tokens.reshape(-1, count, tokens.shape[-1]).transpose(1, 2).float()
    side, wanted = isqrt(count), isqrt(places)
    if side * side == count and wanted * wanted == places:
        grid = flat.unflatten(-1, (side, side))
        found = F.adaptive_avg_pool2d(grid, wanted).flatten(-2)
    else:
        found = F.adaptive_avg_pool1d(flat, places)
    return found.transpose(1, 2).reshape(*tokens.shape[:-2], places, tokens.shape[-1])
