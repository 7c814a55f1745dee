"""What the two heads learn, on features that the frozen base model has computed once.

Shapes: R records of a batch, M queries, D hidden size, P places of a picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.splice import Batch
from ...core.lru import LRU
from ...data import Question
from ...data.images import image_key
from ...data.records import INSIDE
from ..mscke.losses import Drawn, scope_total
from .config import MSCKESelfTrainingHyperParams
from .reading import AT_ONCE, last_states, picture_places, read
from .scope import SelfScope

PAIR = "other_picture"  # the kind of the questions of a pair's other record
EASY = "out_scope_easy"  # of those out of scope that their texts tell: few, and no less to learn
REDRAWN = ("image_rephrase", "image_far")
# Kinds that the scope head learns from where the picture key decides about pictures.
_WITHIN = (*INSIDE, "out_scope", PAIR)


class Frozen:
    """What the base model says of the questions of records that live as long as this does.

    States are all kept; pictures up to ``limit`` bytes, computed again when pushed out.
    """

    def __init__(self, backbone: Backbone, scope: SelfScope, limit: int) -> None:
        self.backbone, self.scope = backbone, scope
        self._states: dict[int, Tensor] = {}
        self._pictures: LRU[Tensor] = LRU(limit, lambda picture: picture.nbytes)

    def states(self, questions: Sequence[Question]) -> Tensor:
        """``[n, D]`` at the scope's layer, the prompt's last token."""
        missing = list({id(q): q for q in questions if id(q) not in self._states}.values())
        done = 0

        def take(hidden: Tensor, batch: Batch) -> None:
            nonlocal done
            new = missing[done : done + AT_ONCE]
            done += len(new)
            for question, row in zip(new, last_states(hidden, batch), strict=True):
                self._states[id(question)] = row.clone()
            self._keep(new, batch)

        read(self.backbone, self.scope.layer, missing, take)
        return torch.stack([self._states[id(q)] for q in questions])

    @torch.no_grad()
    def pictures(self, questions: Sequence[Question]) -> Tensor:
        """``[n, P, D]`` of questions with a picture."""
        keys = [image_key(q.image) for q in questions]
        found: dict[Hashable, Tensor] = {
            k: picture for k in keys if (picture := self._pictures.get(k)) is not None
        }
        missing = {k: q for k, q in zip(keys, questions, strict=True) if k not in found}
        new = list(missing.values())
        for start in range(0, len(new), AT_ONCE):
            part = new[start : start + AT_ONCE]
            found |= self._keep(part, self.backbone.batch(part))
        return torch.stack([found[key] for key in keys])

    def _keep(self, questions: Sequence[Question], batch: Batch) -> dict[Hashable, Tensor]:
        rows, places = picture_places(batch, self.scope.places)
        found: dict[Hashable, Tensor] = {}
        for row, picture in zip(rows, places, strict=True):
            key = image_key(questions[row].image)
            if key not in found and key not in self._pictures:
                found[key] = picture.clone()
                self._pictures.put(key, found[key])
        return found

    def keys(self, questions: Sequence[Question]) -> Tensor:
        """Whole keys ``[n, Z]``, as an editor would make them."""
        states, parts = self.states(questions), []
        for start in range(0, len(questions), 256):  # not all pictures at a time
            part = questions[start : start + 256]
            rows = [i for i, q in enumerate(part) if q.image is not None]
            places = states.new_empty(0)
            if rows and self.scope.config.binding == "picture":
                places = self.pictures([part[i] for i in rows])
            parts.append(self.scope.keys(states[start : start + 256], rows, places))
        return torch.cat(parts)


def scope_losses(scope: SelfScope, frozen: Frozen, drawn: Drawn) -> dict[str, Tensor]:
    """Binary cross-entropy of s by kind of query, in scope 1 and out of scope 0.

    ``text`` holds that of pairs of questions without a picture, of which each means itself alone;
    ``batch_negatives`` that of queries with other records' edits on other pictures.
    """
    whole = scope.config.binding == "thing"
    queries = [a for a in drawn.queries if whole or a.kind in _WITHIN]
    edits = scope.scope_keys(frozen.states(drawn.edits))
    asked = scope.scope_keys(frozen.states([a.question for a in queries]))
    own = torch.tensor([a.record for a in queries], device=edits.device)
    logits = scope.logit(asked @ edits.T)
    inside = torch.tensor([a.kind in INSIDE for a in queries], device=edits.device).float()
    rows = torch.arange(len(own), device=edits.device)
    loss = F.binary_cross_entropy_with_logits(logits[rows, own], inside, reduction="none")
    losses: dict[str, Tensor] = {}
    kinds = [
        EASY if a.kind == "out_scope" and a.question.hard is False else a.kind for a in queries
    ]
    for kind in dict.fromkeys(kinds):
        losses[kind] = loss[[i for i, own in enumerate(kinds) if own == kind]].mean()
    pictures = [image_key(edit.image) for edit in drawn.edits]
    other = torch.tensor(
        [
            [a.record != j and image_key(a.question.image) != p for j, p in enumerate(pictures)]
            for a in queries
        ],
        device=edits.device,
    )
    if other.any():
        losses["batch_negatives"] = F.softplus(logits[other]).mean()
    bare = list(
        {a.question.text: a.question for a in drawn.queries if a.kind == "text_loc"}.values()
    )
    if len(bare) > 1:
        keys = scope.scope_keys(frozen.states(bare))
        same = torch.eye(len(bare), device=keys.device)
        losses["text"] = F.binary_cross_entropy_with_logits(scope.logit(keys @ keys.T), same)
    return losses


def picture_loss(scope: SelfScope, frozen: Frozen, drawn: Drawn) -> Tensor | None:
    """InfoNCE, both ways, between each edit's picture and its redrawings; ``None`` without any.

    Negatives are the other records' pictures and redrawings and all near pictures.
    """
    redrawn = [a for a in drawn.queries if a.kind in REDRAWN and a.question.image is not None]
    redrawn = [a for a in redrawn if drawn.edits[a.record].image is not None]
    near = [a.question for a in drawn.queries if a.kind == "image_near"]
    near = [q for q in near if q.image is not None]
    if not redrawn:
        return None
    records = sorted({a.record for a in redrawn})
    questions = [drawn.edits[i] for i in records] + [a.question for a in redrawn] + near
    keys = scope.picture_keys(frozen.pictures(questions))
    edits, again, others = keys.split([len(records), len(redrawn), len(near)])
    temperature = scope.log_temperature.exp()
    own = torch.tensor([records.index(a.record) for a in redrawn], device=keys.device)
    pictures = [image_key(drawn.edits[i].image) for i in records]
    twins = torch.tensor([[a == b for b in pictures] for a in pictures], device=keys.device)
    rows = torch.arange(len(own), device=keys.device)

    def contrast(queries: Tensor, right: Tensor, same: Tensor, target: Tensor) -> Tensor:
        same[rows, target] = False  # what is masked is as right as the target
        logits = (temperature * queries @ right.T).masked_fill(same, float("-inf"))
        return F.cross_entropy(torch.cat([logits, temperature * queries @ others.T], 1), target)

    there = contrast(again, edits, twins[own], own)
    back = contrast(edits[own], again, twins[own][:, own], rows)
    return (there + back) / 2


def weighed(losses: dict[str, Tensor], hparams: MSCKESelfTrainingHyperParams) -> Tensor:
    """The sum of the losses, each with its weight."""
    further = {"picture": hparams.picture_loss, PAIR: hparams.pair_loss, EASY: hparams.iloc_loss}
    return scope_total(losses, hparams, **further)
