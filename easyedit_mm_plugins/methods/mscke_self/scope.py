"""The scope of an edit as the edited model itself sees it: two heads on what it computes anyway.

The **scope head** reads the hidden state at the prompt's last token, the **picture key** the image
features that enter the language model. Both give unit vectors, which are joined to one key an edit,
so that a look-up is a product with keys that are never normalised again::

    u = norm(S(h)),  p = norm(P(v)),  s(q, e) = sigmoid(a u_q . u_e + b),  m(q, e) = p_q . p_e

A question is in scope of an edit whose picture agrees (m at least the picture threshold) and whose
s is at least the scope threshold; of several the one with the largest s m. The picture is looked at
only where some s reaches the threshold. Ours, in no paper.

Shapes: B questions, N edits, D hidden size of the base model, P places of a picture, V image
tokens, Z = U + K width of a key, U of its part for the scope, K of that for the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import CheckpointError, ConfigError
from ...core.files import digest, write_json
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors
from ..keys import INDEX_FROM
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
        self._known: tuple[Any, tuple[float, float]] = (None, (0.0, 0.0))

    # Keys -------------------------------------------------------------------------------------

    def scope_keys(self, states: Tensor) -> Tensor:
        """u: ``[B, D]`` -> unit vectors ``[B, U]``."""
        # Functions, not modules: with one row calls cost more than what they compute.
        modules: Any = self.asked
        norm, inner, _, outer = modules
        normal = F.layer_norm(states.float(), (self.hidden,), norm.weight, norm.bias)
        found = F.linear(
            F.gelu(F.linear(normal, inner.weight, inner.bias)), outer.weight, outer.bias
        )
        return found / found.norm(dim=-1, keepdim=True)

    def picture_keys(self, places: Tensor) -> Tensor:
        """p: ``[B, P, D]`` -> unit vectors ``[B, K]``, all orthogonal to that of no picture."""
        found = self.picture(self.place(places.float()).flatten(1))
        return F.pad(F.normalize(found, dim=-1), (0, 1))

    def no_picture(self, rows: int) -> Tensor:
        """The picture key of questions without one, ``[B, K]``."""
        found = self.bias.new_zeros(rows, K)
        found[:, -1] = 1
        return found

    def pictures(self, rows: int, pictured: Sequence[int], places: Tensor) -> Tensor:
        """Picture keys ``[rows, K]``, where the rows ``pictured`` have pictures ``places``.

        With ``binding: thing`` they say only whether there is one.
        """
        if self.config.binding == "picture" and len(pictured) == rows:
            return self.picture_keys(places)
        found = self.no_picture(rows)
        if pictured:
            whose = self.config.binding == "picture"
            found[list(pictured)] = self.picture_keys(places) if whose else 0.0
        return found

    def keys(self, states: Tensor, pictured: Sequence[int], places: Tensor) -> Tensor:
        """Whole keys ``[B, Z]`` of states ``[B, D]``; the other arguments as :meth:`pictures`."""
        return torch.cat(
            [self.scope_keys(states), self.pictures(len(states), pictured, places)], dim=-1
        )

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

    def agreement(self, pictures: Tensor, others: Tensor) -> Tensor:
        """m ``[B, N]`` of picture keys; under ``thing`` 1 where both or none has a picture."""
        if self.config.binding == "picture":
            return pictures @ others.T
        return 1 - (pictures[:, -1:] - others[:, -1]).abs()

    def agrees(self, agreement: Tensor) -> Tensor:
        """Whether pictures are the same."""
        least = self.picture_threshold if self.config.binding == "picture" else 0.5
        return agreement >= least

    # Look-ups ---------------------------------------------------------------------------------

    def lookup(
        self,
        now: InForce,
        queries: Tensor,
        threshold: float,
        visible: Sequence[Collection[str]] | None = None,
    ) -> list[Hit]:
        """:meth:`decide` with whole keys ``[B, Z]``."""
        pictures = queries[:, U:]
        return self.decide(
            now, queries[:, :U], lambda rows: pictures[list(rows)], threshold, visible
        )

    def decide(
        self,
        now: InForce,
        asked: Tensor,
        pictures: Callable[[Sequence[int]], Tensor],
        threshold: float,
        visible: Sequence[Collection[str]] | None = None,
    ) -> list[Hit]:
        """For each question the edit that it is in scope of, else the one nearest in meaning.

        The score is s; the id is ``None`` where the pictures of all edits that the question means
        are other ones.

        Args:
            asked: u of the questions, ``[B, U]``.
            pictures: picture keys ``[b, K]`` of the questions of b rows; called where needed.

        Raises:
            ConfigError: ``visible`` has another length than there are questions.
        """
        rows = range(len(asked))
        if visible is not None and len(visible) != len(rows):
            raise ConfigError(f"visible has {len(visible)} rows for {len(rows)} questions")
        if visible is None and len(now.edits) >= INDEX_FROM:
            found = pictures(rows)
            ids, keys = now.table.proposed(torch.cat([asked, found], -1), _PROPOSED)
            pictures = lambda some: found[list(some)]  # noqa: E731
        else:
            ids, keys = now.table.seen(visible)
        if not ids or not rows:
            return [Hit(None, 0.0)] * len(rows)
        cosine = asked @ keys[:, :U].T
        if visible is not None:
            cosine = _hidden(cosine, ids, visible)
        scale, bias = self._line()
        # What reaches this cosine reaches the threshold.
        least = (_logit(threshold) - bias) / scale
        most, at = (found.tolist() for found in cosine.max(1))
        near = [row for row, best in enumerate(most) if best >= least]
        shut = math.nextafter(threshold, -1.0)  # rounding must not open what the cosine left shut
        hits = [
            Hit(ids[place], min(shut, _sigmoid(scale * best + bias))) if best > -2 else Hit(None, 0)
            for best, place in zip(most, at, strict=True)
        ]
        if near:
            whole = len(near) == len(rows)
            cosine = cosine if whole else cosine[near]
            agreement = self.agreement(pictures(near), keys[:, U:])
            fires = self.agrees(agreement) & (cosine >= least)
            worth = torch.sigmoid(scale * cosine + bias) * agreement
            best, back = worth.masked_fill(~fires, -1.0).flip(1).max(1)  # the newest of equal ones
            chosen = len(ids) - 1 - back
            score = cosine.gather(1, chosen[:, None])[:, 0]
            for row, value, place, cos in zip(
                near, best.tolist(), chosen.tolist(), score.tolist(), strict=True
            ):
                s = max(threshold, _sigmoid(scale * cos + bias))
                hits[row] = Hit(ids[place], s) if value >= 0 else Hit(None, 0.0)
        return hits

    def _line(self) -> tuple[float, float]:
        """a and b as numbers; read again when they have changed."""
        version = (self.log_scale._version, self.bias._version, id(self.bias))
        if self._known[0] != version:
            self._known = (version, (self.log_scale.exp().item(), self.bias.item()))
        return self._known[1]

    def same(self, new: Tensor, keys: Tensor) -> list[tuple[int, int]]:
        """Which edits mean the same: pairs of rows of ``new [n, Z]`` and ``keys [N, Z]``."""
        found: list[tuple[int, int]] = []
        for start in range(0, len(new), 256):  # not all of n x N at a time
            some = new[start : start + 256]
            alike = self.probability(some[:, :U] @ keys[:, :U].T) >= self.same_threshold
            alike &= self.agrees(self.agreement(some[:, U:], keys[:, U:]))
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


def _hidden(cosine: Tensor, ids: Sequence[str], visible: Sequence[Collection[str]]) -> Tensor:
    """``cosine [B, N]``, and -2 where a question may not see an edit."""
    at = {edit_id: place for place, edit_id in enumerate(ids)}
    hidden = torch.ones(cosine.shape, dtype=torch.bool)
    for row, mine in enumerate(visible):
        hidden[row, [at[i] for i in mine if i in at]] = False
    return cosine.masked_fill(hidden.to(cosine.device), -2.0)


def _logit(share: float) -> float:
    return math.log(share / (1 - share)) if 0 < share < 1 else math.copysign(math.inf, share - 0.5)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(logit, -700.0)))


def pooled(tokens: Tensor, places: int) -> Tensor:
    """An image's tokens ``[..., V, D]`` at a fixed number of places ``[..., P, D]``.

    P tokens stay as they are (a Q-Former's queries, a small grid). Others are averaged: a square of
    tokens over a square of places, any other number in runs of (nearly) equal length.
    """
    count = tokens.shape[-2]
    if count == places:
        return tokens
    flat = tokens.reshape(-1, count, tokens.shape[-1]).transpose(1, 2).float()
    side, wanted = math.isqrt(count), math.isqrt(places)
    if side * side == count and wanted * wanted == places:
        grid = flat.unflatten(-1, (side, side))
        found = F.adaptive_avg_pool2d(grid, wanted).flatten(-2)
    else:
        found = F.adaptive_avg_pool1d(flat, places)
    return found.transpose(1, 2).reshape(*tokens.shape[:-2], places, tokens.shape[-1])
