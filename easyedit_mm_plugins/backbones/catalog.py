"""Backbones by name. The embedded ones are shipped; the others load from a folder or a hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from ..core.errors import BackboneError, ConfigError
from ..core.shipped import ASSETS
from .base import Backbone
from .entries import BACKBONES
from .hf import HFBackbone, HFBlip2, HFLlava, HFMiniGPT4

_FAMILIES: dict[str, type[HFBackbone]] = {
    "blip-2": HFBlip2,
    "blip-2 with llama": HFMiniGPT4,
    "llava": HFLlava,
}
LLAVA_TEMPLATE = "USER: <image>\nQuestion: {} Short answer: ASSISTANT:"


def _scenes(name: str) -> Any:
    def load(source: str | Path | None = None, **kwargs: Any) -> Backbone:
        kwargs.setdefault("template", "Question: {} Short answer:")
        return from_folder(source or ASSETS / name, name=name, **kwargs)

    return load


def blip2_hf(source: str | Path | None = None, **kwargs: Any) -> Backbone:
    """Hugging Face BLIP-2 OPT-2.7B, or any BLIP-2 folder."""
    return HFBlip2.from_pretrained(
        source or "Salesforce/blip2-opt-2.7b", **{"name": "blip2-hf", **kwargs}
    )


def llava(source: str | Path | None = None, **kwargs: Any) -> Backbone:
    """Hugging Face LLaVA-1.5 7B, or any LLaVA folder."""
    kwargs.setdefault("template", LLAVA_TEMPLATE)
    return HFLlava.from_pretrained(
        source or "llava-hf/llava-1.5-7b-hf", **{"name": "llava", **kwargs}
    )


_MIT = "MIT, as this package"
for _place, (_name, _family) in enumerate(
    {
        "scenes-blip2": "BLIP-2: ViT, Q-Former, OPT",
        "scenes-minigpt4": "MiniGPT-4: ViT, Q-Former, Llama",
        "scenes-llava": "LLaVA: ViT, projector, Llama",
    }.items()
):
    BACKBONES.add(
        name=_name,
        order=_place,
        loader=_scenes(_name),
        family=_family,
        weights="embedded",
        licence=_MIT,
        embedded=True,
        group="scenes",
    )
BACKBONES.add(
    name="blip2-hf",
    title="BLIP-2 OPT-2.7B (Hugging Face)",
    order=12,
    aliases=("blip2-opt-2.7b",),
    loader=blip2_hf,
    family="BLIP-2",
    weights="Salesforce/blip2-opt-2.7b",
    licence="MIT; OPT: OPT-175B licence, research only",
    paper="blip2-opt",
    parameters=2e9,
    group="full-size",
)
BACKBONES.add(
    name="llava",
    title="LLaVA-1.5 7B",
    order=13,
    aliases=("llava-1.5-7b-hf",),
    loader=llava,
    family="LLaVA",
    weights="llava-hf/llava-1.5-7b-hf",
    licence="Llama 2 community licence",
    paper="llava-1.5",
    parameters=6e9,
    group="full-size",
)


def from_folder(folder: str | Path, **kwargs: Any) -> Backbone:
    """A local model folder, its family read from ``config.json``.

    Raises:
        BackboneError: no such folder, or a family that has no backbone here.
    """
    path = Path(folder)
    try:
        config = json.loads((path / "config.json").read_text())
        family = config.get("model_type")
        if family == "blip-2" and config.get("text_config", {}).get("model_type") == "llama":
            family = "blip-2 with llama"
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{path} is not a model folder: {error}",
            remedy="give a folder with config.json and weights",
        ) from error
    if family not in _FAMILIES:
        raise BackboneError(
            f"{path} holds a {family!r} model; supported here: {', '.join(_FAMILIES)}",
            remedy="register a loader of your own with BACKBONES.add(name=..., loader=...)",
        )
    return _FAMILIES[family].from_pretrained(path, **{"name": path.name, **kwargs})


def check_backbones(*names: str) -> None:
    """Raise :class:`UnknownNameError` for the first that is no name and no folder."""
    BACKBONES.check(*(name for name in names if not os.path.isdir(name)))


def dtype_named(name: str) -> torch.dtype:
    """The dtype called ``name``.

    Raises:
        ConfigError: torch has none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(f"unknown dtype {name!r}", remedy="float32, bfloat16 or float16")
    return dtype


def check_device(device: str | torch.device) -> None:
    """Raise unless ``device`` is one of this machine's.

    Raises:
        ConfigError: it is no device's name. BackboneError: this machine has no such device.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"unknown device {device!r}", remedy="cpu, cuda or cuda:1") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise BackboneError(f"device {device} is not available", remedy="use device=cpu")


def load_backbone(
    name: str | Path,
    source: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> Backbone:
    """Load a backbone by registered name, or from a local folder.

    Args:
        name: ``"scenes-blip2"``, ``"scenes-minigpt4"``, ``"scenes-llava"``, ``"blip2-hf"``,
            ``"llava"``, EasyEdit's own ``"blip2"`` and ``"minigpt4"``, a name that somebody
            registered, or the path of a model folder.
        source: folder or hub id to load instead of the name's usual one; for EasyEdit's own models
            an EasyEdit hparams file.
        device, dtype: where and how; float32 on a CPU by default.

    Raises:
        UnknownNameError: no such name; the message offers the nearest.
        BackboneError: it cannot be loaded.
    """
    check_device(device)
    kwargs |= {"device": device, "dtype": dtype_named(dtype) if isinstance(dtype, str) else dtype}
    if str(name) not in BACKBONES and os.path.isdir(name):
        return from_folder(name, **kwargs)
    return BACKBONES.get(str(name)).load(source, **kwargs)
