"""IKE as a baseline: EasyEdit's own demonstrations and retrieval, in front of a frozen backbone.

Its code writes and reads the demonstrations and picks them for an edit (``retrieval.py``). The
prompt is the one that its evaluation puts together: the demonstrations, then the edit as a new fact
and the question (``methods/in_context.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from ...backbones.base import Backbone
from ...backbones.splice import Row, answer_logits, assemble
from ...core.errors import ConfigError
from ...data import EditRecord, Question
from ...host import easyedit as host
from ..base import Answer, Editor, Forced, Visible
from ..checkpoint import read_header, write_header
from ..in_context import Context, fact, facts, rows_in_context
from ..sentences import CACHE, SentenceEncoder
from ..settings import build
from ..store import InForce, Kept
from .config import IKEHyperParams, shipped_hparams, training_records
from .retrieval import Demonstrations


class IKE(Editor):
    """In-context editing: nothing is trained, nothing is changed, the edit stands in the prompt.

    There is no scope decision: every question is answered under an edit, of several that it may
    see under the one whose question and answer resemble it most by the sentence encoder.

    Args:
        backbone: the base model.
        train: records to demonstrate with, ``"scenes"``, or a JSON file in FGVEdit's schema; by
            default what ``hparams.task_name`` says.
        hparams: by default those shipped for the backbone.
        corpus: how many records are demonstrated with, at most.
        cache: folder for embeddings.

    Raises:
        ConfigError: no hparams for the backbone, no training records, or none of use.
        DataError: a training file that cannot be read.
        BackboneError: the sentence encoder cannot be loaded.
        BridgeError: EasyEdit is not installed, or does not import.
    """

    name = "ike"
    isolates_rows: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        train: Sequence[EditRecord] | str | Path | None = None,
        *,
        hparams: IKEHyperParams | None = None,
        corpus: int = 1000,
        cache: str | Path = CACHE,
    ) -> None:
        super().__init__(backbone)
        self.hparams = hparams or shipped_hparams(backbone)
        self.corpus = corpus
        self.source = train if isinstance(train, (str, Path)) else self.hparams.task_name
        self.encoder: SentenceEncoder | None = None
        self.demonstrations: Demonstrations | None = None
        if self.hparams.k:
            records = training_records(self.source if train is None else train, corpus, backbone)
            self.encoder = SentenceEncoder(self.hparams.sentence_model_name, cache)
            self.demonstrations = Demonstrations(host.load(), records, self.encoder)

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """An editor with these settings, on the records that ``task_name`` names."""
        return cls(backbone, hparams=settings)

    def encode(self, edits: Sequence[Question]) -> Kept:
        """See :class:`Editor`: each edit's demonstrations."""
        return Kept(payloads=[self._context(edit) for edit in edits])

    def _context(self, edit: Question) -> list[str]:
        """Demonstrations, nearest first; the edit's own copy; the new fact, up to the question."""
        new = facts([edit]).text
        if self.demonstrations is None:
            return [f"{new}{fact(edit)}\n\n", new]
        return [*self.demonstrations.retrieve(edit.text, edit.answer, self.hparams.k), new]

    # Answers ----------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers after the demonstrations, greedy by default."""
        if not questions:
            return []
        now, base = self.store.now, self.backbone
        routes = self._route(now, questions, visible)
        rows = self._rows(now, questions, routes, max_new_tokens)
        ids = base.generate_ids(assemble(rows, base.embed), max_new_tokens=max_new_tokens, **kwargs)
        return [Answer(text, i) for text, i in zip(base.decode(ids), routes, strict=True)]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions after the demonstrations."""
        if not questions:
            return []
        now, base = self.store.now, self.backbone
        routes = self._route(now, questions, visible)
        rows = self._rows(now, questions, routes, 0, with_answers=True)
        logits = answer_logits(base.language_model, assemble(rows, base.embed))
        return [
            Forced(row.answer, scores.topk(top_k, dim=-1).indices.cpu(), i)
            for row, scores, i in zip(rows, logits, routes, strict=True)
        ]

    def _route(
        self, now: InForce, questions: Sequence[Question], visible: Visible
    ) -> list[str | None]:
        """The edit that each question is answered under, ``None`` where it may see none."""
        if visible is not None and len(visible) != len(questions):
            raise ConfigError(f"visible has {len(visible)} rows for {len(questions)} questions")
        routes: list[str | None] = []
        for row, question in enumerate(questions):
            seen = now.seen_by(None if visible is None else visible[row])
            routes.append(self._nearest(now, question, seen) if len(seen) > 1 else (*seen, None)[0])
        return routes

    def _nearest(self, now: InForce, question: Question, ids: Sequence[str]) -> str:
        if self.encoder is None:
            self.encoder = SentenceEncoder(self.hparams.sentence_model_name)
        texts = [fact(now.edits[i]) for i in ids]
        vectors = torch.stack(
            [torch.from_numpy(self.encoder.encode(text)) for text in (question.text, *texts)]
        )
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return ids[int((vectors[1:] @ vectors[0]).argmax())]

    def _rows(
        self,
        now: InForce,
        questions: Sequence[Question],
        routes: Sequence[str | None],
        room: int,
        *,
        with_answers: bool = False,
    ) -> list[Row]:
        """Each question behind its edit's demonstrations, or as the base model has it.

        Raises:
            DataError: a row and ``room`` more tokens do not fit into the context window; says how
                many demonstrations would.
        """
        plain = self.backbone.rows(questions, with_answers=with_answers)
        contexts = [None if edit is None else _shown(now.payloads[edit]) for edit in routes]
        return rows_in_context(
            self.backbone, questions, plain, contexts, room, parts="IKE's demonstrations"
        )

    # On disk ----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Whose code retrieves, how many demonstrations of what."""
        shown = self.demonstrations
        return {
            "k": self.hparams.k,
            "sentence_model": self.hparams.sentence_model_name,
            "demonstrations": 0 if shown is None else len(shown.sentences),
            "retrieval": f"IKE of EasyEdit ({host.load().generation})" if shown else None,
        }

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write what :meth:`from_pretrained` needs: settings, and where the records lie.

        Raises:
            ConfigError: the training records were given as objects, not by name or file.
        """
        if not self.source:
            raise ConfigError(
                "IKE's training records have no name to save", remedy="give train a file's path"
            )
        kept: dict[str, Any] = {"hparams": self.hparams.to_dict(), "train": str(self.source)}
        write_header(folder, self.name, **kept, corpus=self.corpus)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An editor with the settings in ``folder``/config.json; there is nothing trained to load.

        Raises:
            CheckpointError: the file is missing or malformed.
        """
        config = read_header(folder, cls.name, needed=("hparams", "train", "corpus"))
        where = str(Path(folder) / "config.json")
        hparams = build(IKEHyperParams, config["hparams"], where)
        return cls(backbone, config["train"], hparams=hparams, corpus=config["corpus"])


def _shown(texts: Sequence[str]) -> Context:
    """Demonstrations, which may be left out; the edit's own copy and the new fact may not."""
    *demonstrations, own, new = texts
    return Context(tuple(demonstrations), own + new)
