"""What DualEdit learns from one batch of records: eq. 5, with the terms of appendix A.

All samples of a step, reliability, generality and locality alike, go through the layers above the
first edited one in one forward pass; the output head runs on answer positions only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.partial import starting_above
from ...core.errors import TrainingError
from ...data import EditRecord
from .adapters import pad_memory
from .edited_pass import Chosen, EditedPass
from .frozen import FrozenStates, KeyedQuestion
from .model import DualEdit
from .packing import QuestionStates, pack

REL = ("edit",)
GEN = ("rephrase", "image_rephrase", "image_far")
LOC = ("image_loc", "image_near", "text_loc")


def draw(records: Sequence[EditRecord], rng: random.Random | None = None) -> list[KeyedQuestion]:
    """The edit and one question of each kind of appendix A that a record has.

    With ``rng`` questions are sampled, without it they are the first ones, as validation has it.

    Raises:
        TrainingError: a locality question has no answer to compare the two models on.
    """
    asked = []
    for index, record in enumerate(records):
        found = record.questions()
        for kind in REL + GEN + LOC:
            questions = found[kind]
            if not questions:
                continue
            which = rng.randrange(len(questions)) if rng else 0
            if not questions[which].answer.strip():
                raise TrainingError(
                    f"record {record.case_id}: a question of kind {kind} has no answer",
                    remedy="give it one, or leave the record out",
                )
            asked.append(
                KeyedQuestion(index, kind, questions[which], (record.case_id, kind, which))
            )
    return asked


def edited_logits(
    editor: DualEdit, store: FrozenStates, asked: Sequence[KeyedQuestion], *, gated: bool
) -> tuple[list[Tensor | None], list[QuestionStates]]:
    """Logits ``[a, vocab]`` of the edited model at each question's answer, and the base's rows.

    Each row is edited by its own record's edit, and, with ``gated``, only where the gate is open;
    where it is shut, the logits are the base model's, and on locality questions, where that is
    all there is to know, ``None``. Differentiable in the adapters.
    """
    rows = store.get(asked)
    edits = {a.record: row for a, row in zip(asked, rows, strict=True) if a.kind == "edit"}
    if gated:
        read = torch.stack([row.gate for row in rows])
        with torch.no_grad():
            keys = editor.key_of(read).float()
        own = {a.record: key for a, key in zip(asked, keys, strict=True) if a.kind == "edit"}
        cosine = F.cosine_similarity(keys, torch.stack([own[a.record] for a in asked]))
        at = (cosine >= editor.threshold).nonzero().flatten().tolist()
    else:
        at = list(range(len(asked)))
    # The base model's logits: of open locality questions to compare with, of shut ones no need.
    is_open = set(at)
    plain = [i for i, a in enumerate(asked) if (a.kind in LOC) == (i in is_open)]
    store.complete([asked[i] for i in plain], [rows[i] for i in plain])
    logits = [None if a.kind in LOC else row.logits for a, row in zip(asked, rows, strict=True)]
    if at:
        edited = _pass(editor, store, [asked[i] for i in at], [rows[i] for i in at], edits)
        for i, found in zip(at, edited, strict=True):
            logits[i] = found
    return logits, rows


def _pass(
    editor: DualEdit,
    store: FrozenStates,
    asked: Sequence[KeyedQuestion],
    rows: Sequence[QuestionStates],
    edits: Mapping[int, QuestionStates],
) -> list[Tensor]:
    """Edited logits of ``rows``, each under its own record's edit."""
    decoder, config = editor.backbone.decoder, editor.config
    packed = pack(rows, store.groups(asked, [a.record for a in asked]))
    owners = [asked[members[0][0]].record for members in packed.order]
    memory = []
    for adapter, own in zip(editor.adapters, config.adapters, strict=True):
        made = {
            i: adapter.memory(edits[i].states[own.layer], edits[i].end)
            for i in dict.fromkeys(owners)
        }
        memory.append(pad_memory([made[i] for i in owners]))
    hidden = packed.batch.inputs_embeds
    chosen = Chosen(torch.arange(len(owners), device=hidden.device), memory)
    edited = EditedPass(decoder, config, editor.adapters, packed.batch, lambda _: chosen)
    # The gate may be read below the first edited layer, where nothing runs: it has decided.
    edited.chosen = chosen
    with (
        _frozen(editor.backbone.language_model),
        starting_above(decoder, config.first_layer, hidden, plain=store.plain),
        edited.running(),
    ):
        return packed.logits(editor.backbone.language_model, decoder.layers[-1])


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Forward passes inside build no graph for the model's own parameters."""
    learning = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def losses(
    editor: DualEdit, store: FrozenStates, asked: Sequence[KeyedQuestion], *, gated: bool = False
) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """By kind of question its term of appendix A, and how many of its rows come out right.

    Reliability and generality: -log f_e(o | x), summed over answer tokens; right is an answer
    whose every token is the most likely. Locality, with an image and without: KL(f || f_e) at the
    answer's positions; right is an answer whose most likely tokens have not changed. Each is the
    mean over the batch's records.
    """
    logits, rows = edited_logits(editor, store, asked, gated=gated)
    terms: dict[str, list[Tensor]] = {}
    right: dict[str, list[float]] = {}
    for a, row, own in zip(asked, rows, logits, strict=True):
        if own is None:  # the gate is shut: nothing has changed
            terms.setdefault(a.kind, []).append(row.hidden.new_zeros((), dtype=torch.float32))
            right.setdefault(a.kind, []).append(1.0)
            continue
        log_p = own.float().log_softmax(-1)
        if a.kind in LOC:
            assert row.logits is not None  # since edited_logits completed the open rows
            base = row.logits.float().log_softmax(-1)
            term = (base.exp() * (base - log_p)).sum()
            target = base.argmax(-1)
        else:
            target = torch.tensor(row.answer, device=log_p.device)
            term = -log_p.gather(-1, target[:, None]).sum()
        terms.setdefault(a.kind, []).append(term)
        right.setdefault(a.kind, []).append(float((log_p.argmax(-1) == target).all()))
    return {kind: torch.stack(values).mean() for kind, values in terms.items()}, right


def total(by_kind: Mapping[str, Tensor], hparams: Any) -> Tensor:
    """Eq. 5: l_rel + l_gen + l_loc, each with its weight (paper: 1)."""
    weights = dict.fromkeys(REL, hparams.rel_loss) | dict.fromkeys(GEN, hparams.gen_loss)
    weights |= dict.fromkeys(LOC, hparams.loc_loss)
    return sum(weights[kind] * loss for kind, loss in by_kind.items())
