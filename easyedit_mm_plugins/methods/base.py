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
from tqdm.auto import tqdm

from ..backbones.base import Backbone
from ..core.errors import CheckpointError, ConfigError, DataError
from ..data.records import Question, check_questions
from .edit_file import SavedEdits, read_edits
from .store import EditStore, InForce, Kept

_AT_ONCE = 256  # edits that are encoded together
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

    A method says what it keeps of an edit (:meth:`encode`) and how it answers (:meth:`generate`,
    :meth:`force`).

    Attributes:
        name: how results call the method; an editor may be given another than its class's.
        store: the edits in force, with what is kept of them.
        isolates_rows: ``visible`` restricts each row to edits of its own, so that many cases can
            share one forward pass. Methods that change weights cannot; they leave it false.
    """

    name: str
    isolates_rows: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """In every method ``add``, ``generate`` and ``force`` take lists of questions only."""
        super().__init_subclass__(**kwargs)
        for name in ("add", "generate", "force"):
            if name in vars(cls):
                setattr(cls, name, _with_checked_questions(vars(cls)[name]))

    def __init__(self, backbone: Backbone, store: EditStore | None = None) -> None:
        self.backbone = backbone
        self.store = EditStore() if store is None else store

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

    # Edits ------------------------------------------------------------------------------------

    @property
    def edits(self) -> dict[str, Question]:
        """The edits in force, by id, in the order they came (a copy)."""
        return dict(self.store.now.edits)

    def add(self, edits: Sequence[Question]) -> list[str]:
        """Put ``edits`` (question, image, new answer) in force and return their ids.

        Raises:
            DataError: an edit has no question or no answer, or the method cannot use it; no edit
                of the call is then in force.
        """
        edits = check_questions(edits)
        self.check_edits(edits)
        if not edits:
            return []
        parts: list[Kept] = []
        done = 0
        quiet = None if len(edits) > _AT_ONCE else True  # None: where there is a terminal
        try:
            with tqdm(total=len(edits), desc="edits", disable=quiet, leave=False) as bar:
                for done in range(0, len(edits), _AT_ONCE):
                    parts.append(self.encode(edits[done : done + _AT_ONCE]))
                    bar.update(_AT_ONCE)
            done = len(edits)
            return self.store.add(edits, Kept.joined(parts))
        except BaseException:
            self.forget(edits[:done])
            raise

    def remove(self, ids: Collection[str]) -> None:
        """Take edits back.

        Raises:
            KeyError: an id is not in force; nothing is removed then.
        """
        self.forget(self.store.remove(ids))

    def encode(self, edits: Sequence[Question]) -> Kept:
        """What the method keeps of ``edits``, made once for each; by default nothing."""
        return Kept()

    def forget(self, edits: Sequence[Question]) -> None:  # noqa: B027
        """Called with edits that were taken back, for what a method keeps outside of its store."""

    # Answers ----------------------------------------------------------------------------------

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
        self.remove(self.store.now.ids)

    @contextmanager
    def edited(self, edits: Sequence[Question]) -> Iterator[list[str]]:
        """``edits`` are in force inside the block and gone after it, however it ends."""
        ids = self.add(edits)
        try:
            yield ids
        finally:
            still = self.store.now.edits
            self.remove([i for i in ids if i in still])

    def describe(self) -> dict[str, Any]:
        """The settings that belong beside a result."""
        return {}

    # Edits on disk ----------------------------------------------------------------------------

    def save_memory(self, folder: str | Path) -> None:
        """Write the edits in force, with their pictures, whole or not at all.

        Raises:
            DataError: an edit's picture cannot be read.
        """
        with self.store.held() as now:
            self.store.save(folder, self.made_by(), self.pack(now))

    def load_memory(self, folder: str | Path) -> None:
        """Replace the edits in force by saved ones.

        Raises:
            CheckpointError: a missing or damaged file, or another editor made it; the edits in
                force stay.
        """
        saved = read_edits(folder, self.made_by())
        self.forget(self.store.replace(saved, self.unpack(saved)))

    def made_by(self) -> str:
        """What saved edits depend on: only an editor that says the same can load them."""
        return self.name

    def pack(self, now: InForce) -> dict[str, Tensor]:
        """What is written beside the edits and their keys, so that :meth:`unpack` need not
        encode them again; by default nothing."""
        return {}

    def unpack(self, saved: SavedEdits) -> Kept:
        """What is kept of saved edits; by default they are encoded again.

        Raises:
            CheckpointError: the file lacks something.
        """
        return self.encode(list(saved.edits.values()))

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
        asked = args[0] if args else kwargs.get("questions", ())
        # The top_k of generate is an option of its sampling, and the backbone's to check.
        options = {k: v for k, v in kwargs.items() if method.__name__ == "force" or k != "top_k"}
        _check_options(self.backbone, asked, **options)
        return method(self, *args, **kwargs)

    return checked


def _check_options(
    backbone: Backbone,
    asked: Sequence[Question],
    *,
    visible: Visible = None,
    max_new_tokens: int = 1,
    top_k: int = 1,
    **_: Any,
) -> None:
    """Raise :class:`ConfigError` for an option of ``generate`` or ``force`` out of its range."""
    if visible is not None and len(visible) != len(asked):
        raise ConfigError(f"visible has {len(visible)} rows for {len(asked)} questions")
    most = getattr(backbone, "vocab_size", top_k)
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}", remedy="give 1 or more")
    if not 1 <= top_k <= most:
        raise ConfigError(f"top_k is {top_k}", remedy=f"give 1 to {most}, the base model's tokens")


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
