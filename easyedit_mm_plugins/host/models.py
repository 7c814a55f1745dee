"""From EasyEdit's hparams to a backbone: EasyEdit's own classes, or any backbone of the plugin."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
import weakref
from typing import Any

import torch
from torch import nn

from ..backbones import Backbone, HFAuto, load_backbone
from ..backbones.entries import BACKBONES, is_place
from ..core.errors import BackboneError, ConfigError, DataError, UnknownNameError
from ..core.registry import did_you_mean
from ..data.images import open_image
from .backbones import IMAGE_SIZE, EasyEditBackbone, blip_pixels, normalise, wrap
from .easyedit import Host
from .requirements import OLD_TRANSFORMERS, missing_files, new_transformers, own_class

LOG = logging.getLogger(__name__)

# Backbones by id of the model inside, so that EasyEdit's (model, tok, ...) calls find theirs again.
# A backbone holds its model, so an id cannot be another model's while its entry lives.
_BACKBONES: weakref.WeakValueDictionary[int, Backbone] = weakref.WeakValueDictionary()


def resolve_device(value: Any) -> torch.device:
    """EasyEdit's ``device`` field as a device; falls back to the CPU, with a warning, without CUDA.

    Args:
        value: a CUDA index (``0`` or ``"0"``), ``"cpu"``, ``"cuda"``, ``"cuda:0"``, or ``None``
            for CUDA where there is one.

    Raises:
        ConfigError: anything else.
    """
    if value is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    text = str(value).strip()
    wanted = f"cuda:{text}" if text.isdigit() else text
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(
            f"device {value!r} is not a device", remedy='use "cpu", "cuda", "cuda:0" or an index'
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        warnings.warn(f"device {value!r}: no CUDA here, using the CPU", stacklevel=2)
        return torch.device("cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {value!r}: this machine has {torch.cuda.device_count()} CUDA devices",
            remedy="use a smaller index",
        )
    return device


def check_model_name(model_name: Any) -> None:
    """Raise :class:`UnknownNameError` with the nearest names, before anything is loaded."""
    if not isinstance(model_name, str) or model_name in BACKBONES or is_place(model_name):
        return
    raise UnknownNameError(
        f"unknown model_name {model_name!r}; {did_you_mean(model_name, BACKBONES.names())}",
        remedy="add a backbone of your own with BACKBONES.add(name=..., loader=...)",
    )


def build_backbone(host: Host, hparams: Any) -> Backbone:
    """The backbone that ``hparams.model_name`` names, on ``hparams.device``.

    Raises:
        UnknownNameError: no such model.
        ConfigError: a field that the model needs is missing, or a file it names.
        BackboneError: it cannot be loaded.
    """
    model_name = hparams.model_name
    check_model_name(model_name)
    device = resolve_device(getattr(hparams, "device", None))
    dtype = _dtype(getattr(hparams, "dtype", None))
    spread = getattr(hparams, "device_map", None)
    if not isinstance(model_name, str):
        return register_backbone(_given(model_name, device))
    if own_class(model_name):
        model = _own_model(host, hparams)
        if spread is None:
            _place(model, device, dtype)
        else:
            _spread(model, device, dtype, spread)
        return register_backbone(wrap(model, model_name))
    source = getattr(hparams, "name", None)
    source = None if source in (None, model_name) else source
    placed = {} if spread is None else {"device_map": spread}
    return register_backbone(
        load_backbone(model_name, source, device=device, dtype=dtype, **placed)
    )


def backbone_of(model: Any, tok: Any = None) -> Backbone:
    """The backbone behind a model that EasyEdit hands around, with its tokenizer or processor.

    Raises:
        BackboneError: the plugin has never seen it, and it is none of EasyEdit's classes and no
            Hugging Face model with a processor.
    """
    if isinstance(model, Backbone):
        return model
    return _BACKBONES.get(id(model)) or register_backbone(wrap(model, processor=tok))


def register_backbone(backbone: Backbone) -> Backbone:
    """Let :func:`backbone_of` find ``backbone`` by its model, as long as the backbone is in use."""
    return _BACKBONES.setdefault(id(backbone.model), backbone)


def tokenizer_for(backbone: Backbone, hparams: Any) -> Any:
    """EasyEdit's ``tok``: of the class and folder that hparams name, else the backbone's own; with
    a Hugging Face model of HEAD's its processor."""
    import transformers

    if isinstance(backbone, HFAuto):
        return backbone.processor
    name = getattr(hparams, "tokenizer_name", None) or getattr(hparams, "name", None)
    kind = getattr(hparams, "tokenizer_class", None)
    if not (kind and name and own_class(getattr(hparams, "model_name", None))):
        return backbone.tokenizer
    if not hasattr(transformers, kind):
        raise ConfigError(f"tokenizer_class {kind!r} is unknown to transformers")
    tokenizer = getattr(transformers, kind).from_pretrained(name)
    if not tokenizer.pad_token:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


