"""Training VisEdit: DualEdit's losses, and the influence's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from ...data import EditRecord
from ..dualedit import DualEditTrainer
from ..dualedit.frozen import KeyedQuestion
from ..dualedit.losses import draw
from .influence import influence_losses, measured_influence
from .model import VisEdit, VisEditTrainingHyperParams


class VisEditTrainer(DualEditTrainer):
    """Trains ``editor`` on ``train`` and keeps the state of smallest loss on ``val``.

    Arguments as for :class:`DualEditTrainer`.
    """

    name: ClassVar[str] = "VISEDIT"
    editor: VisEdit
    hparams: VisEditTrainingHyperParams

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Eq. 5's terms and, with their weight, those of the influence."""
        hp = self.hparams
        rng = rng or random.Random(0)
        whole, info = super().batch_loss(records, rng)
        asked = draw(records)
        terms = influence_losses(self.editor, self.store, asked, self._targets(asked, rng))
        own = reduce(torch.add, terms.values())
        info["loss/influence"] = float(own.detach())
        whole = whole + hp.influence_loss * own
        info["loss/total"] = float(whole.detach())
        return whole, info

    def _targets(
        self, asked: Sequence[KeyedQuestion], rng: random.Random
    ) -> dict[int, tuple[Tensor, Tensor]]:
        """Measured influence on some edits of the batch."""
        hp, targets = self.hparams, {}
        edits = [a for a in asked if a.kind == "edit" and a.question.image is not None]
        for a in edits[: hp.influence_records]:
            row = self.store.get([a])[0]
            index = row.image.nonzero().flatten()
            chosen = rng.sample(range(len(index)), min(hp.influence_tokens, len(index)))
            places = index[torch.tensor(chosen, device=index.device)]
            targets[a.record] = (
                places,
                measured_influence(
                    *(self.editor, row, places, hp.influence_sigma),
                    plain=self.store.plain,
                    seed=rng.getrandbits(31),
                ),
            )
        return targets
