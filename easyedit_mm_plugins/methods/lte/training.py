"""Teaching LTE's adapter; the base model is frozen, and its answers are the target out of scope."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...data import EditRecord, Question
from ...data.matching import normalise
from ..mscke.losses import draw
from ..training import Trainer
from .config import LTETrainingHyperParams
from .losses import Lesson, lesson_losses, lessons, total_loss
from .model import LTE
from .retrieval import TextRetrieval

_NEAREST = 5  # of the edits like a record's own, those that may stand after it (released: 5)


class LTETrainer(Trainer):
    """Trains ``editor`` on ``train`` and keeps the state that validates best on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: see :class:`LTETrainingHyperParams`.
        out_dir: see :class:`Trainer`.

    Raises:
        TrainingError: there are no records.
    """

    name: ClassVar[str] = "LTE"
    editor: LTE
    hparams: LTETrainingHyperParams

    def __init__(
        self,
        editor: LTE,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: LTETrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        super().__init__(editor, train, val, hparams, out_dir, {"adapter": editor.reader})

    # What stands before a record's questions --------------------------------------------------

    @cached_property
    def _all(self) -> tuple[list[EditRecord], Tensor, Tensor]:
        """All records, the keys ``[N, Z]`` of their edits, and a number ``[N]`` for each one's
        words: edits of the same words are never put after one another."""
        records = [*self.train, *self.val]
        keys = self.editor.retrieval.keys([record.edit for record in records])
        numbers: dict[str, int] = {}
        words = [
            numbers.setdefault(normalise(record.edit.text), len(numbers)) for record in records
        ]
        return records, keys, torch.tensor(words)

    @cached_property
    def _place(self) -> dict[int, int]:
        return {id(record): place for place, record in enumerate(self._all[0])}

    def facts(self, record: EditRecord, rng: random.Random | None) -> list[Question]:
        """The record's edit, and with ``rng`` perhaps some of the nearest others after it."""
        hp, own = self.hparams, [record.edit]
        if rng is None or hp.k == 1 or not isinstance(self.editor.retrieval, TextRetrieval):
            return own
        if rng.random() < hp.alone:
            return own
        records, keys, words = self._all
        place = self._place[id(record)]
        near = (keys @ keys[place]).masked_fill(words == words[place], float("-inf"))
        values, found = near.topk(min(_NEAREST, len(near)))
        others = [int(i) for i, value in zip(found, values, strict=True) if value > float("-inf")]
        chosen = rng.sample(others, min(rng.randint(1, hp.k - 1), len(others)))
        return own + [records[i].edit for i in sorted(chosen, key=others.index)]

    def lessons(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> list[Lesson]:
        """What a batch teaches; without ``rng`` the first questions of each kind, edits alone."""
        facts = [self.facts(record, rng) for record in records]
        drawn = draw(records, self.hparams.scope_questions, rng)
        return lessons(drawn, facts, self.hparams.plain, rng)

    # The loop ---------------------------------------------------------------------------------

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """See ``losses.py``; logged with the share of answers that are right."""
        found = self.lessons(records, rng)
        loss, right = lesson_losses(self.editor.reader, found, self.hparams.max_length)
        total = total_loss(loss, found, self.hparams.cloc)
        share = sum(right) / len(right)
        return total, {"loss/total": float(total.detach()), "right": share}

    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """The loss, and by kind the share of answers that are the edit's or the base model's."""
        found = self.lessons(records)
        loss, right = lesson_losses(self.editor.reader, found, self.hparams.max_length)
        values: dict[str, list[float]] = defaultdict(list)
        # weighted by their number: the last batch may be smaller
        values["loss/total_val"] += [float(total_loss(loss, found, self.hparams.cloc))] * len(
            records
        )
        for lesson, is_right in zip(found, right, strict=True):
            values[f"right/{lesson.kind}"].append(float(is_right))
        return values

    def validate(self) -> dict[str, float]:
        """As :class:`Trainer` does, with ``right/mean``, over the kinds of questions."""
        metrics = super().validate()
        shares = [value for key, value in metrics.items() if key.startswith("right/")]
        return {**metrics, "right/mean": sum(shares) / len(shares)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The adapters."""
        return [{"params": list(self.editor.reader.parameters()), "lr": self.hparams.lr}]

    def _load_best(self) -> None:
        self.editor.reader.load(self.out_dir / "best/adapter")
