"""T-Patcher as an editor: further neurons in the last feed-forward block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ...core.files import digest
from ...data import load_records
from ...data.records import OUTSIDE, Question
from ..deltas import Delta, DeltaEditor
from ..edit_file import SavedEdits
from ..store import InForce, Kept
from .config import TPatcherConfig
from .patch import Frozen, Patches, last_block

_AT_ONCE = 32  # questions of the memory that are read together


class TPatcher(DeltaEditor):
    """Transformer-Patcher (Huang et al. 2023): one mistake is worth one neuron.

    Each token of an edit's answer that the base model would not say gets a neuron (key, bias,
    value) in the feed-forward block of the last decoder layer. The neurons of several edits lie
    side by side. No weight of the base model is written: see ``methods/deltas.py``.

    Args:
        backbone: the base model; never changed.
        config: by default :class:`TPatcherConfig`'s defaults.
        memory: questions whose answers must stay; by default what ``config.memory`` names.
        images: folder that the image paths of ``config.memory`` are relative to.

    Raises:
        ConfigError: no feed-forward block is found, or a memory is missing.
        DataError: a record of the memory is bad.
    """

    name = "t-patcher"

    def __init__(
        self,
        backbone: Backbone,
        config: TPatcherConfig | None = None,
        memory: Sequence[Question] | None = None,
        *,
        images: str | None = None,
    ) -> None:
        super().__init__(backbone)
        self.config = TPatcherConfig() if config is None else config
        self.block = last_block(backbone)
        if memory is None and self.config.memory_weight and not self.config.memory:
            raise ConfigError(
                "T-Patcher needs a memory: questions that its neurons must be silent on",
                remedy="name training records (memory: train.json), or set memory_weight: 0",
            )
        self._questions, self.images = None if memory is None else list(memory), images

    @classmethod
    def from_hparams(cls, hparams: Any, backbone: Backbone) -> Self:
        """The editor that EasyEdit's hparams describe."""
        return cls(backbone, hparams.config, images=hparams.coco_image)

    @cached_property
    def memory(self) -> Tensor:
        """What comes into the block where the base model says what must stay, [M, D]; read once.

        Raises:
            ConfigError: the records have no such question. DataError: a record is bad.
        """
        if not self.config.memory_weight:
            return torch.empty(0, self.backbone.hidden_size, device=self.backbone.device)
        questions, config = self._questions, self.config
        if questions is None:
            records = load_records(
                config.memory, split="train", images=self.images, limit=config.memory_records
            ).records
            asked = (q for r in records for kind, qs in r.questions().items() for q in qs
                     if kind in OUTSIDE and q.answer.strip())  # fmt: skip
            questions = list(asked)
        if not questions:
            raise ConfigError(
                f"memory: {config.memory or 'what was given'} has no question that must stay",
                remedy="name training records with questions out of scope or of locality",
            )
        parts = [questions[i : i + _AT_ONCE] for i in range(0, len(questions), _AT_ONCE)]
        read = [Frozen(self.backbone, self.block, p, config.with_stop).read for p in parts]
        return torch.cat(read)

    def learn(self, edits: Sequence[Question]) -> list[Delta]:
        """The neurons of each edit, ``batch_size`` edits at a time.

        Raises:
            TrainingError: training diverges; names the edit.
        """
        found: list[Delta] = []
        for start in range(0, len(edits), self.config.batch_size):
            part = edits[start : start + self.config.batch_size]
            with torch.enable_grad():
                patches = Patches(self.backbone, self.block, part, self.config, self.memory, start)
                found += patches.train()
        return found

    def describe(self) -> dict[str, Any]:
        """The block, how its neurons are trained, and on which memory."""
        kept = ("act", "edit_lr", "num_steps", "loss_limit", "memory_weight", "beta", "gamma")
        return {
            "block": self.block.gives.rpartition(".")[0],
            "memory": self.config.memory or None,
            **{name: getattr(self.config, name) for name in kept},
        }

    # Edits on disk ----------------------------------------------------------------------------

    def made_by(self) -> str:
        """The base model and the block."""
        made = [self.backbone.fingerprint(), *self.block, self.config.act]
        return f"T-Patcher {digest(made)}"

    def pack(self, now: InForce) -> dict[str, Tensor]:
        """The neurons, one edit's after another's, and how many each has."""
        found = [now.payloads[i].get(self.block.gives) for i in now.ids]
        some = [part for part in found if part is not None]
        counts = torch.tensor([0 if part is None else len(part.bias) for part in found])
        parts = {n: torch.cat([getattr(p, n) for p in some]) for n in _PARTS} if some else {}
        return {"neurons": counts, **{f"neurons.{name}": t for name, t in parts.items()}}

    def unpack(self, saved: SavedEdits) -> Kept:
        """The saved neurons; nothing is trained again."""
        counts = saved.tensors.get("neurons", torch.empty(0)).tolist()
        if len(counts) != len(saved.edits) or not all(
            isinstance(n, int) and n >= 0 for n in counts
        ):
            raise saved.damaged("it does not say how many neurons each edit has")
        if not sum(counts):
            return Kept(payloads=[{} for _ in counts])
        width, parts = self.backbone.hidden_size, []
        for name, size in zip(_PARTS, ((width,), (), (width,)), strict=True):
            found = saved.tensors.get(f"neurons.{name}")
            if found is None or found.shape != (sum(counts), *size):
                raise saved.damaged(f"it needs {name} of {sum(counts)} neurons")
            parts.append(found.to(self.backbone.device).split(counts))
        act = self.config.act
        each = zip(counts, *parts, strict=True)
        return Kept(payloads=[self.block.change(own, act) if n else {} for n, *own in each])


_PARTS = ("keys", "bias", "values")
