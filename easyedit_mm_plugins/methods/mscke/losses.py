"""What MSCKE learns from one batch of records (eq. 9-11, and the counterfactual model's nll)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ...data import EditRecord, Question
from ...data.images import image_key
from ...data.records import INSIDE, OUTSIDE
from .classifier import ScopeClassifier
from .config import MSCKETrainingHyperParams
from .counterfactual import SmallLM


class BatchQuery(NamedTuple):
    """A query of a batch: which record's edit it belongs to, its kind, and the question."""

    record: int
    kind: str
    question: Question


@dataclass
class Drawn:
    """A batch: the records' edits, and the queries drawn from them."""

    edits: list[Question]
    queries: list[BatchQuery]


def draw(
    records: Sequence[EditRecord], scope_questions: int, rng: random.Random | None = None
) -> Drawn:
    """Queries of each kind: ``scope_questions`` in and out of scope, one of the others.

    With ``rng`` a record's questions are sampled, so that several epochs see them all; without,
    the first ones are taken, as validation does.
    """
    drawn = Drawn([r.edit for r in records], [])
    for i, record in enumerate(records):
        for kind, questions in record.questions().items():
            n = scope_questions if kind in ("in_scope", "out_scope") else 1
            n = min(n, len(questions))
            chosen = rng.sample(questions, n) if rng else questions[:n]
            drawn.queries += [BatchQuery(i, kind, q) for q in chosen]
    return drawn


def scope_losses(
    scope: ScopeClassifier, drawn: Drawn, threshold: float = 0.5
) -> tuple[dict[str, Tensor], dict[str, list[bool]]]:
    """Binary cross-entropy by kind of query (eq. 9-11), and which queries are routed right.

    ``batch_negatives`` holds the loss of pairs of a query with another record's edit, which are
    out of scope unless the two records share their image.
    """
    z_e = scope.encode_edits(drawn.edits)
    z_t = scope.encode_queries([a.question for a in drawn.queries])
    log_in, log_out = scope.log_similarity(z_t, z_e)
    own = torch.tensor([a.record for a in drawn.queries], device=z_e.device)
    inside = torch.tensor([a.kind in INSIDE for a in drawn.queries], device=z_e.device)
    rows = torch.arange(len(own), device=z_e.device)
    loss = -torch.where(inside, log_in[rows, own], log_out[rows, own])
    right = ((log_in[rows, own].exp() >= threshold) == inside).tolist()
    losses, routed = by_kind(drawn, loss, right)
    edited = [image_key(e.image) for e in drawn.edits]
    asked = [image_key(a.question.image) for a in drawn.queries]
    other = torch.tensor(
        [
            [a.record != j and (key is None or key != e) for j, e in enumerate(edited)]
            for a, key in zip(drawn.queries, asked, strict=True)
        ],
        device=z_e.device,
    )
    if other.any():
        losses["batch_negatives"] = -log_out[other].mean()
    return losses, routed


def by_kind(
    drawn: Drawn, loss: Tensor, right: Sequence[bool]
) -> tuple[dict[str, Tensor], dict[str, list[bool]]]:
    """Mean loss by kind of query, of ``loss [B]``, and which queries of the kind are right."""
    losses: dict[str, Tensor] = {}
    routed: dict[str, list[bool]] = {}
    for kind in INSIDE + OUTSIDE:
        at = [k for k, a in enumerate(drawn.queries) if a.kind == kind]
        if at:
            losses[kind] = loss[at].mean()
            routed[kind] = [right[k] for k in at]
    return losses, routed


def counterfactual_losses(
    model: SmallLM, drawn: Drawn, rng: random.Random | None = None
) -> tuple[dict[str, Tensor], dict[str, list[bool]]]:
    """Mean nll by kind of in-scope query, and which would be answered exactly by greedy decoding.

    With ``rng`` the batch's images are hidden with the probability ``drop_image`` of the model.
    """
    inside = [a for a in drawn.queries if a.kind in INSIDE]
    hidden = rng is not None and rng.random() < model.config.drop_image
    edits = [drawn.edits[a.record] for a in inside]
    loss, exact = model.nll(edits, [a.question for a in inside], hidden)
    losses, answered = {}, {}
    for kind in INSIDE:
        at = [k for k, a in enumerate(inside) if a.kind == kind]
        if at:
            losses[kind] = loss[at].mean()
            answered[kind] = exact[at].tolist()
    return losses, answered


def scope_total(
    losses: dict[str, Tensor], hparams: MSCKETrainingHyperParams, **further: float
) -> Tensor:
    """L_cls of eq. 11, each kind with its weight; ``further`` has those of other kinds."""
    weight = {
        "in_scope": hparams.igen_loss,
        "out_scope": hparams.iloc_loss,
        "batch_negatives": hparams.batch_negatives,
        **further,
    }
    return reduce(
        torch.add, (weight.get(kind, hparams.cls_loss) * loss for kind, loss in losses.items())
    )


def counterfactual_total(losses: dict[str, Tensor], hparams: MSCKETrainingHyperParams) -> Tensor:
    """The nll of the edit and its rewordings by ``cedit``, of in-scope questions by ``iedit``."""
    weighed = (
        (hparams.iedit if kind == "in_scope" else hparams.cedit) * loss
        for kind, loss in losses.items()
    )
    return reduce(torch.add, weighed)
