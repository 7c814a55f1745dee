"""Training an editor: the loop, its checkpoints, the best state, and going on after a kill.

Everything random is a function of the seed and the step, so a run that was killed and goes on from
its last checkpoint sees the same batches, draws the same questions and has the same losses. What a
method learns from a batch of records is its trainer's business: it gives ``batch_loss``,
``validation_batch`` and ``parameter_groups``.

Processes that ``torchrun`` or ``accelerate launch`` started share the ``accumulate_bs`` batches of
each optimiser step and the batches of a validation; they learn what one process learns.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..core.console import CONSOLE
from ..core.distributed import Ranks
from ..core.errors import ConfigError, TrainingError
from ..core.ownership import own_folder
from ..core.registry import did_you_mean
from ..data import EditRecord
from ..data.records import INSIDE
from .base import Editor
from .resume import Resumable
from .targets import check_targets

LOG = logging.getLogger(__name__)
MINUTE = 60.0  # seconds between lines of a training without a terminal


class _Lines:
    """A line a minute about a training that nobody watches."""

    def __init__(self, name: str, step: int) -> None:
        self.name, self.first, self.loss = name, step, float("nan")
        self.start = self.last = time.monotonic()

    def __call__(self, step: int, total: int, losses: Sequence[float] | None) -> None:
        """Print where the training stands; ``losses`` are those of the steps since it noted any."""
        if losses:
            self.loss = sum(losses) / len(losses)
        now = time.monotonic()
        if now - self.last < MINUTE:
            return
        self.last = now
        left = (now - self.start) / (step - self.first) * (total - step) / 60
        CONSOLE.print(
            f"{time.strftime('%H:%M:%S')} {self.name}: step {step}/{total}, loss {self.loss:.4f}, "
            f"{left:.0f} min left",
            markup=False,
            soft_wrap=True,
        )


class Trainer(Resumable, ABC):
    """Trains ``editor`` on ``train`` and keeps the state that validates best on ``val``.

    Args:
        editor: trained in place; its backbone stays frozen.
        train, val: records; ``val`` may be empty, then the last state is kept.
        hparams: the method's training settings.
        out_dir: gets ``best/`` (an editor folder), ``resume.safetensors`` and ``history.json``;
            by default ``hparams.results_dir``/method/model name. A run stopped there goes on.
        modules: what is trained, by the name of its folder in a saved editor.

    Raises:
        TrainingError: there are no records.
        DataError: an answer to be learnt has no token, or no edit's target can be said. (Of single
            ones that cannot, a warning tells.)
        ConfigError: ``accumulate_bs`` cannot be shared evenly by the processes of this launch.
    """

    name: ClassVar[str]  # the method's; it also seeds the order of the records
    # Kinds of questions: those whose answers it teaches, and those on which models are compared.
    taught: Sequence[str] = INSIDE
    compared: Sequence[str] = ()

    def __init__(
        self,
        editor: Editor,
        train: Sequence[EditRecord],
        val: Sequence[EditRecord],
        hparams: Any,
        out_dir: str | Path | None,
        modules: Mapping[str, nn.Module],
    ) -> None:
        self.editor, self.hparams = editor, hparams
        self.train, self.val = list(train), list(val)
        if not self.train and not hparams.eval_only:
            raise TrainingError("there are no training records")
        read = [*self.taught, *self.compared]
        check_targets(editor.backbone, [*self.train, *self.val], self.taught, read=read)
        default = Path(hparams.results_dir) / self.name / hparams.model_name.replace("/", "_")
        self.out_dir = Path(out_dir) if out_dir is not None else default
        self.ranks = Ranks.here()
        if hparams.accumulate_bs % self.ranks.world:
            raise ConfigError(
                f"accumulate_bs is {hparams.accumulate_bs}, which {self.ranks.world} processes "
                "cannot share",
                remedy=f"set accumulate_bs to a multiple of {self.ranks.world}; each process takes "
                "that share of the batches of a step",
            )
        self.batches = max(1, math.ceil(len(self.train) / hparams.batch_size))
        self.total = hparams.max_iters or hparams.max_epochs * self.batches
        self.step = 0
        self.best: float | None = None
        self.best_step = 0
        self.history: list[dict[str, Any]] = []
        self.running: dict[str, list[float]] = {}  # what the next log line will average
        self.listeners: list[Callable[[int, dict[str, float]], None]] = []  # (step, values)
        self.modules: dict[str, nn.Module] = dict(modules)
        self.optimizer = self._optimizer()

    # What a method says -----------------------------------------------------------------------

    @abstractmethod
    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and what to log of it, among it ``loss/total``."""

    @abstractmethod
    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """Values of a validation batch by metric; each metric is averaged over all of them."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser, each with its ``lr``."""

    @property
    def editor_folder(self) -> Path:
        """Where the best editor is written."""
        return self.out_dir / "best"

    def prepare(self) -> None:
        """What comes before the first step of a new run."""

    # The loop ---------------------------------------------------------------------------------

    def run(self) -> dict[str, float]:
        """Train to the end, or from where a killed run stood; returns the final validation.

        Raises:
            TrainingError: a loss or gradient is not finite; the last checkpoint is kept.
            RunError: the folder holds a run with other settings or a damaged checkpoint, or
                another process trains in it.
        """
        if self.hparams.eval_only or not self.ranks.first:
            return self._run()
        self.out_dir.mkdir(parents=True, exist_ok=True)
        owned = own_folder(self.out_dir)
        try:
            return self._run()
        finally:
            owned.release()

    def _run(self) -> dict[str, float]:
        backbone = self.editor.backbone
        cached, backbone.cached_images = backbone.cached_images, self.hparams.feature_cache
        try:
            if self.hparams.eval_only:
                return self.validate()
            if not self.resume():
                self.prepare()
            self.ranks.wait()  # nobody writes a checkpoint that another is still to read
            self._loop()
            self.ranks.wait()
        finally:
            backbone.cached_images = cached
            self._mode(training=False)
        if self.hparams.save and self.best is not None:
            self._load_best()
        elif self.hparams.save and self.ranks.first:
            self._save_best()
        return self.validate() if self.val and self.hparams.final_eval else {}

    def _loop(self) -> None:
        hp = self.hparams
        quiet = hp.silent or not sys.stderr.isatty() or not self.ranks.first
        bar = tqdm(total=self.total, initial=self.step, disable=quiet, desc=self.name, leave=False)
        say = _Lines(self.name, self.step) if quiet and not hp.silent and self.ranks.first else None
        fresh: list[dict[str, float]] = []
        while self.step < self.total:
            fresh.append(self.train_step())
            last = self.step == self.total
            whole = self.step % hp.accumulate_bs == 0 or last
            if whole or self.ranks.world == 1:  # in between, processes do not wait for each other
                for info in (info for found in self.ranks.gather(fresh) for info in found):
                    for key, value in info.items():
                        self.running.setdefault(key, []).append(value)
                fresh = []
            bar.update()
            if say is not None:
                say(self.step, self.total, self.running.get("loss/total"))
            if (self.step % hp.log_interval == 0 or last) and self.running:
                means = {key: sum(v) / len(v) for key, v in self.running.items()}
                self._note(means)
                bar.set_postfix(loss=f"{means['loss/total']:.4f}")
                self.running = {}
            if self.val and (self.step % hp.val_interval == 0 or last):
                improved = self._judge(self.validate())
                if improved and hp.save and self.ranks.first:
                    self._save_best()
            saves = hp.save and self.ranks.first
            if saves and whole and (self.step % hp.model_save_pt < hp.accumulate_bs or last):
                self.save()
            if self.best is not None and self.step - self.best_step >= hp.early_stop_patience:
                LOG.info("stopped early at step %d, best was step %d", self.step, self.best_step)
                break
        bar.close()

    def train_step(self) -> dict[str, float]:
        """One batch, and an optimiser step after each ``accumulate_bs`` of them.

        Returns:
            What is to be logged; nothing of a batch that is another process's.
        """
        hp = self.hparams
        info: dict[str, float] = {}
        self._mode(training=True)
        if self.step % hp.accumulate_bs % self.ranks.world == self.ranks.rank:
            records, rng = self.records_at(self.step)
            devices: list[int] | None = [] if self.editor.backbone.device.type == "cpu" else None
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(rng.getrandbits(62))
                loss, info = self.batch_loss(records, rng)
                if not torch.isfinite(loss):
                    raise self._diverged("the loss", loss.item())
                (loss / hp.accumulate_bs).backward()
        self.step += 1
        if self.step % hp.accumulate_bs == 0 or self.step == self.total:
            parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
            self.ranks.sum_gradients(parameters)
            norm = nn.utils.clip_grad_norm_(parameters, hp.grad_clip)
            if not torch.isfinite(norm):
                raise self._diverged("the gradient's norm", float(norm))
            for group in self.optimizer.param_groups:
                group["lr"] = group["full_lr"] * self._rate()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            info["grad"] = float(norm)
        return info

    def records_at(self, step: int) -> tuple[list[EditRecord], random.Random]:
        """The batch of a step, and the generator that draws its questions."""
        hp = self.hparams
        epoch, place = divmod(step, self.batches)
        order = list(range(len(self.train)))
        random.Random(f"{self.name} {hp.seed} epoch {epoch}").shuffle(order)
        chosen = order[place * hp.batch_size : (place + 1) * hp.batch_size]
        return [self.train[i] for i in chosen], random.Random(f"{self.name} {hp.seed} step {step}")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean of each value of :meth:`validation_batch` on ``val`` (in part, by config)."""
        hp = self.hparams
        records = self.val[: hp.val_steps]
        if not records:
            raise TrainingError("there are no validation records", remedy="give some")
        self._mode(training=False)
        starts = range(0, len(records), hp.val_batch_size)
        mine = {
            start: self.validation_batch(records[start : start + hp.val_batch_size])
            for start in self.ranks.share(starts)
        }
        every = {start: batch for part in self.ranks.gather(mine) for start, batch in part.items()}
        values: dict[str, list[float]] = defaultdict(list)
        for start in starts:
            for key, found in every[start].items():
                values[key] += found
        return {key: sum(v) / len(v) for key, v in values.items()}

    # Judgement --------------------------------------------------------------------------------

    def _judge(self, metrics: dict[str, float]) -> bool:
        key = self.hparams.early_stop_key
        if key not in metrics:
            raise ConfigError(f"unknown early_stop_key {key!r}; {did_you_mean(key, list(metrics))}")
        self._note(metrics)
        value = metrics[key] if key.startswith("loss/") else -metrics[key]
        if self.best is None or value < self.best:
            self.best, self.best_step = value, self.step
            return True
        return False

    def _note(self, values: dict[str, float]) -> None:
        self.history.append({"step": self.step, **values})
        if not self.ranks.first:
            return
        for listen in self.listeners:
            listen(self.step, values)
        text = " ".join(f"{k} {v:.4f}" for k, v in values.items())
        LOG.info("step %d/%d %s", self.step, self.total, text)

    # Small things -----------------------------------------------------------------------------

    def _optimizer(self) -> torch.optim.Optimizer:
        hp = self.hparams
        groups = [{**group, "full_lr": group["lr"]} for group in self.parameter_groups()]
        return getattr(torch.optim, hp.opt)(groups, lr=hp.lr, weight_decay=hp.weight_decay)

    def _rate(self) -> float:
        hp = self.hparams
        if self.step <= hp.warmup:
            return self.step / hp.warmup
        if hp.schedule == "constant":
            return 1.0
        done = (self.step - hp.warmup) / max(1, self.total - hp.warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))

    def _mode(self, *, training: bool) -> None:
        for module in self.modules.values():
            module.train(training)

    def _diverged(self, what: str, value: float) -> TrainingError:
        return TrainingError(
            f"{what} is {value} at step {self.step}",
            remedy="lower lr or grad_clip and start anew, or look at that batch's records; the "
            f"last checkpoint in {self.out_dir} is kept",
        )
