"""Looking up the nearest edit (MSCKE eq. 1-2), by one product with the keys of all edits in force.

The paper's eq. 1 takes the arg min of a similarity; the arg max is meant, and taken here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ..routed import Hit
from ..store import InForce

# Queries [B, Z] and keys [N, Z] to rho [B, N].
Similarity = Callable[[Tensor, Tensor], Tensor]


def lookup(
    now: InForce,
    queries: Tensor,
    similarity: Similarity,
    visible: Sequence[Collection[str]] | None = None,
    *,
    alone: bool = False,
) -> list[Hit]:
    """The most similar edit of each query.

    Args:
        now: the edits in force, with their keys.
        queries: z_test ``[B, Z]``.
        similarity: rho of queries and keys.
        visible: for each query the ids that it may see; None: all. Others are ignored, also ids
            that are no longer in force.
        alone: compare each query by itself with just the edits that it may see, for a similarity
            that depends on what it is computed with (the release's fusion).

    Raises:
        ConfigError: ``visible`` has another length than ``queries``.
    """
    if visible is not None and len(visible) != len(queries):
        raise ConfigError(f"visible has {len(visible)} rows for {len(queries)} questions")
    if not now.edits or not len(queries):
        return [Hit(None, 0.0)] * len(queries)
    if alone and (len(queries) > 1 or visible is not None):
        seen = [None] * len(queries) if visible is None else visible
        return [_alone(now, q[None], similarity, own) for q, own in zip(queries, seen, strict=True)]
    rho = similarity(queries, now.keys)
    if visible is not None:
        hidden = torch.ones(rho.shape, dtype=torch.bool)
        for row, ids in enumerate(visible):
            hidden[row, [now.places[i] for i in ids if i in now.places]] = False
        rho = rho.masked_fill(hidden.to(rho.device), float("-inf"))
    scores, places = rho.max(-1)
    return [
        Hit(None, 0.0) if score == float("-inf") else Hit(now.ids[place], score)
        for score, place in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def _alone(
    now: InForce, query: Tensor, similarity: Similarity, visible: Collection[str] | None
) -> Hit:
    seen = now.seen_by(visible)
    if not seen:
        return Hit(None, 0.0)
    score, place = similarity(query, now.keys[[now.places[i] for i in seen]])[0].max(-1)
    return Hit(seen[int(place)], float(score))
