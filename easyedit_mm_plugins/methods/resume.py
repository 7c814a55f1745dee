"""What a training run leaves on disk: its best state, and all that it needs to go on after a kill.

The latter is one safetensors file, so that it is either there or not.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError, RunError
from ..core.files import digest, write_json
from .checkpoint import load_tensors, read_noted, save_tensors, tied_names

LOG = logging.getLogger(__name__)
# Settings that may change between a stopped run and its continuation.
_FREE = ("device", "results_dir", "log_interval", "model_save_pt", "silent", "debug", "save")
_STATE = ("step", "best", "best_step", "history", "running")
ANEW = "choose another output folder, or delete this one to start anew"


def write_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Weights, optimiser and ``state`` (plain values) to ``path``, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for part, module in modules.items():
        for name, tensor in module.state_dict().items():
            tensors[f"{part}.{name}"] = tensor
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"opt.{index}.{name}"] = torch.as_tensor(value)
    save_tensors(path, tensors, notes={"state": json.dumps(state)})


def read_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    signature: str,
) -> dict[str, Any]:
    """Load what :func:`write_state` wrote into ``modules`` and ``optimizer``; returns ``state``.

    Raises:
        RunError: the file is damaged, or its ``state["signature"]`` is another one.
    """
    try:
        tensors, notes = read_noted(path)
        state = json.loads(notes["state"])
    except (CheckpointError, KeyError, ValueError) as error:
        raise RunError(f"checkpoint {path} is damaged: {error}", remedy=ANEW) from error
    if state["signature"] != signature:
        raise RunError(
            f"{path} is from a run with other settings, records or backbone", remedy=ANEW
        )
    for part, module in modules.items():
        start = len(part) + 1
        found = {n[start:]: t for n, t in tensors.items() if n.startswith(f"{part}.")}
        module.load_state_dict(found)
    whole = optimizer.state_dict()
    whole["state"] = defaultdict(dict)
    for name, tensor in tensors.items():
        if name.startswith("opt."):
            _, index, key = name.split(".")
            whole["state"][int(index)][key] = tensor
    optimizer.load_state_dict(whole)
    return state


class Resumable:
    """The part of a trainer that writes and reads its output folder, see :class:`Trainer`."""

    editor: Any
    hparams: Any
    train: Sequence[Any]
    out_dir: Path
    modules: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    step: int
    total: int
    history: list[dict[str, Any]]

    def _signature(self) -> str:
        kept = {k: v for k, v in self.hparams.to_dict().items() if k not in _FREE}
        cases = [r.case_id for r in self.train]
        return digest([kept, digest(cases), self.editor.backbone.fingerprint()])

    def save(self) -> Path:
        """Write all that going on needs into ``resume.safetensors``, whole or not at all."""
        path = self.out_dir / "resume.safetensors"
        state = {name: getattr(self, name) for name in _STATE}
        write_state(path, self.modules, self.optimizer, {"signature": self._signature(), **state})
        write_json(self.out_dir / "history.json", self.history)
        return path

    def resume(self) -> bool:
        """Go back to the last checkpoint in ``out_dir``, if there is one.

        Raises:
            RunError: it is damaged, or belongs to other settings, records or another backbone.
        """
        path, fresh = self.out_dir / "resume.safetensors", self.out_dir / "best.new"
        if not path.is_file():
            return False
        if not (self.out_dir / "best").exists() and (fresh / "config.json").is_file():
            fresh.rename(self.out_dir / "best")  # killed between the two steps of _save_best
        state = read_state(path, self.modules, self.optimizer, self._signature())
        for name in _STATE:
            setattr(self, name, state[name])
        LOG.info("going on from step %d of %d", self.step, self.total)
        return True

    def _save_best(self) -> None:
        folder, fresh = self.out_dir / "best", self.out_dir / "best.new"
        self.editor.save_pretrained(fresh, half=False)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)

    def _load_best(self) -> None:
        for part, module in self.modules.items():
            path = self.out_dir / "best" / part / "model.safetensors"
            load_tensors(module, path, tied_names(module))
