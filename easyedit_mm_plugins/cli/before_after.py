"""The answers of a model before an edit, with the edit in force, and after it is undone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import EasyEditMMError
from ..data import Question

if TYPE_CHECKING:
    from rich.table import Table

    from ..methods import Editor

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Line:
    """A question, its answer by the unedited model, and its answer with the edit in force.

    ``expected`` is the right answer with the edit in force, where that is known; ``route`` is the
    id of the edit that answered, or ``None`` for the base model.
    """

    question: Question
    before: str
    after: str
    route: str | None
    score: float | None
    expected: str = ""
    note: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the answer with the edit in force is the expected one, if that is known."""
        from ..evaluation import same_answer

        return same_answer(self.after, self.expected) if self.expected else None


def ask_around(
    editor: Editor, edit: Question, questions: Sequence[Question], max_new_tokens: int = 8
) -> list[Line]:
    """Ask ``questions`` of the unedited model and with ``edit`` in force, then undo the edit.

    Raises:
        EasyEditMMError: the answers after the undo are not those from before.
    """
    before = editor.backbone.generate(questions, max_new_tokens=max_new_tokens)
    with editor.edited([edit]):
        answers = editor.generate(questions, max_new_tokens=max_new_tokens)
    undone = [a.text for a in editor.generate(questions, max_new_tokens=max_new_tokens)]
    if undone != before:
        raise EasyEditMMError(
            f"the {editor.name} editor did not undo its edit: {undone} instead of {before}",
            remedy="report this as a defect of the method",
        )
    return [
        Line(question, was, answer.text, answer.route, answer.score)
        for question, was, answer in zip(questions, before, answers, strict=True)
    ]


def unknown_words(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The words and signs of ``texts`` for which ``tokenizer`` has no token but "unknown"."""
    unknown = getattr(tokenizer, "unk_token_id", None)

    def lacks(text: str) -> bool:
        return unknown in tokenizer(f" {text}", add_special_tokens=False)["input_ids"]

    if unknown is None:
        return []
    words = [word for text in texts if lacks(text) for word in _WORD.findall(text)]
    return [word for word in dict.fromkeys(words) if lacks(word)]


def answer_table(edit: Question, lines: Sequence[Line]) -> Table:
    """The lines as a table for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    caption = "Then the edit was undone, and every answer was the one from before again."
    table = Table(
        title=f"edit: {escape(edit.text)} -> {escape(edit.answer)}",
        caption=caption,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    noted = any(line.note for line in lines)
    for column in (*(["kind"] if noted else []), "question", "before", "after"):
        table.add_column(column)
    table.add_column("answered by", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for line in lines:
        plain = line.question.image is None and not line.note
        mark = {None: "", True: " [green]✓[/]", False: " [red]✗[/]"}[line.right]
        table.add_row(
            *([line.note] if noted else []),
            escape(line.question.text) + (" [dim](no picture)[/]" if plain else ""),
            escape(line.before),
            ("[bold]" if line.after != line.before else "[dim]")
            + escape(line.after)
            + "[/]"
            + mark,
            "base" if line.route is None else f"edit {line.route}",
            "" if line.score is None else f"{line.score:.3f}",
        )
    return table
