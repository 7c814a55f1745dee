"""A training run's whole state in one safetensors file, so that it is either there or not."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import RunError
from ..files import atomic_path

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
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"state": json.dumps(state)})


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
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
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