class ImageProcessor:
    """EasyEdit's ``vis_tok``, called either generation's way: an image or its path -> pixels.

    The pixels are normalised as EasyEdit's always are: [3, 364, 364] for EasyEdit's own models,
    the picture's own size for others, which bring a processor of theirs. For a Hugging Face model
    of HEAD's it gives pictures, as there: one, or of "multi-image" a list.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.image_size = IMAGE_SIZE if isinstance(backbone, EasyEditBackbone) else None
        self.pictures = isinstance(backbone, HFAuto)

    def __call__(self, image: Any, file_type: str | None = None) -> Any:
        if self.pictures:
            check_file_type(file_type)
            if file_type == "text":
                return None
            several = isinstance(image, (list, tuple))
            return [open_image(i) for i in image] if several else open_image(image)
        if self.image_size:
            return blip_pixels(image)
        from torchvision.transforms.functional import to_tensor

        return normalise(to_tensor(open_image(image)))


FILE_TYPES = (None, "image", "single-image", "multi-image", "text")


def check_file_type(value: Any, record: str | None = None) -> None:
    """Raise :class:`DataError` for what HEAD's ``file_type`` says and no method here can edit."""
    if value not in FILE_TYPES:
        raise DataError(
            f"{value!r} is not supported: an edit is about text, an image or several images",
            record=record,
            field="file_type",
            remedy="give frames of a video as images, with file_type multi-image",
        )


def _given(pair: Any, device: torch.device) -> Backbone:
    try:
        model, tok = pair
    except (TypeError, ValueError):
        raise ConfigError(
            f"model_name is a {type(pair).__name__}; give a name or a pair (model, tokenizer)"
        ) from None
    if isinstance(model, Backbone):
        return model
    if hasattr(tok, "tokenizer") and not hasattr(model, "hf_device_map"):
        model.to(device)  # before it is looked at; HEAD's models keep their dtype
    backbone = backbone_of(model, tok)
    if not isinstance(backbone, HFAuto):
        _place(model, device, None)
    return backbone


def _place(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> None:
    if device.type == "cpu":
        model.float()  # EasyEdit loads its language models in half precision
    if dtype is not None:
        (model.opt_model if hasattr(model, "opt_model") else model.llama_model).to(dtype)
    model.to(device)


def _spread(model: nn.Module, device: torch.device, dtype: torch.dtype | None, spread: Any) -> None:
    """The vision side on ``device``, the decoder's layers where accelerate's map puts them."""
    from accelerate import dispatch_model, infer_auto_device_map

    _place(model, device, dtype)
    decoder: Any = model.opt_model if hasattr(model, "opt_model") else model.llama_model
    if isinstance(spread, str):
        spread = infer_auto_device_map(decoder, no_split_module_classes=decoder._no_split_modules)
    dispatch_model(decoder.to("cpu"), spread)


def _own_model(host: Host, hparams: Any) -> nn.Module:
    missing = [m for m in missing_files(hparams) if m.blocking]
    if missing:
        first = missing[0]
        raise ConfigError(
            f"{hparams.model_name} cannot be built: "
            + "; ".join(f"{m.where} ({m.what}) is missing" for m in missing),
            remedy=first.remedy,
        )
    cls = getattr(host.module("trainer.blip2_models"), str(own_class(hparams.model_name)))
    known = inspect.signature(cls.__init__).parameters
    lm = "opt_model" if "opt_model" in known else "llama_model"
    checkpoint = getattr(hparams, "qformer_checkpoint", None)
    arguments: dict[str, Any] = {
        "vit_model": "eva_clip_g",
        "img_size": IMAGE_SIZE,
        "use_grad_checkpoint": True,
        "vit_precision": "fp32",
        "freeze_vit": True,
        lm: hparams.name,
        "state_dict_file": getattr(hparams, "state_dict_file", None),
        "qformer_name_or_path": getattr(hparams, "qformer_name_or_path", None),
    }
    late = {}  # weights that this generation's constructor has no argument for
    for field, value, names in (
        ("qformer_checkpoint", checkpoint, ("qformer_checkpoint", "q_former_model")),
        ("pretrained_ckpt", getattr(hparams, "pretrained_ckpt", None), ("pretrained_ckpt",)),
    ):
        taken = next((name for name in names if name in known), None)
        if taken and (value or field == "pretrained_ckpt"):
            arguments[taken] = value
        elif value:
            late[field] = value
    try:
        model = cls(**arguments)
        for value in late.values():
            model.load_from_pretrained(value)
    except Exception as error:  # three libraries and pickle: nearly anything
        reason = re.sub(r"\s+", " ", str(error))[:400]
        raise BackboneError(
            f"EasyEdit's {cls.__name__} does not build: {reason}",
            remedy=OLD_TRANSFORMERS
            if new_transformers()
            else "easyedit-mm doctor lists the files that each field must name",
        ) from error
    if not checkpoint:
        LOG.warning("%s: qformer_checkpoint is not set: its Q-Former is random", cls.__name__)
    model.requires_grad_(False)
    return model


def _dtype(value: Any) -> torch.dtype | None:
    if value is None or isinstance(value, torch.dtype):
        return value
    found = getattr(torch, str(value).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise ConfigError(f"unknown dtype {value!r}", remedy="float32, bfloat16 or float16")
    return found
