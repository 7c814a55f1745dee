"""A cache of generated answers for tables 2 and 3.

Their editors differ in the scope classifier alone. The base model and the counterfactual model are
the same for all of them and answer a question alike, so each question is generated once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..data import Question
from ..evaluation.results import question_key


class Remembered:
    """A ``generate`` that answers a row that it has answered before from memory.

    Args:
        generate: greedy answers to rows of questions: one sequence, or edits and queries.
    """

    def __init__(self, generate: Callable[..., list[str]]) -> None:
        self.generate, self.asked = generate, 0
        self._known: dict[tuple, str] = {}

    def __call__(self, *columns: Sequence[Question], **kwargs: Any) -> list[str]:
        """The answer to each row; only new rows are generated."""
        settings = tuple(sorted(kwargs.items()))
        rows = [
            # An edit is known by question and answer, a query by its question alone.
            (settings, *(question_key(q, with_answer=len(row) > i + 1) for i, q in enumerate(row)))
            for row in zip(*columns, strict=True)
        ]
        fresh = {row: i for i, row in enumerate(rows) if row not in self._known}
        if fresh:
            asked = [[column[i] for i in fresh.values()] for column in columns]
            self._known.update(zip(fresh, self.generate(*asked, **kwargs), strict=True))
            self.asked += len(fresh)
        return [self._known[row] for row in rows]


def remember(*models: Any) -> None:
    """Let each of ``models`` (base or counterfactual) keep the answers that it generates."""
    for model in models:
        if not isinstance(model.generate, Remembered):
            model.generate = Remembered(model.generate)
