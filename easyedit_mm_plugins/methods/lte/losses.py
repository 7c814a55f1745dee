"""What LTE learns from a batch of records: to follow facts in their scope, and only there.

With the facts c before a question x (LTE, alignment phase)::

    L = mean -log p(y_e | c, x_in)  +  cloc * mean -log p(f_base(x) | c, x_out)
                                    +  cloc * mean -log p(f_base(x) | x)

where f_base(x) is what the base model answers. The paper takes the answers of its data sets in
place of f_base(x).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.splice import Row, assemble
from ...data import Question
from ...data.records import INSIDE
from ..mscke.losses import BatchQuery, Drawn
from ..mscke.pairs import answer_losses
from .reader import FactReader

# A question about a picture that differs in one thing: words before it cannot tell the pictures
# apart, and neither can what reads them.
LEFT_OUT = ("image_near",)
FORMS = tuple(kind for kind in INSIDE if kind != "in_scope")  # of the edit itself
PLAIN = "plain"  # the kind of a question that is asked with nothing before it


class Lesson(NamedTuple):
    """A question with the facts before it, and its kind, by which it is answered anew or not."""

    facts: Sequence[Question]
    question: Question
    kind: str

    @property
    def anew(self) -> bool:
        """Its answer is the edit's; otherwise the base model's own."""
        return self.kind in INSIDE


def lessons(
    drawn: Drawn,
    facts: Sequence[Sequence[Question]],
    plain: float = 0.0,
    rng: random.Random | None = None,
) -> list[Lesson]:
    """The questions of a batch behind their record's facts.

    With ``rng`` the edit is asked in one of its forms alone, as released, and a share ``plain`` of
    all questions once more with nothing before them.
    """
    asked: list[BatchQuery] = [query for query in drawn.queries if query.kind not in LEFT_OUT]
    if rng is not None:
        forms: dict[int, list[BatchQuery]] = defaultdict(list)
        for query in asked:
            if query.kind in FORMS:
                forms[query.record].append(query)
        chosen = [rng.choice(own) for own in forms.values()]
        asked = [*chosen, *(query for query in asked if query.kind not in FORMS)]
    found = [Lesson(facts[query.record], query.question, query.kind) for query in asked]
    if rng is not None and plain:
        again = rng.sample(asked, round(plain * len(asked)))
        found += [Lesson((), query.question, PLAIN) for query in again]
    return found


@torch.no_grad()
def said(backbone: Backbone, questions: Sequence[Question], most: int) -> list[list[int]]:
    """The tokens of the base model's own answers, with the one that ends them: at most ``most``."""
    if not questions:
        return []
    stop = backbone.stop_token_id
    ids = backbone.generate_ids(backbone.batch(questions), max_new_tokens=most)
    return [[*row, stop][:most] for row in ids]


def rows(reader: FactReader, found: Sequence[Lesson], most: int) -> list[Row]:
    """A row each, with the answer that is to be learned."""
    asked = reader.rows([lesson.facts for lesson in found], [lesson.question for lesson in found])
    base = reader.backbone
    own = iter(said(base, [lesson.question for lesson in found if not lesson.anew], most))
    for row, lesson in zip(asked, found, strict=True):
        if lesson.anew:
            row.answer = [*base.answer_ids(lesson.question.answer), base.stop_token_id]
        else:
            row.answer = next(own)
    return asked


def lesson_losses(
    reader: FactReader, found: Sequence[Lesson], most: int
) -> tuple[Tensor, list[bool]]:
    """Mean negative log likelihood ``[B]`` of each answer, and whether greedy decoding gives it."""
    batch = assemble(rows(reader, found, most), reader.lm.get_input_embeddings())
    loss, right = answer_losses(reader.lm, batch)
    return loss, right.tolist()


def total_loss(loss: Tensor, found: Sequence[Lesson], cloc: float) -> Tensor:
    """The sum of the module's docstring, of ``loss [B]``; a part may lack questions."""
    parts = (
        (1.0, [i for i, lesson in enumerate(found) if lesson.anew]),
        (cloc, [i for i, lesson in enumerate(found) if not lesson.anew and lesson.facts]),
        (cloc, [i for i, lesson in enumerate(found) if not lesson.facts]),
    )
    return torch.stack([weight * loss[at].mean() for weight, at in parts if at]).sum()
