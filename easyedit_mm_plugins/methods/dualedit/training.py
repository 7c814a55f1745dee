"""Training DualEdit's adapters. The base model is frozen, and so are its lower layers' outputs.

The loop, its checkpoints and its way of going on after a kill are :class:`MSCKETrainer`'s: all
that is random follows from the seed and the step. What differs is what a batch's loss is.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...data import EditRecord
from ...errors import TrainingError
from ..mscke.training import MSCKETrainer
from .config import DualEditTrainingHyperParams
from .frozen import FrozenStates
from .losses import GEN, LOC, REL, draw, losses, total
from .model import DualEdit


class DualEditTrainer(MSCKETrainer):
    """Trains ``editor`` on ``train`` and keeps the state of smallest loss on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: see :class:`DualEditTrainingHyperParams`.
        out_dir: gets ``best/`` (an editor folder), ``resume.safetensors`` and ``history.json``;
            by default ``hparams.results_dir``/DUALEDIT/model name. A run stopped there goes on.

    Raises:
        TrainingError: there are no records.
    """

    editor: DualEdit
    hparams: DualEditTrainingHyperParams

    def __init__(
        self,
        editor: DualEdit,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: DualEditTrainingHyperParams,
        out_dir: str | Path | None = None,
    ) -> None:
        self.editor, self.hparams = editor, hparams
        self.train, self.val = list(train), list(val)
        if not self.train and not hparams.eval_only:
            raise TrainingError("there are no training records")
        default = Path(hparams.results_dir) / "DUALEDIT" / hparams.model_name.replace("/", "_")
        self.out_dir = Path(out_dir) if out_dir is not None else default
        self.batches = max(1, math.ceil(len(self.train) / hparams.batch_size))
        self.total = hparams.max_iters or hparams.max_epochs * self.batches
        self.step = 0
        self.best: float | None = None
        self.best_step = 0
        self.history: list[dict[str, Any]] = []
        self.running: dict[str, list[float]] = {}
        self.modules: dict[str, nn.Module] = {"adapters": editor.adapters}
        self.store = FrozenStates(editor, hparams.cache_mib * 2**20)
        self.optimizer = self._optimizer()

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Eq. 5 on a batch, and what to log of it."""
        asked = draw(records, rng)
        by_kind, _ = losses(self.editor, self.store, asked, gated=self.hparams.gated)
        whole = total(by_kind, self.hparams)
        info = {"loss/total": float(whole.detach())}
        for name, kinds in (("rel", REL), ("gen", GEN), ("loc", LOC)):
            info[f"loss/{name}"] = sum(float(by_kind[k].detach()) for k in kinds if k in by_kind)
        return whole, info

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses, and by kind the share of right answers, on ``val`` (in part, by config)."""
        hp = self.hparams
        records = self.val[: hp.val_steps]
        if not records:
            raise TrainingError("there are no validation records", remedy="give some")
        self._mode(training=False)
        sums: dict[str, list[float]] = defaultdict(list)
        for start in range(0, len(records), hp.val_batch_size):
            batch = records[start : start + hp.val_batch_size]
            by_kind, right = losses(self.editor, self.store, draw(batch), gated=hp.gated)
            # Weighted by their number: the last batch may be smaller.
            sums["loss/total_val"] += [float(total(by_kind, hp))] * len(batch)
            for kind, values in right.items():
                sums[f"right/{kind}"] += values
        return {key: sum(values) / len(values) for key, values in sums.items()}

    def _optimizer(self) -> torch.optim.Optimizer:
        hp = self.hparams
        group = {"params": list(self.editor.adapters.parameters()), "full_lr": hp.lr}
        kind = getattr(torch.optim, hp.opt)
        return kind([group], lr=hp.lr, weight_decay=hp.weight_decay)
