"""LTE as an editor: edits found for a question stand before it, and a model taught to follows them.

The paper's edited model is the aligned one for every question, and its unedited model the aligned
one with nothing before the question. Here the unedited model is the base model itself: the adapter
works on questions behind an edit alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...data import Question
from ..base import Answer, Editor, Forced, Visible, force_with_base
from ..checkpoint import AGAIN, read_config, read_header, write_header
from ..edit_file import SavedEdits
from ..keys import Near
from ..mscke.model import part_folders
from ..newest import newest
from ..settings import Count, checked
from ..store import InForce, Kept
from .reader import FactReader
from .retrieval import Retrieval, retrieval_for, saved_retrieval


class LTE(Editor):
    """See the module's docstring.

    Args:
        backbone: the base model; never changed.
        reader: answers behind edits.
        retrieval: which edits stand before a question.
        k: at most so many of them.

    Raises:
        ConfigError: ``k`` is less than 1.
    """

    name = "lte"
    isolates_rows: ClassVar[bool] = True

    def __init__(
        self, backbone: Backbone, reader: FactReader, retrieval: Retrieval, k: int = 3
    ) -> None:
        super().__init__(backbone, retrieval.store())
        self.reader, self.retrieval, self.k = reader.eval(), retrieval, checked(Count, k, "k")

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe; a trained adapter keeps its own shape.

        Raises:
            BackboneError, CheckpointError, ConfigError: see :func:`retrieval_for`.
        """
        if settings.archive is None:
            reader = FactReader.from_settings(backbone, settings)
            return cls(backbone, reader, retrieval_for(settings, backbone), settings.k)
        config, at = _saved(settings.archive, backbone)
        reader = FactReader.from_pretrained(at["adapter"], backbone)
        if settings.retrieval == config["retrieval"] == "self" and settings.scope_of is None:
            retrieval = saved_retrieval(at["scope"], config, backbone)
        else:
            retrieval = retrieval_for(settings, backbone)
        return cls(backbone, reader, retrieval, settings.k)

    def encode(self, edits: Sequence[Question]) -> Kept:
        """The key of each edit."""
        return Kept(self.retrieval.keys(edits))

    # Answers ----------------------------------------------------------------------------------

    def retrieve(
        self, questions: Sequence[Question], *, visible: Visible = None
    ) -> list[list[Near]]:
        """For each question the edits that stand before it, the nearest first."""
        return self._found(self.store.now, questions, visible)

    @torch.no_grad()
    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers behind the edits found; where there are none, the base model's own."""
        kwargs["max_new_tokens"] = max_new_tokens
        with self.store.held() as now:
            found = self._found(now, questions, visible)
        answers: dict[int, Answer] = {}
        told, rest = _split(found)
        if told:
            texts = self.reader.generate(
                self._facts(now, found, told), [questions[i] for i in told], **kwargs
            )
            for i, text in zip(told, texts, strict=True):
                answers[i] = Answer(text, *found[i][0])
        if rest:
            texts = self.backbone.generate([questions[i] for i in rest], **kwargs)
            answers |= {i: Answer(text) for i, text in zip(rest, texts, strict=True)}
        return [answers[i] for i in range(len(questions))]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions, behind what :meth:`generate` has before the question."""
        with self.store.held() as now:
            found = self._found(now, questions, visible)
        forced: dict[int, Forced] = {}
        told, rest = _split(found)
        if told:
            asked = [questions[i] for i in told]
            tops = self.reader.top_ids(self._facts(now, found, told), asked, top_k)  # type: ignore[arg-type]
            for i, top in zip(told, tops, strict=True):
                ids = self.backbone.answer_ids(questions[i].answer)
                forced[i] = Forced(ids, top.cpu(), *found[i][0])
        if rest:
            rows = force_with_base(self.backbone, [questions[i] for i in rest], top_k)
            forced |= dict(zip(rest, rows, strict=True))
        return [forced[i] for i in range(len(questions))]

    def _found(
        self, now: InForce, questions: Sequence[Question], visible: Visible
    ) -> list[list[Near]]:
        """See :meth:`retrieve`; of edits of one meaning the newest stands for all."""
        if visible is not None and len(visible) != len(questions):
            raise ConfigError(f"visible has {len(visible)} rows for {len(questions)} questions")
        if not now.edits or not questions:
            return [[] for _ in questions]
        found = self.retrieval.find(now, questions, visible, self.k)
        if not now.newer:
            return found
        kept = []
        for row, near in enumerate(found):
            own = None if visible is None else visible[row]
            scores: dict[str, float] = {}
            for edit_id, score in near:
                scores.setdefault(newest(now.newer, edit_id, own), score)
            kept.append([Near(*item) for item in scores.items()])
        return kept

    @staticmethod
    def _facts(
        now: InForce, found: Sequence[Sequence[Near]], rows: Sequence[int]
    ) -> list[list[Question]]:
        return [[now.edits[near.id] for near in found[i]] for i in rows]

    def describe(self) -> dict[str, Any]:
        """What is retrieved how, and the adapter."""
        return {"k": self.k, **self.retrieval.describe(), "adapter": self.reader.describe()}

    # On disk ----------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | Path, *, half: bool = True, parts: Mapping[str, str] | None = None
    ) -> None:
        """Write the adapter as peft's files, a scope that retrieves, and ``config.json``, last.

        Args:
            folder: made if absent.
            half: store weights as fp16; ``False`` keeps every bit.
            parts: parts that lie elsewhere ("adapter", "scope"): their path as seen from
                ``folder``, which is noted instead of writing them again.
        """
        folder, further = Path(folder), {"parts": dict(parts)} if parts else {}
        for name, part in (("adapter", self.reader), ("scope", self.retrieval)):
            if name not in (parts or {}):
                part.save_pretrained(folder / name, half=half)
        settings = {"k": self.k, **self.retrieval.describe(), **further}
        write_header(folder, self.name, self.backbone, **settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An editor saved by :meth:`save_pretrained`, for the backbone it was trained on.

        Raises:
            CheckpointError: something is missing or damaged, or the editor is for another backbone.
            BackboneError: its text encoder cannot be loaded.
        """
        config, at = _saved(folder, backbone)
        reader = FactReader.from_pretrained(at["adapter"], backbone)
        retrieval = saved_retrieval(at["scope"], config, backbone)
        try:
            return cls(backbone, reader, retrieval, config["k"])
        except ConfigError as error:
            where = Path(folder) / "config.json"
            raise CheckpointError(f"{where}: {error}", remedy=AGAIN) from error

    def made_by(self) -> str:
        """What made the keys."""
        return f"{self.retrieval.kind} retrieval {self.retrieval.fingerprint()}"

    def unpack(self, saved: SavedEdits) -> Kept:
        """The saved keys; nothing is encoded again."""
        return Kept(saved.keys(self.store.now.keys.shape[1]))


class LTESelf(LTE):
    """:class:`LTE` with MSCKE-Self's scope (``retrieval: self``), as a method by name; ours."""

    name = "lte-self"

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """See :meth:`LTE.from_hparams`; ``archive`` may be an LTE's folder."""
        return super().from_hparams(settings.replace(retrieval="self"), backbone)


def _saved(folder: str | Path, backbone: Backbone) -> tuple[dict[str, Any], dict[str, Path]]:
    """The ``config.json`` of a saved editor, LTE or LTE-Self, and where its parts lie.

    Raises:
        CheckpointError: it is missing or damaged, another method's or for another backbone.
    """
    folder = Path(folder)
    method = read_config(folder / "config.json", ("method",))["method"]
    name = LTESelf.name if method == LTESelf.name else LTE.name
    config = read_header(folder, name, backbone, ("k", "retrieval"))
    return config, part_folders(folder, config, ("adapter", "scope"))


def _split(found: Sequence[Sequence[Near]]) -> tuple[list[int], list[int]]:
    """The rows with edits before them, and the others."""
    told = [i for i, near in enumerate(found) if near]
    return told, [i for i, near in enumerate(found) if not near]
