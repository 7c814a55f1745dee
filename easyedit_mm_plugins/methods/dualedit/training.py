"""Training DualEdit's adapters. The base model is frozen, and so are its lower layers' outputs.

The loop, its checkpoints and its way of going on after a kill are :class:`Trainer`'s: all that is
random follows from the seed and the step. What differs is what a batch's loss is, and what is
prepared before the first step: a learned gate, and where the adapters start.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...data import EditRecord, Question
from ..training import Trainer
from .calibration import calibrate
from .config import DualEditTrainingHyperParams
from .frozen import FrozenStates, KeyedQuestion
from .gate import fit_gate
from .losses import GEN, LOC, REL, draw, losses, total
from .model import DualEdit
from .packing import QuestionStates
from .warm_start import start_at_answers

LOG = logging.getLogger(__name__)
_AT_ONCE = 50  # questions per pass through the lower layers
MEMORY = 100  # edits in the memory when a learned gate's threshold is chosen


class DualEditTrainer(Trainer):
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

    name: ClassVar[str] = "DUALEDIT"
    taught: Sequence[str] = REL + GEN
    compared: Sequence[str] = LOC
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
        if editor.config.gate.kind == "self":
            raise ConfigError(
                "gate self is for editing with adapters that are trained",
                remedy="train behind gate learned or off; settings for editing may name gate self",
            )
        modules: dict[str, nn.Module] = {"adapters": editor.adapters}
        if editor.gate is not None:
            modules["gate"] = editor.gate
        super().__init__(editor, train, val, hparams, out_dir, modules)
        self.store = FrozenStates(editor, hparams.cache_mib * 2**20, stop=hparams.stop)

    def prepare(self) -> None:
        """Before the first step: fit a learned gate, set the adapters' start."""
        hp = self.hparams
        records = self.train[: hp.gate_records]
        if self.editor.config.gate.kind == "learned":
            self.fit_gate()
        if hp.start == "answer":
            edits = self._states([a for a in draw(records) if a.kind == "edit"])
            for adapter, own in zip(self.editor.adapters, self.editor.config.adapters, strict=True):
                share = start_at_answers(adapter, own, edits, seed=hp.seed)
                LOG.info("%s adapter starts with %.3f of answers found", own.tokens, share)
        if hp.save:
            self.save()  # a killed run need not do this again

    def fit_gate(self) -> None:
        """Fit the editor's learned gate and choose its threshold; the adapters stay."""
        hp = self.hparams
        records = self.train[: hp.gate_records]
        gate = self.editor.gate
        assert gate is not None
        loss = fit_gate(gate, records, self._gate_reads, steps=hp.gate_steps, seed=hp.seed)
        LOG.info("gate fitted on %d records, loss %.4f", len(records), loss)
        self._set_threshold()

    def _states(self, asked: Sequence[KeyedQuestion]) -> list[QuestionStates]:
        parts = range(0, len(asked), _AT_ONCE)
        return [row for i in parts for row in self.store.get(asked[i : i + _AT_ONCE])]

    def _gate_reads(self, kind: str, asked: Sequence[tuple[EditRecord, Question]]) -> Tensor:
        """For :func:`fit_gate`; the lower layers run once for it and for training."""
        rows = self._states([KeyedQuestion(0, kind, q, (r.case_id, kind, 0)) for r, q in asked])
        return torch.stack([row.gate for row in rows])

    def resume(self) -> bool:
        """See :meth:`Trainer.resume`."""
        found = super().resume()
        if found:
            self._set_threshold()
        return found

    def _set_threshold(self) -> None:
        """A learned gate has no threshold of the paper's."""
        learned = self.editor.config.gate.kind == "learned"
        if learned and self.hparams.gate.threshold is None and len(self.val) > 1:
            others = min(MEMORY, len(self.val)) - 1
            self.editor.threshold = calibrate(self.editor, self.val, others=others).threshold

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
    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """Losses, and by kind which answers are right."""
        hp = self.hparams
        by_kind, right = losses(self.editor, self.store, draw(records), gated=hp.gated)
        # As often as there are records: the last batch may be smaller.
        values = {"loss/total_val": [float(total(by_kind, hp))] * len(records)}
        return values | {f"right/{kind}": found for kind, found in right.items()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The adapters; a learned gate is fitted before them."""
        return [{"params": list(self.editor.adapters.parameters()), "lr": self.hparams.lr}]
