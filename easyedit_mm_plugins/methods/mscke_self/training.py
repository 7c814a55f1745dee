"""Training MSCKE-Self's two heads. The base model is frozen and asked each question once."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data import EditRecord
from ..mscke.losses import BatchQuery, Drawn
from ..mscke.training import MSCKETrainer
from .calibration import of_records
from .config import MSCKESelfTrainingHyperParams
from .losses import PAIR, Frozen, picture_loss, scope_losses, weighed
from .model import MSCKESelf

LOG = logging.getLogger(__name__)
_PICTURE = ("place.", "picture.", "log_temperature")


class MSCKESelfTrainer(MSCKETrainer):
    """:class:`MSCKETrainer` for heads on the frozen base model; a validation also sets thresholds.

    Args, Raises: as there.
    """

    name: ClassVar[str] = "MSCKE-SELF"
    editor: MSCKESelf  # type: ignore[assignment]
    hparams: MSCKESelfTrainingHyperParams  # type: ignore[assignment]

    def __init__(
        self,
        editor: MSCKESelf,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: MSCKESelfTrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        super().__init__(editor, train, val, hparams, out_dir)
        self.frozen = Frozen(editor.backbone, editor.scope, hparams.cache_mib * 2**20)
        self.pairs: dict[str, list[EditRecord]] = defaultdict(list)
        for record in (*self.train, *self.val):
            if record.pair is not None:
                self.pairs[record.pair].append(record)

    def draw(self, records: Sequence[EditRecord], rng: random.Random | None = None) -> Drawn:
        """As MSCKE draws, with questions of the other record of each pair.

        They are on another picture. Of an edit that is bound to the thing those about the same
        thing are in scope, and near pictures count where the thing itself differs.
        """
        drawn = super().draw(records, rng)
        thing = self.editor.scope.config.binding == "thing"
        for i, record in enumerate(records):
            for other in self.pairs.get(record.pair or "", ()):
                if other is not record:
                    own = [
                        (kind, question)
                        for kind in ("edit", "in_scope", "out_scope")
                        for question in other.questions()[kind]
                    ]
                    kind, question = rng.choice(own) if rng else own[0]
                    drawn.queries.append(BatchQuery(i, kind if thing else PAIR, question))
        if thing:
            drawn.queries = [
                a
                for a in drawn.queries
                if a.kind != "image_near" or a.question.text == drawn.edits[a.record].text
            ]
        return drawn

    def scope_loss(self, drawn: Drawn) -> tuple[Tensor, dict[str, list[bool]]]:
        """The loss of both heads; what is routed right, :meth:`validate` finds out."""
        scope = self.editor.scope
        losses = scope_losses(scope, self.frozen, drawn)
        if scope.config.binding == "picture":
            found = picture_loss(scope, self.frozen, drawn)
            if found is not None:
                losses["picture"] = found
        return weighed(losses, self.hparams), {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The means, and which share is routed right with all validation records' edits in force;
        the editor gets the thresholds that are best for that."""
        metrics = super().validate()
        if "scope" in self.parts:
            records = self.val[: self.hparams.val_steps]
            # Edits of one thing are many, and bound to it they contradict each other.
            edits = 1 if self.editor.scope.config.binding == "thing" else None
            found = of_records(self.editor.scope, records, self.frozen.keys, edits=edits)
            self.editor.take(found)
            metrics |= {f"scope/{kind}": share for kind, share in found.right.items()}
            metrics["scope/balanced"] = found.balanced_accuracy
        return metrics

    def scope_groups(self, scope: nn.Module) -> list[dict[str, Any]]:
        """The scope head and the picture key, each with its rate."""
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in scope.named_parameters():
            groups[name.startswith(_PICTURE)].append(parameter)
        found = [{"params": groups[False], "lr": self.hparams.lr}]
        if self.editor.scope.config.binding == "picture":
            found.append({"params": groups[True], "lr": self.hparams.picture_lr})
        return found
