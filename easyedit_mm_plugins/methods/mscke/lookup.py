"""Looking up the nearest edit (MSCKE eq. 1-2), in the table of the keys of all edits in force.

The paper's eq. 1 takes the arg min of a similarity; the arg max is meant, and taken here. Of equal
edits the newest is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from ...core.errors import ConfigError
from ..keys import Near
from ..routed import Hit
from ..store import InForce

# Queries [B, Z] and keys [N, Z] to rho [B, N].
Similarity = Callable[[Tensor, Tensor], Tensor]


def lookup(
    now: InForce,
    queries: Tensor,
    rho: Callable[[Tensor], Tensor],
    visible: Sequence[Collection[str]] | None = None,
) -> list[Hit]:
    """The nearest edit of each query; see :meth:`Keys.nearest`.

    Args:
        now: the edits in force, with their keys.
        queries: z_test ``[B, Z]``, as the keys are kept.
        rho: of what the table's metric gives, which it rises with.
        visible: for each query the ids that it may see; None: all. Others are ignored, also ids
            that are no longer in force.

    Raises:
        ConfigError: ``visible`` has another length than ``queries``.
    """
    found: list[Near | None] = [
        near[0] if near else None for near in now.table.nearest(queries, visible)
    ]
    scores = iter(rho(queries.new_tensor([near.score for near in found if near])).tolist())
    return [Hit(near.id, next(scores)) if near else Hit(None, 0.0) for near in found]


def compare_all(
    now: InForce,
    queries: Tensor,
    similarity: Similarity,
    visible: Sequence[Collection[str]] | None = None,
    *,
    alone: bool = False,
) -> list[Hit]:
    """As :func:`lookup`, for a similarity that no table knows: one call of it with all keys.

    Args:
        now, visible: see :func:`lookup`.
        queries: z_test ``[B, Z]``.
        similarity: rho of queries and keys.
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
        places = {edit_id: place for place, edit_id in enumerate(now.ids)}
        hidden = torch.ones(rho.shape, dtype=torch.bool)
        for row, ids in enumerate(visible):
            hidden[row, [places[i] for i in ids if i in places]] = False
        rho = rho.masked_fill(hidden.to(rho.device), float("-inf"))
    scores, newest = rho.flip(-1).max(-1)  # of equal ones the first is taken
    return [
        Hit(None, 0.0) if score == float("-inf") else Hit(now.ids[-1 - place], score)
        for score, place in zip(scores.tolist(), newest.tolist(), strict=True)
    ]


def _alone(
    now: InForce, query: Tensor, similarity: Similarity, visible: Collection[str] | None
) -> Hit:
    seen = now.seen_by(visible)
    if not seen:
        return Hit(None, 0.0)
    score, newest = similarity(query, now.table.of(seen))[0].flip(-1).max(-1)
    return Hit(seen[-1 - int(newest)], float(score))
