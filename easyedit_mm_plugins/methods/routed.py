"""Editors that decide row by row: an edit's scope score routes a question to a counterfactual
model or to the frozen base model (MSCKE eq. 3; SERAC has the same shape).

A subclass keeps the memory and says how a question is scored; answering is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from ..backbones.base import Backbone
from ..core.errors import ConfigError
from ..data.records import Question
from .base import Answer, Editor, Forced, Visible, force_with_base
from .store import EditStore


class Hit(NamedTuple):
    """The most similar edit k* of a query and its similarity rho (MSCKE eq. 1-2).

    ``id`` is ``None`` (and ``score`` 0) where the query may see no edit.
    """

    id: str | None
    score: float


class RoutedEditor(Editor):
    """Answers in scope by ``counterfactual``, everything else by the base model's own path.

    Args:
        backbone: the base model f_base; never changed.
        counterfactual: f_cfr, see ``mscke/counterfactual.py``.
        threshold: in [0, 1]; a score at or above it is in scope. The paper's is 0.5.
        store: for the edits; by default one without keys.

    Raises:
        ConfigError: the threshold is out of range.
    """

    isolates_rows: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        counterfactual: Any,
        threshold: float = 0.5,
        store: EditStore | None = None,
    ) -> None:
        super().__init__(backbone, store)
        self.counterfactual = counterfactual
        if isinstance(counterfactual, torch.nn.Module):
            counterfactual.eval()
        self.threshold = threshold

    @property
    def threshold(self) -> float:
        """A scope score at or above it is in scope."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ConfigError(
                f"threshold is {value!r}", remedy="give a number from 0 to 1; the paper has 0.5"
            )
        self._threshold = float(value)

    @abstractmethod
    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """The nearest edit and its score for each question, threshold not applied."""

    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers under the edits in force, each row by its own route; greedy by default."""
        with self.store.held():
            hits, edits = self.route(questions, visible=visible), self.edits
        inside, outside = self._split(hits)
        answers: dict[int, Answer] = {}
        if outside:
            texts = self.backbone.generate(
                [questions[i] for i in outside], max_new_tokens=max_new_tokens, **kwargs
            )
            for i, text in zip(outside, texts, strict=True):
                answers[i] = Answer(text, None, self._score(hits[i]))
        if inside:
            texts = self.counterfactual.generate(
                [edits[edit_id] for edit_id in inside.values()],
                [questions[i] for i in inside],
                max_new_tokens=max_new_tokens,
                **kwargs,
            )
            for i, text in zip(inside, texts, strict=True):
                answers[i] = Answer(text, hits[i].id, hits[i].score)
        return [answers[i] for i in range(len(questions))]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions, routed as in :meth:`generate`: the answer never decides."""
        with self.store.held():
            hits, edits = self.route(questions, visible=visible), self.edits
        inside, outside = self._split(hits)
        forced: dict[int, Forced] = {}
        if outside:
            rows = force_with_base(self.backbone, [questions[i] for i in outside], top_k)
            for i, row in zip(outside, rows, strict=True):
                forced[i] = Forced(row.target_ids, row.top_ids, None, self._score(hits[i]))
        if inside:
            found = self.counterfactual.top_ids(
                [edits[edit_id] for edit_id in inside.values()],
                [questions[i] for i in inside],
                top_k,
            )
            for i, top in zip(inside, found, strict=True):
                ids = self.backbone.answer_ids(questions[i].answer)
                forced[i] = Forced(ids, top.cpu(), hits[i].id, hits[i].score)
        return [forced[i] for i in range(len(questions))]

    def _split(self, hits: Sequence[Hit]) -> tuple[dict[int, str], list[int]]:
        """The rows in scope, with the edit's id, and the others."""
        inside = {
            i: hit.id
            for i, hit in enumerate(hits)
            if hit.id is not None and hit.score >= self.threshold
        }
        return inside, [i for i in range(len(hits)) if i not in inside]

    @staticmethod
    def _score(hit: Hit) -> float | None:
        return None if hit.id is None else hit.score
