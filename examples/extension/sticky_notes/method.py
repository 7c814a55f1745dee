"""Sticky notes: an edit answers the questions about its picture whose words resemble its own.

The simplest method that can be trained: training chooses how many words must be shared. It does not
know that two differently worded questions may be about the same thing; its Specificity shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from easyedit_mm_plugins.backbones import Backbone
from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods import Answer, Forced, MethodEntry, Unedited
from easyedit_mm_plugins.methods.checkpoint import read_header, write_header
from easyedit_mm_plugins.methods.settings import ModelHParams, Share, settings_class


@settings_class
class StickyNotesHyperParams(ModelHParams):
    """Settings for editing; the fields of :class:`ModelHParams` say which base model."""

    share: Share | None = None
    """Words of edit and question that must be shared; null: what training found, else 0.5."""

    _alg: ClassVar[str] = "STICKY-NOTES"
    _title: ClassVar[str] = "sticky notes"


@settings_class
class StickyNotesTrainingHyperParams(StickyNotesHyperParams):
    """Settings for training."""

    candidates: list[float] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # type: ignore[assignment]
    """Values of ``share`` to choose from."""
    alg: str = "STICKY-NOTES"
    """EasyEdit: the method, in files for training."""

    _name_key: ClassVar[str] = "alg"


def shared(edit: Question, question: Question) -> float:
    """Of all words of both texts, the share that both have; 0 if the pictures differ."""
    if str(edit.image) != str(question.image):
        return 0.0
    ours, theirs = (set(q.text.lower().strip("?. ").split()) for q in (edit, question))
    return len(ours & theirs) / max(1, len(ours | theirs))


class StickyNotes(Unedited):
    """Its edits are kept as :class:`Unedited` keeps them; a row sees its own edits only."""

    name = "sticky-notes"

    def __init__(self, backbone: Backbone, share: float = 0.5) -> None:
        super().__init__(backbone)
        self.share = share

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe; their ``share`` wins over a trained editor's."""
        made = cls(backbone)
        if settings.archive is not None:
            made = cls.from_pretrained(settings.archive, backbone)
        if settings.share is not None:
            made.share = settings.share
        return made

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An editor that :meth:`save_pretrained` wrote."""
        return cls(backbone, read_header(folder, cls.name, needed=("share",))["share"])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, which is all there is."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_header(folder, self.name, share=self.share)

    def route(self, questions: Sequence[Question], visible: Any) -> list[tuple[str | None, float]]:
        """For each question the edit that answers it, and how many words they share."""
        edits, found = self.edits, []
        for row, question in enumerate(questions):
            seen = edits if visible is None else [i for i in edits if i in visible[row]]
            scores = {i: shared(edits[i], question) for i in seen}
            best = max(scores, key=lambda i: scores[i], default=None)
            score = scores[best] if best is not None else 0.0
            found.append((best if best is not None and score >= self.share else None, score))
        return found

    def generate(self, questions, *, visible=None, max_new_tokens=8, **kwargs):
        """See :class:`Editor`."""
        edits = self.edits
        base = super().generate(questions, max_new_tokens=max_new_tokens, **kwargs)
        return [
            Answer(answer.text if route is None else edits[route].answer, route, score)
            for answer, (route, score) in zip(base, self.route(questions, visible), strict=True)
        ]

    def force(self, questions, *, visible=None, top_k=1):
        """See :class:`Editor`: in scope the most likely tokens are those of the edit's answer."""
        edits, rows = self.edits, []
        forced = super().force(questions, top_k=top_k)
        for row, (route, score) in zip(forced, self.route(questions, visible), strict=True):
            if route is not None:
                said = self.backbone.answer_ids(edits[route].answer)
                said = (said + said[-1:] * len(row.target_ids))[: len(row.target_ids)]
                top = torch.cat([torch.tensor(said)[:, None], row.top_ids[:, : top_k - 1]], dim=1)
                row = Forced(row.target_ids, top, route, score)
            rows.append(row)
        return rows

    def describe(self) -> dict[str, Any]:
        """What belongs beside a result."""
        return {"share": self.share}


class StickyNotesTrainer:
    """Chooses ``share`` on the training records: in scope against out of scope and text only."""

    def __init__(
        self,
        editor: StickyNotes,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        settings: StickyNotesTrainingHyperParams,
        folder: str | Path,
    ) -> None:
        self.editor, self.train, self.val = editor, list(train), list(val)
        self.hparams, self.out_dir = settings, Path(folder)
        self.editor_folder = self.out_dir / "best"
        self.listeners: list[Any] = []  # told (step, values), as the package's own trainers do

    def run(self) -> dict[str, float]:
        """Train, write the best editor, and validate it."""
        right = {c: self._right(self.train, c) for c in self.hparams.candidates}
        self.editor.share = max(right, key=lambda c: right[c])
        self.editor.save_pretrained(self.editor_folder)
        write_json(
            self.out_dir / "history.json", [{"share": c, "right": r} for c, r in right.items()]
        )
        for step, value in enumerate(right.values()):
            for listener in self.listeners:
                listener(step, {"right/train": value})
        return self.validate()

    def validate(self) -> dict[str, float]:
        """The share of questions whose scope is decided rightly."""
        return {"right/val": self._right(self.val, self.editor.share)}

    @staticmethod
    def _right(records: Sequence[EditRecord], share: float) -> float:
        sides = [
            (shared(r.edit, q) >= share) == inside
            for r in records
            for inside, questions in (
                (True, (*r.rephrase, *r.in_scope)),
                (False, (*r.out_scope, *r.text_loc)),
            )
            for q in questions
        ]
        return sum(sides) / max(1, len(sides))


ENTRY = MethodEntry(
    name="sticky-notes",
    title="Sticky notes",
    order=900,
    paper="none: an example",
    easyedit="STICKY-NOTES",
    editor=StickyNotes,
    settings=StickyNotesHyperParams,
    training=StickyNotesTrainingHyperParams,
    trainer=StickyNotesTrainer,
    trained=False,
)
