"""EasyEdit's own models as backbones by name: ``load_backbone("blip2")``, ``"minigpt4"``.

An EasyEdit hparams file says where the weights lie; without one they are expected where EasyEdit's
users keep them (``hugging_cache/``, see ``hparams/models.yaml``).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ..backbones.base import Backbone
from ..backbones.settings import model_settings
from ..core.errors import BackboneError, ConfigError
from ..core.yaml_files import read_yaml
from . import easyedit as host
from .models import build_backbone


def _load(
    name: str,
    source: str | Path | None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    device_map: Any = None,
    template: str | None = None,
    text_template: str | None = None,
) -> Backbone:
    path, values = (None, model_settings(name)) if source is None else read_yaml(source)
    if values.get("model_name") != name:
        raise ConfigError(
            f"{path} is for model_name {values.get('model_name')!r}, not for {name}",
            remedy=f"give an EasyEdit hparams file with model_name: {name}",
        )
    if device_map is not None:
        raise BackboneError(
            f"EasyEdit's own {name} lies on one device; device_map={device_map!r} is not for it",
            remedy="give a device, or take a Hugging Face backbone (blip2-hf, llava)",
        )
    hparams = SimpleNamespace(**{**values, "device": str(device), "dtype": dtype})
    backbone = build_backbone(host.load(), hparams)
    backbone.template = template or backbone.template
    backbone.text_template = text_template or backbone.text_template
    return backbone


def blip2(source: str | Path | None = None, **kwargs: Any) -> Backbone:
    """EasyEdit's BLIP-2 OPT-2.7B; ``source`` is an EasyEdit hparams file.

    Raises:
        BridgeError: EasyEdit is not installed. ConfigError: a file that the model needs is
            missing; the message names it. BackboneError: it does not build.
    """
    return _load("blip2", source, **kwargs)


def minigpt4(source: str | Path | None = None, **kwargs: Any) -> Backbone:
    """EasyEdit's MiniGPT-4 with Vicuna-7B; arguments and errors as for :func:`blip2`."""
    return _load("minigpt4", source, **kwargs)
