"""The unedited model's answers, each asked once per backbone and shared between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from ..core import jsonl
from ..core.errors import RunError
from ..data import Question
from .field_types import check_fields
from .protocol import Protocol, Reply
from .results import question_key

if TYPE_CHECKING:
    from ..methods.base import Editor


_REPLY = get_type_hints(Reply)


class BaseAnswers:
    """A cache of replies by question, in memory and, with ``path``, in a JSON Lines file.

    The same question about the same picture is asked once, however many cases contain it. A file is
    for one model and one protocol, both of which must be part of its name
    (:meth:`runs.RunFolder.base_answers` sees to it).

    Args:
        editor: asked what the cache does not hold; its edits are hidden (usually ``Unedited``).
        protocol: how it is asked.
        path: the file; it may exist from an earlier run.

    Raises:
        RunError: the file is damaged; the message names the line.
    """

    def __init__(self, editor: Editor, protocol: Protocol, path: Path | None = None) -> None:
        self.editor, self.protocol, self.path = editor, protocol, path
        self.note: str | None = None
        self.asked = 0
        self._known: dict[str, Reply] = {}
        if path is not None:
            lines, self.note = jsonl.load(path)
            for number, line in enumerate(lines, start=1):
                try:
                    check_fields(line, {"key": str, "reply": dict[str, Any]})
                    reply = check_fields(line["reply"], _REPLY, optional=_REPLY)
                except TypeError as error:
                    raise RunError(
                        f"{path}, line {number}: not an answer of this format ({error})",
                        remedy="delete that line; its question will be asked again",
                    ) from None
                self._known[line["key"]] = Reply(**reply)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, questions: Sequence[Question], batch_size: int = 32) -> list[Reply]:
        """The unedited model's reply to each question, in order.

        Raises:
            RunError: the file cannot be written.
        """
        keys = [question_key(q, with_answer=self.protocol.forced) for q in questions]
        missing = {
            key: question
            for key, question in zip(keys, questions, strict=True)
            if key not in self._known
        }
        if missing:
            replies = ask_in_batches(
                self.editor, self.protocol, list(missing.values()), None, batch_size
            )
            self.asked += len(missing)
            fresh = dict(zip(missing, replies, strict=True))
            if self.path is not None:
                lines = [{"key": key, "reply": asdict(reply)} for key, reply in fresh.items()]
                jsonl.append(self.path, lines)
            self._known.update(fresh)
        return [self._known[key] for key in keys]


def ask_in_batches(
    editor: Editor,
    protocol: Protocol,
    questions: Sequence[Question],
    visible: Sequence[frozenset[str]] | None,
    batch_size: int,
) -> list[Reply]:
    """Ask all ``questions``, ``batch_size`` rows at a time, those without an image last.

    A row with an image is long, so a text-only row in the same batch would be mostly padding. An
    editor's answer does not depend on which rows share its batch.
    """
    order = sorted(range(len(questions)), key=lambda i: (questions[i].image is None, i))
    replies: list[Reply] = [Reply()] * len(questions)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        seen = None if visible is None else [visible[i] for i in rows]
        batch = protocol.ask(editor, [questions[i] for i in rows], seen)
        for row, reply in zip(rows, batch, strict=True):
            replies[row] = reply
    return replies
