"""Training MSCKE's scope classifier and counterfactual model, together or apart."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...data import EditRecord
from ..training import Trainer
from .config import MSCKETrainingHyperParams
from .losses import (
    Drawn,
    counterfactual_losses,
    counterfactual_total,
    draw,
    scope_losses,
    scope_total,
)
from .model import MSCKE

_RIGHT = {"cls": "scope", "cfr": "cfr"}  # by a loss's name the metric of what is right


def with_balance(metrics: dict[str, float]) -> dict[str, float]:
    """``metrics`` with ``scope/balanced``, the mean of both sides' routing accuracy."""
    sides = [metrics.get(f"scope/{side}_scope") for side in ("in", "out")]
    known = [value for value in sides if value is not None]
    return {**metrics, "scope/balanced": sum(known) / 2} if len(known) == 2 else metrics


class MSCKETrainer(Trainer):
    """Trains ``editor`` on ``train`` and keeps the state that validates best on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: see :class:`MSCKETrainingHyperParams`.
        out_dir: see :class:`Trainer`.

    Raises:
        ConfigError: the counterfactual model cannot be trained here.
        TrainingError: there are no records.
    """

    name: ClassVar[str] = "MSCKE"
    editor: MSCKE
    hparams: MSCKETrainingHyperParams

    def __init__(
        self,
        editor: MSCKE,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: MSCKETrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        self.parts = ("scope", "counterfactual") if hparams.train == "both" else (hparams.train,)
        modules = self.part_modules(editor)
        if hparams.train == "scope":  # it learns no answer
            self.taught = ()
        super().__init__(editor, train, val, hparams, out_dir, modules)

    def part_modules(self, editor: MSCKE) -> dict[str, nn.Module]:
        """What is trained, by its folder in a saved editor."""
        if "counterfactual" in self.parts and not hasattr(editor.counterfactual, "nll"):
            raise ConfigError(
                f"the counterfactual model {editor.counterfactual.kind!r} is not trained here",
                remedy="set train: scope",
            )
        return {part: getattr(editor, part) for part in self.parts}

    def draw(self, records: Sequence[EditRecord], rng: random.Random | None = None) -> Drawn:
        """The queries of a batch, see :func:`draw`."""
        return draw(records, self.hparams.scope_questions, rng)

    def scope_loss(self, drawn: Drawn) -> tuple[Tensor, dict[str, list[bool]]]:
        """The scope's loss (eq. 11), and by kind which queries are routed right."""
        by_kind, right = scope_losses(self.editor.scope, drawn, self.editor.threshold)
        return scope_total(by_kind, self.hparams), right

    def answering_loss(
        self, drawn: Drawn, rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, list[Any]]]:
        """The counterfactual model's loss, and by kind which of its answers are right."""
        by_kind, right = counterfactual_losses(self.editor.counterfactual, drawn, rng)
        return counterfactual_total(by_kind, self.hparams), right

    def part_losses(
        self, drawn: Drawn, rng: random.Random | None = None
    ) -> dict[str, tuple[Tensor, dict[str, list[Any]]]]:
        """Loss and what is right, as above, of the parts that are trained, by the loss's name."""
        found: dict[str, tuple[Tensor, dict[str, list[Any]]]] = {}
        if "scope" in self.parts:
            found["cls"] = self.scope_loss(drawn)
        if "counterfactual" in self.parts:
            found["cfr"] = self.answering_loss(drawn, rng)
        return found

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The scope's loss plus the counterfactual model's nll, and what to log of it."""
        parts = self.part_losses(self.draw(records, rng), rng)
        total = reduce(torch.add, [loss for loss, _ in parts.values()])
        info = {f"loss/{name}": float(loss.detach()) for name, (loss, _) in parts.items()}
        return total, {**info, "loss/total": float(total.detach())}

    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """Losses, routing accuracy and exact answers by kind of question."""
        values: dict[str, list[float]] = defaultdict(list)
        total = 0.0
        for name, (loss, right) in self.part_losses(self.draw(records)).items():
            total += float(loss)
            values[f"loss/{name}_val"].append(float(loss))
            for kind, found in right.items():
                values[f"{_RIGHT[name]}/{kind}"] += found
        values["loss/total_val"].append(total)
        return values

    def validate(self) -> dict[str, float]:
        """As :class:`Trainer` does, with the routing's balanced accuracy."""
        return with_balance(super().validate())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The classifier's encoder may have a rate of its own, the counterfactual model too."""
        hp, groups = self.hparams, []
        if "scope" in self.modules:
            groups += self.scope_groups(self.modules["scope"])
        if "counterfactual" in self.modules:
            rate = hp.lr if hp.cfr_lr is None else hp.cfr_lr
            groups.append({"params": list(self.modules["counterfactual"].parameters()), "lr": rate})
        return groups

    def scope_groups(self, scope: nn.Module) -> list[dict[str, Any]]:
        """The classifier's own parameters and, slower or frozen, its encoder's."""
        hp = self.hparams
        own: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in scope.named_parameters():
            own[name.startswith("encoder.")].append(parameter)
        groups = [{"params": own[False], "lr": hp.lr}]
        slow = hp.lr * hp.encoder_lr_scale
        if own[True] and slow:
            groups.append({"params": own[True], "lr": slow})
        for parameter in () if slow else own[True]:
            parameter.requires_grad_(False)
        return groups
