"""EasyEdit's own ``VQADataset`` and ``CaptionDataset`` with the settings of the plugin's methods.

They read a tokenizer's class and folder from the settings, which a Hugging Face or embedded base
model does not need, and HEAD's know no other models than its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..backbones.entries import BACKBONES
from ..core.errors import ConfigError
from ..core.shipped import ASSETS
from ..host.easyedit import Host
from ..host.requirements import own_class
from ..methods.entries import MethodEntry
from ..methods.settings import ModelHParams

Lookup = Callable[[Any], "MethodEntry | None"]


def dataset_classes(host: Host) -> list[type]:
    """EasyEdit's multimodal datasets."""
    module = host.module("dataset")
    return [module.VQADataset, module.CaptionDataset]


def wrap_init(lookup: Lookup) -> Callable[[Any], Any]:
    """The wrapper of their ``__init__``; other settings go to the original as they are."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(
            self: Any,
            data_dir: Any,
            size: Any = None,
            config: Any = None,
            *args: Any,
            **kwargs: Any,
        ) -> None:
            ours = isinstance(config, ModelHParams) or lookup(getattr(config, "alg_name", None))
            read = for_dataset(config) if ours else config
            original(self, data_dir, size, read, *args, **kwargs)
            self.config = config

        return __init__

    return make


def for_dataset(config: Any) -> SimpleNamespace:
    """``config`` with what EasyEdit's datasets read from it.

    Raises:
        ConfigError: the image folders are not set, or nothing says where the tokenizer is.
    """
    for field in ("coco_image", "rephrase_image"):
        if getattr(config, field, None) is None:
            raise ConfigError(
                f"hparams.{field} is not set, and EasyEdit's datasets read images from it",
                remedy="set it to the folder that the image paths are relative to",
            )
    model = config.model_name
    # HEAD has an image processor for its own models only; the pixels are those of BLIP-2 anyway.
    return SimpleNamespace(
        **{
            **vars(config),
            "model_name": model if own_class(model) else "blip2",
            "tokenizer_class": getattr(config, "tokenizer_class", None) or "AutoTokenizer",
            "tokenizer_name": _tokenizer(config),
        }
    )


def _tokenizer(config: Any) -> str:
    """The folder or hub id of the base model's tokenizer."""
    model = config.model_name
    given = getattr(config, "tokenizer_name", None) or getattr(config, "name", None)
    if given is None and isinstance(model, str):
        entry = BACKBONES.get(model) if model in BACKBONES else None
        if entry is not None and entry.embedded:
            given = str(ASSETS / entry.name)
        elif Path(model).is_dir():
            given = model
    if given is None:
        raise ConfigError(
            f"hparams.tokenizer_name is not set, and EasyEdit's datasets need {model}'s tokenizer",
            remedy="set it to the model's folder or hub id",
        )
    return given
