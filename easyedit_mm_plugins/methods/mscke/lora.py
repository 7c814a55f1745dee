"""A counterfactual model that is the base model itself, with low-rank adapters (LoRA, by ``peft``).

The paper's counterfactual model is a second language model: 4.22 GB beside BLIP-2 (table 4), a
second 7B model for MiniGPT-4. Here the frozen base model answers in scope too, with an adapter on;
out of scope the base model's own path runs, which has never seen the adapter.

That holds because ``peft`` gets a tree of modules of its own: a copy of the language model's
modules around the very same weights. The base model's modules are left alone, several edited models
can stand side by side, and what is added to memory is the adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import nn

from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...core.files import write_json
from ...core.registry import did_you_mean
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors
from ..settings import build
from .config import CounterfactualConfig
from .counterfactual import Counterfactual
from .pairs import PairReader

if TYPE_CHECKING:
    from transformers import PreTrainedModel

M = TypeVar("M", bound=nn.Module)

_SAVED = ("kind", "drop_image", "rank", "alpha", "dropout", "targets")


class LoRA(PairReader, nn.Module, Counterfactual):
    """The base model's language model under a LoRA adapter, reading the edit before the query.

    Only the adapters are parameters of this module; they are float32 whatever the base model is.
    Rows are those of ``pairs.py``.

    Args:
        backbone: the frozen base model; never changed, its weights are shared.
        config: ``rank``, ``alpha``, ``dropout`` and ``targets`` count.

    Raises:
        ConfigError: ``peft`` is not installed, or no linear module matches ``targets``.
    """

    kind = "lora"

    def __init__(self, backbone: Backbone, config: CounterfactualConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        lm = share_weights(backbone.language_model)
        names = target_names(lm, config.targets)
        adapted = _inject(lm, names, config)
        # Not a submodule: parameters() and state_dict() are the adapters', not the base model's.
        object.__setattr__(self, "lm", lm.eval())
        self.adapters = nn.Module()
        for name, layer in adapted.items():
            holder = _holder(self.adapters, name)
            holder.lora_A = layer.lora_A["default"].float()
            holder.lora_B = layer.lora_B["default"].float()
            holder.lora_dropout = layer.lora_dropout["default"]

    @classmethod
    def from_config(cls, backbone: Backbone, config: CounterfactualConfig) -> Self:
        """Untrained: it answers as the base model does on the same row."""
        return cls(backbone, config)

    @property
    def device(self) -> torch.device:
        """Where the adapters are."""
        return next(self.adapters.parameters()).device

    @property
    def megabytes(self) -> float:
        """Memory of the adapters, which is all that this model adds to the base model's."""
        return sum(p.numel() * p.element_size() for p in self.parameters()) / 1e6

    def describe(self) -> dict[str, Any]:
        """Kind, rank and size."""
        size = sum(p.numel() for p in self.parameters())
        return {"kind": self.kind, "rank": self.config.rank, "parameters": size}

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write the adapters: ``config.json`` and ``model.safetensors``."""
        folder = Path(folder)
        save_tensors(folder / "model.safetensors", self.state_dict(), half=half)
        settings = {name: getattr(self.config, name) for name in _SAVED}
        described = {"counterfactual": settings, "base": self.backbone.fingerprint()}
        write_json(folder / "config.json", described)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A model saved by :meth:`save_pretrained`, for the same backbone.

        Raises:
            CheckpointError: a file is missing, damaged, or for another base model.
        """
        folder = Path(folder)
        described = read_config(folder / "config.json", ("counterfactual", "base"))
        where = str(folder / "config.json")
        if described["base"] != backbone.fingerprint():
            raise CheckpointError(
                f"{folder} holds an adapter for the base model {described['base']}, "
                f"{backbone.name} is {backbone.fingerprint()}",
                remedy="load the backbone that it was trained on, or train one for this",
            )
        try:
            model = cls(backbone, build(CounterfactualConfig, described["counterfactual"], where))
        except ConfigError as error:
            raise CheckpointError(f"{where} is of no use: {error}", remedy=AGAIN) from error
        load_tensors(model, folder / "model.safetensors")
        return model.eval()


def share_weights(model: M) -> M:
    """A second tree of ``model``'s modules around the same storage; nothing large is copied.

    Its parameters are frozen, whatever those of ``model`` are, and never get a gradient.
    """
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        # Quantised weights are classes of their own with state beside the numbers.
        plain = type(parameter) is nn.Parameter
        shared = nn.Parameter(parameter.detach(), requires_grad=False) if plain else parameter
        memo[id(parameter)] = shared
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def target_names(lm: PreTrainedModel, patterns: Sequence[str]) -> list[str]:
    """The linear modules of ``lm``, without its output head, whose names match ``patterns``.

    Raises:
        ConfigError: a pattern matches none; the nearest name is offered.
    """
    head = lm.get_output_embeddings()
    every = [n for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not head]
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in every if fnmatchcase(name, pattern)}
        if not found:
            raise ConfigError(
                f"counterfactual.targets: no linear module is called {pattern!r}; "
                f"{did_you_mean(pattern, every)}"
            )
        chosen |= found
    return [name for name in every if name in chosen]


def _inject(lm: nn.Module, names: Sequence[str], config: CounterfactualConfig) -> dict[str, Any]:
    """Let peft put an adapter around each of ``names`` in ``lm``; returns peft's layers by name."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"a LoRA counterfactual model needs peft: {error}", remedy="pip install peft"
        ) from error
    # peft divides by the rank, so any number will do.
    alpha: Any = 2 * config.rank if config.alpha is None else config.alpha
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=config.dropout,
        target_modules=list(names),
    )
    peft.inject_adapter_in_model(settings, lm)
    return {name: lm.get_submodule(name) for name in names}


def _holder(root: nn.Module, name: str) -> nn.Module:
    """The submodule ``name`` of ``root``, with those on the way, made where they are missing."""
    for part in name.split("."):
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root
