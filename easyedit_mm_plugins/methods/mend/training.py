"""Training MEND's network; the base model is frozen, its distribution elsewhere is the target."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ...data import EditRecord
from ..mscke.losses import draw
from .config import MendTrainingHyperParams
from .losses import mend_losses, mend_total, weighed
from .model import Mend
from .sharing import SharesStatistics
from .transform import MendNetwork


class MendTrainer(SharesStatistics):
    """Trains ``editor`` on ``train`` and keeps the state that validates best on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: see :class:`MendTrainingHyperParams`.
        out_dir: see :class:`Trainer`.

    Raises:
        TrainingError: there are no records.
    """

    name: ClassVar[str] = "MEND"
    editor: Mend
    hparams: MendTrainingHyperParams

    def __init__(
        self,
        editor: Mend,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: MendTrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        modules = {"network": editor.network}
        super().__init__(editor, train, val, hparams, out_dir, modules)

    def statistics_of(self) -> MendNetwork:
        """The editor's."""
        return self.editor.network

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """See ``losses.py``; logged by kind of question."""
        drawn = draw(records, self.hparams.scope_questions, rng)
        by_kind, _ = mend_losses(self.editor, weighed(drawn, self.hparams))
        total = mend_total(by_kind, self.hparams)
        info = {f"loss/{kind}": float(loss.detach()) for kind, loss in by_kind.items()}
        return total, {"loss/total": float(total.detach()), **info}

    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """The loss, and by kind the share of answers that are right (in scope) or unmoved."""
        by_kind, right = mend_losses(self.editor, draw(records, self.hparams.scope_questions))
        values: dict[str, list[float]] = defaultdict(list)
        # weighted by their number: the last batch may be smaller
        values["loss/total_edit_val"] += [float(mend_total(by_kind, self.hparams))] * len(records)
        for kind, found in right.items():
            values[f"right/{kind}"] += found
        return values

    def validate(self) -> dict[str, float]:
        """As :class:`Trainer` does, with ``right/specificity`` (MSCKE eq. 12), teacher-forced."""
        metrics = super().validate()
        if {"right/in_scope", "right/out_scope"} <= set(metrics):
            both = metrics["right/in_scope"] + metrics["right/out_scope"]
            metrics["right/specificity"] = both / 2
        return metrics

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The networks' parameters, and the modules' learned rates at a rate of their own."""
        return mend_groups(self.editor.network, self.hparams.lr, self.hparams.lr_lr)


def mend_groups(network: MendNetwork, lr: float, lr_lr: float) -> list[dict[str, Any]]:
    """Optimiser groups of a network."""
    inner = [p for name, p in network.named_parameters() if name != "edit_lrs"]
    return [{"params": inner, "lr": lr}, {"params": [network.edit_lrs], "lr": lr_lr}]
