"""Facts before a question: the one way of all methods that edit by what stands in the prompt.

The wording is EasyEdit's for IKE: ``New Fact: {question} {answer}`` a line, then ``Prompt:`` with
the question. As in its evaluation no template stands around the question, unless it is a chat's;
the image comes where the backbone has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..backbones.base import Backbone
from ..backbones.splice import Mixed, Row
from ..core.errors import DataError
from ..data import Question

ASK = "Prompt: "


def fact(edit: Question) -> str:
    """What an edit says, as one sentence: its question with the new answer."""
    return f"{edit.text} {edit.answer}"


def line(edit: Question) -> str:
    """An edit as a line of a prompt."""
    return f"New Fact: {fact(edit)}\n"


class Context(NamedTuple):
    """What stands before a question.

    Attributes:
        parts: texts in order, of which the last ones may be left out.
        end: the text up to the question.
    """

    parts: tuple[str, ...]
    end: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.parts) + self.end


def facts(edits: Sequence[Question]) -> Context:
    """``edits``, one a line, up to the question."""
    return Context(tuple(map(line, edits)), ASK)


def rows_in_context(
    backbone: Backbone,
    questions: Sequence[Question],
    plain: Sequence[Row],
    contexts: Sequence[Context | None],
    room: int = 0,
    *,
    parts: str,
    least: int = 0,
) -> list[Row]:
    """Each question behind its context; its ``plain`` row where it has none.

    Args:
        plain: ``backbone.rows(questions)``; images and answers are taken from there.
        room: tokens that will be generated.
        parts: what the parts of a context are called, after the method: "IKE's demonstrations".
        least: parts that a context must keep.

    Raises:
        DataError: a row and ``room`` more tokens do not fit into the context window; says how many
            parts would.
    """
    limit, rows = backbone.max_positions, []
    for question, row, context in zip(questions, plain, contexts, strict=True):
        if context is None:
            rows.append(row)
            continue
        rows.append(_row(backbone, question, row, context))
        if limit is None or length(rows[-1]) + room <= limit:
            continue
        fit = [
            n
            for n in range(least, len(context.parts))
            if length(_row(backbone, question, row, Context(context.parts[:n], context.end))) + room
            <= limit
        ]
        owner, _, name = parts.partition(" ")
        raise DataError(
            f"{owner} {len(context.parts)} {name} with the question {question.text!r} take "
            f"{length(rows[-1]) + room} positions, {backbone.name} has {limit}; "
            + (f"{fit[-1]} {name} fit" if fit else "not even the new fact fits"),
            remedy=f"set k: {fit[-1]}" if fit else "choose a base model with more room",
        )
    return rows


def _row(backbone: Backbone, question: Question, plain: Row, context: Context) -> Row:
    text = context.text + question.text
    seen = next((s for s in plain.segments if not isinstance(s, list)), None)
    image = seen.picture if isinstance(seen, Mixed) else seen
    if image is not None and "<image>" in backbone.template:
        text = backbone.template.replace("{}", text)
    return Row(backbone.splice(image, text), plain.answer)


def length(row: Row) -> int:
    """Positions of a row."""
    return sum(len(s) for s in (*row.segments, row.answer))
