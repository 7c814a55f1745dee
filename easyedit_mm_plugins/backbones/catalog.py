"""Backbones by name. The embedded ones are shipped; the others load from a folder or a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..core.errors import BackboneError, ConfigError
from ..core.shipped import ASSETS
from .auto import HFAuto
from .base import Backbone
from .entries import BACKBONES, is_hub_id, is_place
from .families import FAMILIES
from .hf import HFBackbone, HFBlip2, HFLlava, HFMiniGPT4
from .hub import from_where

_FAMILIES: dict[str, type[HFBackbone]] = {
    "blip-2": HFBlip2,
    "blip-2 with llama": HFMiniGPT4,
    "llava": HFLlava,
}
LLAVA_TEMPLATE = "USER: <image>\nQuestion: {} Short answer: ASSISTANT:"


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


def _loader(name: str, place: str | Path) -> Any:
    """Loads what lies at ``place``, or at another source that is given."""

    def load(source: str | Path | None = None, **kwargs: Any) -> Backbone:
        return from_folder(source or place, **{"name": name, **kwargs})

    return load


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
        loader=_loader(_name, ASSETS / _name),
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

for _place, (_name, _title, _hub, _licence) in enumerate(
    (
        ("qwen2-vl", "Qwen2-VL 7B", "Qwen/Qwen2-VL-7B-Instruct", "Apache 2.0"),
        ("qwen2.5-vl", "Qwen2.5-VL 7B", "Qwen/Qwen2.5-VL-7B-Instruct", "Apache 2.0"),
        ("qwen3-vl", "Qwen3-VL 4B", "Qwen/Qwen3-VL-4B-Instruct", "Apache 2.0"),
        (
            *("llava-onevision", "LLaVA-OneVision 7B"),
            *("llava-hf/llava-onevision-qwen2-7b-ov-hf", "Apache 2.0"),
        ),
    ),
    start=14,
):
    BACKBONES.add(
        name=_name,
        title=_title,
        order=_place,
        loader=_loader(_name, _hub),
        family=_title.rsplit(" ", 1)[0],
        weights=_hub,
        licence=_licence,
        group="full-size",
    )


def from_folder(folder: str | Path, **kwargs: Any) -> Backbone:
    """A local model folder, or a model on the hub, its family read from ``config.json``.

    Raises:
        BackboneError: no such folder, or a family that has no backbone here.
    """
    path = Path(folder)
    try:
        if is_hub_id(folder):
            config = _hub_config(str(folder))
        else:
            config = json.loads((path / "config.json").read_text())
        if not isinstance(config, dict):
            raise ValueError("config.json holds no mapping")
        family = config.get("model_type")
        if family == "blip-2" and config.get("text_config", {}).get("model_type") == "llama":
            family = "blip-2 with llama"
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{path} is not a model folder: {error}",
            remedy="give a folder with config.json and weights",
        ) from error
    options = {"name": path.name, **kwargs}
    if family in _FAMILIES:
        return _FAMILIES[family].from_pretrained(str(folder), **options)
    _check_family(path, family)
    return HFAuto.from_pretrained(str(folder), **options)


def _check_family(path: Path, family: Any) -> None:
    """Raise :class:`BackboneError` for a family that the installed transformers does not load."""
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as NAMES,
    )

    if family in NAMES:
        return
    installed = f"transformers {transformers.__version__}"
    if family in FAMILIES:
        known = FAMILIES[family]
        raise BackboneError(
            f"{path} holds a {known.title} model, which {installed} does not load",
            remedy=f"pip install -U 'transformers>={known.since}'",
        )
    raise BackboneError(
        f"{path} holds a {family!r} model, which {installed} does not load as a model of images "
        f"and text; tested here: {', '.join(FAMILIES)}",
        remedy="register a loader of your own with BACKBONES.add(name=..., loader=...)",
    )


def _hub_config(name: str) -> dict[str, Any]:
    """``config.json`` of a model on the hub, or in the cache of it."""
    from huggingface_hub import hf_hub_download

    return json.loads(Path(hf_hub_download(name, "config.json", **from_where(name))).read_text())


def check_backbones(*names: str) -> None:
    """Raise :class:`UnknownNameError` for the first that is no name, no folder and no hub id."""
    BACKBONES.check(*(name for name in names if not is_place(name)))


QUANTISED = {"4bit": 4, "8bit": 8}


def check_dtype(name: str) -> None:
    """Raise :class:`ConfigError` unless ``name`` is a dtype's or says how weights are quantised."""
    if name not in QUANTISED:
        dtype_named(name)


def dtype_named(name: str) -> torch.dtype:
    """The dtype called ``name``.

    Raises:
        ConfigError: torch has none of that name.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(
            f"unknown dtype {name!r}", remedy="float32, bfloat16, float16, 4bit or 8bit"
        )
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
            registered, the path of a model folder, or a hub id such as
            ``"Qwen/Qwen2.5-VL-3B-Instruct"``.
        source: folder or hub id to load instead of the name's usual one; for EasyEdit's own models
            an EasyEdit hparams file.
        device, dtype: where and how; float32 on a CPU by default. "4bit" and "8bit" quantise the
            weights by bitsandbytes; what an editor adds to them stays in its own precision.
        kwargs: ``template``, ``text_template``, ``device_map`` and others of the backbone's class.

    Raises:
        UnknownNameError: no such name; the message offers the nearest.
        BackboneError: it cannot be loaded.
    """
    check_device(device)
    if isinstance(dtype, str) and dtype in QUANTISED:
        kwargs["bits"], dtype = QUANTISED[dtype], None
    kwargs |= {"device": device, "dtype": dtype_named(dtype) if isinstance(dtype, str) else dtype}
    if is_place(name):
        return from_folder(name, **kwargs)
    return BACKBONES.get(str(name)).load(source, **kwargs)
