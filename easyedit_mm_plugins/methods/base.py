"""The one contract of all editing methods, and the unedited model, its simplest instance.

Invariants that every method keeps, and that the tests hold it to:

* Adding edits and removing them again leaves the editor and its backbone as they were, bit for bit.
* A row's answer never depends on the other rows of its batch (to float tolerance).
* With no edit in force, ``generate`` and ``force`` are the backbone's own.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..core.errors import CheckpointError, DataError
from ..data.records import Question, check_questions

# For each row the ids of the edits that it may see; None: all edits in force.
Visible: TypeAlias = "Sequence[Collection[str]] | None"


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        text: what the model says.
        route: id of the edit that answered, or ``None`` for the base model.
        score: the scope score that decided, if the method has one.
    """

    text: str
    route: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Forced:
    """Teacher-forced predictions for one question.

    Attributes:
        target_ids: the n tokens of the answer.
        top_ids: [n, k] most likely token ids at each of them, best first.
        route, score: as in :class:`Answer`.
    """

    target_ids: list[int]
    top_ids: Tensor
    route: str | None = None
    score: float | None = None


class Editor(ABC):
    """An editing method bound to a backbone; see the module's docstring for its invariants.

    Attributes:
        name: how results call the method.
        isolates_rows: ``visible`` restricts each row to edits of its own, so that many cases can
            share one forward pass. Methods that change weights cannot; they leave it false.
    """

    name: ClassVar[str]
    isolates_rows: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """In every method ``add``, ``generate`` and ``force`` take lists of questions only."""
        super().__init_subclass__(**kwargs)
        for name in ("add", "generate", "force"):
            if name in vars(cls):
                setattr(cls, name, _with_checked_questions(vars(cls)[name]))

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A trained editor from a folder.

        Raises:
            CheckpointError: damaged, or for another backbone; or the method keeps nothing on disk.
        """
        raise CheckpointError(
            f"{cls.name} has nothing to load, so {folder} cannot be its editor",
            remedy="leave the folder out",
        )

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe: trained if ``settings.archive`` names one.

        Raises:
            CheckpointError, ConfigError: as :func:`methods.factory.editor_from_settings`.
        """
        archive = getattr(settings, "archive", None)
        return cls(backbone) if archive is None else cls.from_pretrained(archive, backbone)

    @property
    @abstractmethod
    def edits(self) -> dict[str, Question]:
        """The edits in force, by id, in the order they came."""

    @abstractmethod
    def add(self, edits: Sequence[Question]) -> list[str]:
        """Put ``edits`` (question, image, new answer) in force and return their ids.

        Raises:
            DataError: an edit has no question or no answer.
        """

    @abstractmethod
    def remove(self, ids: Collection[str]) -> None:
        """Take edits back.

        Raises:
            KeyError: an id is not in force.
        """

    @abstractmethod
    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers under the edits in force; greedy unless ``kwargs`` say otherwise."""

    @abstractmethod
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions for each question's ``answer``, under the edits in force."""

    def clear(self) -> None:
        """Take all edits back."""
        self.remove(list(self.edits))

    @contextmanager
    def edited(self, edits: Sequence[Question]) -> Iterator[list[str]]:
        """``edits`` are in force inside the block and gone after it, however it ends."""
        ids = self.add(edits)
        try:
            yield ids
        finally:
            self.remove(ids)

    def describe(self) -> dict[str, Any]:
        """The settings that belong beside a result."""
        return {}

    @staticmethod
    def check_edits(edits: Sequence[Question]) -> None:
        """Raise :class:`DataError` for the first edit without a question or an answer."""
        for i, edit in enumerate(check_questions(edits)):
            for label, value in (("prompt", edit.text), ("target", edit.answer)):
                if not value.strip():
                    raise DataError("is empty", record=f"edit {i}", field=label)


def _with_checked_questions(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of an :class:`Editor`, whose first argument is checked before it runs."""

    @functools.wraps(method)
    def checked(self: Editor, *args: Any, **kwargs: Any) -> Any:
        if args:
            args = (check_questions(args[0]), *args[1:])
        else:
            name = next((n for n in ("edits", "questions") if n in kwargs), None)
            if name:
                kwargs[name] = check_questions(kwargs[name])
        return method(self, *args, **kwargs)

    return checked


def force_with_base(
    backbone: Backbone, questions: Sequence[Question], top_k: int = 1
) -> list[Forced]:
    """:class:`Forced` predictions of the base model itself."""
    with torch.no_grad():
        logits = backbone.answer_logits(questions)
    return [
        Forced(backbone.answer_ids(q.answer), row.topk(top_k, dim=-1).indices.cpu())
        for q, row in zip(questions, logits, strict=True)
    ]


class Unedited(Editor):
    """The base model: takes edits and ignores them. The row that every table starts with."""

    name = "unedited"
    isolates_rows = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._edits: dict[str, Question] = {}
        self._count = 0

    @property
    def edits(self) -> dict[str, Question]:
        return dict(self._edits)

    def add(self, edits: Sequence[Question]) -> list[str]:
        self.check_edits(edits)
        ids = [f"e{self._count + i + 1}" for i in range(len(edits))]
        self._count += len(edits)
        self._edits |= dict(zip(ids, edits, strict=True))
        return ids

    def remove(self, ids: Collection[str]) -> None:
        for i in ids:
            del self._edits[i]

    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        texts = self.backbone.generate(questions, max_new_tokens=max_new_tokens, **kwargs)
        return [Answer(text) for text in texts]

    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        return force_with_base(self.backbone, questions, top_k)
