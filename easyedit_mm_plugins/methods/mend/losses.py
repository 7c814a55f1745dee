"""What MEND learns from one batch of records (MEND section 3.3, as EasyEdit's trainer weighs it).

An edited model shall give the new answer to the edit, its rewordings and what it entails, and keep
the base model's distribution elsewhere. All questions of a batch go through the model in one
forward pass, each under the change of its own record's edit.

Answers are judged together with the token that ends them, since an edited model must also stop; an
edit's own gradient is taken over the answer's tokens alone, as in EasyEdit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...backbones.base import Backbone
from ...backbones.splice import answer_logits
from ...core.errors import TrainingError
from ...data.records import INSIDE, Question
from ..deltas import Delta, applied, changed_rows
from ..mscke.losses import BatchQuery, Drawn


class Predicts(Protocol):
    """An editor that makes changes of weights which one can differentiate."""

    backbone: Backbone

    def predicted(self, edits: Sequence[Question]) -> list[Delta]:
        """The change of each edit."""


def mend_losses(editor: Predicts, drawn: Drawn) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """By kind of question its loss, and which of its questions come out right.

    In scope: mean negative log likelihood per token; right is an answer whose every token is the
    most likely. Elsewhere: KL(base || edited) per token; right is an answer whose most likely
    tokens are the base model's. Each is the mean over the kind's questions.

    Raises:
        TrainingError: a question has no answer to compare the models on, or an edit's gradient is
            not finite.
    """
    deltas = editor.predicted(drawn.edits)
    asked = drawn.queries
    check_answers(asked)
    questions = [a.question for a in asked]
    logits = _logits(editor.backbone, questions, [deltas[a.record] for a in asked])
    outside = [i for i, a in enumerate(asked) if a.kind not in INSIDE]
    base_logits = _base_logits(editor.backbone, [questions[i] for i in outside])
    kept = dict(zip(outside, base_logits, strict=True))
    losses: dict[str, list[Tensor]] = {}
    right: dict[str, list[float]] = {}
    for i, (a, own) in enumerate(zip(asked, logits, strict=True)):
        log_p = own.float().log_softmax(-1)
        if i in kept:
            base = kept[i].float().log_softmax(-1)
            target = base.argmax(-1)
            loss = (base.exp() * (base - log_p)).sum(-1).mean()
        else:
            ids = [*editor.backbone.answer_ids(a.question.answer), editor.backbone.stop_token_id]
            target = torch.tensor(ids, device=log_p.device)
            loss = F.nll_loss(log_p, target)
        losses.setdefault(a.kind, []).append(loss)
        right.setdefault(a.kind, []).append(float((log_p.argmax(-1) == target).all()))
    return {kind: torch.stack(values).mean() for kind, values in losses.items()}, right


def kind_weight(kind: str, hparams: Any) -> float:
    """``cedit`` for the edit and its rewordings, ``iedit`` for what it entails, ``iloc`` for
    out-of-scope questions about its image, ``cloc`` for other questions."""
    if kind in INSIDE:
        return hparams.iedit if kind == "in_scope" else hparams.cedit
    return hparams.iloc if kind == "out_scope" else hparams.cloc


def weighed(drawn: Drawn, hparams: Any) -> Drawn:
    """``drawn`` without the questions whose kind has weight 0: they cost a forward pass."""
    return Drawn(drawn.edits, [a for a in drawn.queries if kind_weight(a.kind, hparams)])


def mend_total(losses: Mapping[str, Tensor], hparams: Any) -> Tensor:
    """The sum, each kind by its :func:`kind_weight`."""
    return reduce(torch.add, (kind_weight(k, hparams) * loss for k, loss in losses.items()))


def check_answers(asked: Sequence[BatchQuery]) -> None:
    """Raise :class:`TrainingError` for a question without an answer."""
    for a in asked:
        if not a.question.answer.strip():
            raise TrainingError(
                f"record {a.record} of the batch: a question of kind {a.kind} has no answer "
                f"({a.question.text!r})",
                remedy="give it one, or leave the record out",
            )


def _logits(backbone: Backbone, questions: Sequence[Question], deltas: list[Delta]) -> list[Tensor]:
    batch = changed_rows(backbone, questions, deltas, with_answers=True, with_stop=True)
    with applied(backbone.linear_modules(), deltas):
        return answer_logits(backbone.language_model, batch)


@torch.no_grad()
def _base_logits(backbone: Backbone, questions: Sequence[Question]) -> list[Tensor]:
    if not questions:
        return []
    batch = backbone.batch(questions, with_answers=True, with_stop=True)
    return answer_logits(backbone.language_model, batch)
