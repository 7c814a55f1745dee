"""Training KE's hypernetwork by constrained optimisation (De Cao et al. 2021, section 3).

An edit and its rewordings shall get the new answer, at a cost to other answers of no more than a
margin: the smallest nll under KL(base || edited) <= m. In Lagrange's way, the network descends and
the multiplier alpha >= 0 climbs on

    nll + alpha (KL - m).

Once edits are made (in 90 of 100 cases of a validation), the margin shrinks after each validation.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data import EditRecord
from ...data.records import INSIDE
from ..mend.losses import kind_weight, mend_losses, weighed
from ..mscke.losses import draw
from ..training import Trainer
from .config import KETrainingHyperParams
from .model import KE

ENOUGH = 0.9  # of a validation's edits are made: the margin shrinks


class Constraint(nn.Module):
    """The Lagrange multiplier and the margin.

    Args:
        margin: at the beginning.
    """

    margin: Tensor

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.alpha.register_hook(torch.neg)  # it climbs where the network descends
        self.register_buffer("margin", torch.tensor(margin))

    def forward(self, cost: Tensor) -> Tensor:
        """alpha (cost - margin)."""
        return self.alpha * (cost - self.margin)


def sides(losses: Mapping[str, Tensor], hparams: Any) -> tuple[Tensor, Tensor]:
    """The nll in scope and the KL outside, each the weighted mean over its kinds of questions."""
    zero = torch.zeros((), device=next(iter(losses.values())).device)
    found = []
    for inside in (True, False):
        kinds = [k for k in losses if (k in INSIDE) == inside and kind_weight(k, hparams)]
        whole = sum(kind_weight(k, hparams) for k in kinds)
        parts = (kind_weight(k, hparams) / whole * losses[k] for k in kinds)
        found.append(reduce(torch.add, parts, zero))
    return found[0], found[1]


class KETrainer(Trainer):
    """Trains ``editor`` on ``train`` and keeps the state that validates best on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: see :class:`KETrainingHyperParams`.
        out_dir: see :class:`Trainer`.

    Raises:
        TrainingError: there are no records.
    """

    name: ClassVar[str] = "KE"
    editor: KE
    hparams: KETrainingHyperParams

    def __init__(
        self,
        editor: KE,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: KETrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        self.constraint = Constraint(hparams.margin_kl_max).to(editor.backbone.device)
        modules = {"network": editor.network, "constraint": self.constraint}
        super().__init__(editor, train, val, hparams, out_dir, modules)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network, and the multiplier at a rate of its own."""
        network = list(self.editor.network.parameters())
        multiplier = {"params": [self.constraint.alpha], "lr": self.hparams.lr_alpha}
        return [{"params": network, "lr": self.hparams.lr}, multiplier | {"weight_decay": 0.0}]

    def train_step(self) -> dict[str, float]:
        """See :class:`Trainer`; the multiplier stays at 0 or above."""
        info = super().train_step()
        with torch.no_grad():
            self.constraint.alpha.clamp_(min=0)
        return info

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The Lagrangian; logged with its parts, the multiplier, and by kind of question."""
        drawn = draw(records, self.hparams.scope_questions, rng)
        by_kind, _ = mend_losses(self.editor, weighed(drawn, self.hparams))
        nll, cost = sides(by_kind, self.hparams)
        total = nll + self.constraint(cost)
        info = {f"loss/{kind}": float(loss.detach()) for kind, loss in by_kind.items()}
        info |= {"loss/nll": float(nll.detach()), "loss/kl": float(cost.detach())}
        info["alpha"] = float(self.constraint.alpha.detach())
        return total, {"loss/total": float(total.detach()), **info}

    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """Both sides of the loss, and by kind the share of answers that are right or unmoved."""
        drawn = weighed(draw(records, self.hparams.scope_questions), self.hparams)
        by_kind, right = mend_losses(self.editor, drawn)
        nll, cost = sides(by_kind, self.hparams)
        values: dict[str, list[float]] = defaultdict(list)
        # weighted by their number: the last batch may be smaller
        values["loss/nll"] += [float(nll)] * len(records)
        values["loss/kl"] += [float(cost)] * len(records)
        for kind, found in right.items():
            values[f"right/{kind}"] += found
            values["right/inside" if kind in INSIDE else "right/outside"] += found
        return values

    def validate(self) -> dict[str, float]:
        """As :class:`Trainer` does, with ``right/both``, the mean of both sides."""
        metrics = super().validate()
        found = [metrics[k] for k in ("right/inside", "right/outside") if k in metrics]
        return metrics | {"right/both": sum(found) / len(found)}

    def _judge(self, metrics: dict[str, float]) -> bool:
        hp, margin = self.hparams, self.constraint.margin
        if metrics.get("right/edit", 0.0) > ENOUGH:
            margin.copy_((margin * hp.margin_decay).clamp(min=hp.margin_kl_min))
        return super()._judge(metrics)

    def _load_best(self) -> None:
        constraint = self.modules.pop("constraint")  # no part of the editor
        super()._load_best()
        self.modules["constraint"] = constraint
