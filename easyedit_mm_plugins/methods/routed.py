"""Editors that decide row by row: an edit's scope score routes a question to a counterfactual
model or to the frozen base model (MSCKE eq. 3; SERAC has the same shape).

A subclass keeps the memory and says how a question is scored; answering is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from ..backbones.base import Backbone
from ..core.errors import ConfigError
from ..data.records import EditRecord, Question
from .base import Answer, Editor, Forced, Visible, force_with_base
from .calibration import Calibration, calibrate
from .newest import Superseded, newest
from .store import EditStore, InForce


class Hit(NamedTuple):
    """The most similar edit k* of a query and its similarity rho (MSCKE eq. 1-2).

    ``id`` is ``None`` (and ``score`` 0) where the query may see no edit.
    """

    id: str | None
    score: float


def latest(now: InForce, hits: Sequence[Hit], visible: Visible = None) -> list[Hit]:
    """The hits, each with the newest edit of its meaning that its question may see."""
    if not now.newer:
        return list(hits)
    seen = [None] * len(hits) if visible is None else visible
    return [
        hit if hit.id is None else hit._replace(id=newest(now.newer, hit.id, own))
        for hit, own in zip(hits, seen, strict=True)
    ]


class RoutedEditor(Editor):
    """Answers in scope by ``counterfactual``, everything else by the base model's own path.

    Args:
        backbone: the base model f_base; never changed.
        counterfactual: f_cfr, see ``mscke/counterfactual.py``.
        threshold: in [0, 1]; a score at or above it is in scope. The paper's is 0.5.
        store: for the edits; by default one without keys.

    Attributes:
        at_most: the share of each kind of question out of scope that a calibrated threshold lets
            through.

    Raises:
        ConfigError: the threshold is out of range.
    """

    isolates_rows: ClassVar[bool] = True
    at_most: ClassVar[float] = 1.0

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
        with self.store.held() as now:
            hits, texts = self.base_texts(
                questions, visible, max_new_tokens=max_new_tokens, **kwargs
            )
        hits, inside = self._inside(now, hits, visible)
        answers = {i: Answer(text, None, self._score(hits[i])) for i, text in texts.items()}
        if inside:
            found = self.counterfactual.generate(
                [now.edits[edit_id] for edit_id in inside.values()],
                [questions[i] for i in inside],
                max_new_tokens=max_new_tokens,
                **kwargs,
            )
            for i, text in zip(inside, found, strict=True):
                answers[i] = Answer(text, hits[i].id, hits[i].score)
        return [answers[i] for i in range(len(questions))]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions, routed as in :meth:`generate`: the answer never decides."""
        with self.store.held() as now:
            hits, rows = self.base_forced(questions, visible, top_k)
        hits, inside = self._inside(now, hits, visible)
        forced = {
            i: Forced(row.target_ids, row.top_ids, None, self._score(hits[i]))
            for i, row in rows.items()
        }
        if inside:
            found = self.counterfactual.top_ids(
                [now.edits[edit_id] for edit_id in inside.values()],
                [questions[i] for i in inside],
                top_k,
            )
            for i, top in zip(inside, found, strict=True):
                ids = self.backbone.answer_ids(questions[i].answer)
                forced[i] = Forced(ids, top.cpu(), hits[i].id, hits[i].score)
        return [forced[i] for i in range(len(questions))]

    # What the base model says, which a method may have found out while routing.

    def base_texts(
        self, questions: Sequence[Question], visible: Visible, **kwargs: Any
    ) -> tuple[list[Hit], dict[int, str]]:
        """Each question's hit, and the base model's answers to those out of scope, by row."""
        hits = self.route(questions, visible=visible)
        outside = self.outside(hits)
        texts = self.backbone.generate([questions[i] for i in outside], **kwargs) if outside else []
        return hits, dict(zip(outside, texts, strict=True))

    def base_forced(
        self, questions: Sequence[Question], visible: Visible, top_k: int
    ) -> tuple[list[Hit], dict[int, Forced]]:
        """As :meth:`base_texts`, its predictions."""
        hits = self.route(questions, visible=visible)
        outside = self.outside(hits)
        rows = (
            force_with_base(self.backbone, [questions[i] for i in outside], top_k)
            if outside
            else []
        )
        return hits, dict(zip(outside, rows, strict=True))

    def outside(self, hits: Sequence[Hit]) -> list[int]:
        """The rows in no edit's scope."""
        return [i for i, h in enumerate(hits) if h.id is None or h.score < self.threshold]

    def in_scope(
        self, questions: Sequence[Question], *, visible: Visible = None
    ) -> dict[int, Question]:
        """Of the questions in scope, by row, the edit that answers."""
        with self.store.held() as now:
            _, inside = self._inside(now, self.route(questions, visible=visible), visible)
        return {i: now.edits[edit_id] for i, edit_id in inside.items()}

    def calibrate(
        self,
        records: Sequence[EditRecord],
        *,
        edits: int = 1,
        at_most: float | None = None,
        more: Sequence[Question] = (),
    ) -> Calibration:
        """Set the threshold to the one that routes the questions of ``records`` best.

        Args, Raises: see :func:`calibration.calibrate`; ``at_most`` is by default
            :attr:`at_most`.
        """
        at_most = self.at_most if at_most is None else at_most
        found = calibrate(self, records, edits=edits, at_most=at_most, more=more)
        self.threshold = found.threshold
        return found

    def superseded(self, newer: Collection[str] | None = None) -> list[Superseded]:
        """The edits in force that a later one answers for, until that is removed.

        Args:
            newer: only those that one of these does, such as what :meth:`add` has just returned.
        """
        now = self.store.now
        pairs = [(older, newest(now.newer, older)) for older in now.newer]
        return [
            Superseded(older, later, now.edits[older].answer != now.edits[later].answer)
            for older, later in pairs
            if newer is None or later in newer
        ]

    def _inside(
        self, now: InForce, hits: Sequence[Hit], visible: Visible
    ) -> tuple[list[Hit], dict[int, str]]:
        """The hits, each with the newest edit of its meaning; and those in scope, by row."""
        outside = set(self.outside(hits))
        hits = latest(now, hits, visible)
        inside = {
            i: hit.id for i, hit in enumerate(hits) if hit.id is not None and i not in outside
        }
        return hits, inside

    @staticmethod
    def _score(hit: Hit) -> float | None:
        return None if hit.id is None else hit.score
