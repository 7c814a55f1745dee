"""A checkpoint of MSCKE's release as an editor of this package.

The release saves, by EasyEdit's trainer, ``{"model": {...}, "opt": ...}``, where the model's names
begin with ``classifier.`` (a ``CLIPModel``), ``replacement.`` (the counterfactual language model),
``language_projection.`` (Q-Former to that model), ``cross_attend.`` (only with ``fusion_type:
cross``), beside a ``scale`` of 1 and the base model's configuration, ``model_config``.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...core.errors import BackboneError, CheckpointError
from ...core.registry import did_you_mean
from .classifier import ScopeClassifier
from .config import CounterfactualConfig, ScopeConfig
from .hf_clip import HFClipEncoder
from .model import MSCKE
from .release_lm import ReleasedLM

PARTS = ("classifier.", "replacement.", "language_projection.", "cross_attend.")
# Buffers that transformers kept in its files until 4.31, and computes since.
_OLD = ("embeddings.position_ids", "rotary_emb.inv_freq")
_RESAVE = (
    "on a machine where you trust the file, save its tensors again: "
    "d = torch.load(FILE, weights_only=False, map_location='cpu'); "
    "torch.save({'model': {k: v for k, v in d['model'].items() if torch.is_tensor(v)}}, NEW)"
)


def read_release(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a released checkpoint by their names there; runs no code from the file.

    Configurations of OPT and Llama from transformers, which the release puts into the file, are
    read and dropped.

    Raises:
        CheckpointError: the file is missing or damaged, holds objects that only code could read,
            or is no such checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", remedy="check the path")
    try:
        with _configs_allowed():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise CheckpointError(
            f"{path} holds more than tensors, and reading that could run code: {reason}",
            remedy=_RESAVE,
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", remedy="fetch it again") from error
    model = loaded.get("model", loaded) if isinstance(loaded, dict) else None
    if not isinstance(model, dict) or not any(str(k).startswith("classifier.") for k in model):
        raise CheckpointError(
            f"{path} is no checkpoint of MSCKE's release: it names no 'classifier.' under 'model'",
            remedy="give the .pt file that the release's trainer wrote",
        )
    return {k: v for k, v in model.items() if isinstance(v, Tensor)}


@contextmanager
def _configs_allowed() -> Iterator[None]:
    """Plain data classes of transformers may appear in a file that is read as weights only."""
    from transformers import LlamaConfig, OPTConfig

    allow = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
    if allow is None:
        yield
        return
    with allow([OPTConfig, LlamaConfig]):
        yield


def import_release(
    path: str | Path,
    backbone: Backbone,
    *,
    clip: str = "openai/clip-vit-large-patch14",
    lm: str = "facebook/opt-125m",
) -> MSCKE:
    """The editor in a released checkpoint, with ``fusion: released`` and the released layout.

    Args:
        path: the ``.pt`` file.
        backbone: the base model that it was trained on.
        clip: folder or hub name of the ``CLIPModel`` that it began with, for its configuration,
            tokenizer and image processor; its weights come from the checkpoint.
        lm: likewise of the counterfactual language model (MiniGPT-4: Vicuna).

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; names the nearest.
        BackboneError: ``clip`` or ``lm`` cannot be had, or the backbone has no Q-Former.
    """
    tensors = {k: v for k, v in read_release(path).items() if not k.endswith(_OLD)}
    scale = float(tensors.pop("scale", torch.tensor(1.0)))
    if scale != 1.0:
        raise CheckpointError(f"{path}: scale is {scale}, the release's similarity has 1")
    parts = {part: _part(tensors, part) for part in PARTS}
    unknown = [k for k in tensors if not k.startswith(PARTS)]
    if unknown:
        raise CheckpointError(
            f"{path} holds {len(unknown)} unknown names, first {unknown[0]!r}; "
            + did_you_mean(unknown[0].split(".")[0] + ".", list(PARTS)),
            remedy="give the .pt file that the release's trainer wrote",
        )
    cross = parts["cross_attend."]
    config = ScopeConfig(
        encoder=f"hf:{clip}",
        pretrained=None,
        fusion="released-cross" if cross else "released",
        similarity="exp-squared-distance",
        dim=len(cross["output_projection.bias"]) if "output_projection.bias" in cross else 512,
        resize="crop",
    )
    scope = ScopeClassifier(HFClipEncoder.load(clip, "crop", weights=False), config)
    _load(scope.encoder.clip, parts["classifier."], f"{path}: classifier", clip)
    if cross:
        _load(scope.fusion, cross, f"{path}: cross_attend", clip)
    model = ReleasedLM(
        backbone,
        _empty_lm(lm, parts["replacement."], path),
        CounterfactualConfig(kind=ReleasedLM.kind, lm=lm),
    )
    _load(model.lm, parts["replacement."], f"{path}: replacement", lm)
    _project(model.vision, parts["language_projection."], backbone, path)
    device = backbone.device
    return MSCKE(backbone, scope.eval().to(device), model.eval().to(device), 0.5)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load(module: nn.Module, found: dict[str, Tensor], where: str, source: str) -> None:
    """Every tensor and no other into ``module``; tied ones may be in the file or not."""
    own = module.state_dict(keep_vars=True)
    shared: dict[int, list[str]] = {}
    for name, tensor in own.items():
        shared.setdefault(id(tensor), []).append(name)
    missing = [names[0] for names in shared.values() if not any(n in found for n in names)]
    unknown = [name for name in found if name not in own]
    for label, names, known in (
        ("lacks", missing, unknown or [*found]),
        ("also has", unknown, own),
    ):
        if names:
            raise CheckpointError(
                f"{where} {label} {names[0]!r} ({len(names)} such names); "
                + did_you_mean(names[0], list(known)[:2000]),
                remedy=f"check that {source} is what the checkpoint was trained from",
            )
    wrong = [n for n in found if found[n].shape != own[n].shape]
    if wrong:
        n = wrong[0]
        raise CheckpointError(
            f"{where}: {n!r} is {list(found[n].shape)}, {source} has {list(own[n].shape)}",
            remedy=f"check that {source} is what the checkpoint was trained from",
        )
    module.load_state_dict(found, strict=False)


def _empty_lm(name: str, found: dict[str, Tensor], path: str | Path) -> nn.Module:
    """The language model that ``name`` describes, with as many tokens as the checkpoint has."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(
            f"the counterfactual model's configuration {name!r} cannot be had: {error}",
            remedy="give its folder (EasyEdit's users keep it in hugging_cache/opt-125m)",
        ) from error
    embeddings = [v for k, v in found.items() if k.endswith("embed_tokens.weight")]
    if not embeddings:
        raise CheckpointError(
            f"{path} lacks 'replacement.' embeddings: it was trained with freeze_cntr",
            remedy="only checkpoints that hold their counterfactual model can be imported",
        )
    config.vocab_size = len(embeddings[0])  # EasyEdit adds tokens of its own
    return AutoModelForCausalLM.from_config(config).float()


@torch.no_grad()
def _project(
    linear: nn.Linear, found: dict[str, Tensor], backbone: Backbone, path: str | Path
) -> None:
    """``linear`` takes what the base model's projection gives, the release what it takes.

    With h = W q + b the projection's output, L q + c = L W+ (h - b) + c, exactly so because W has
    full column rank. On MiniGPT-4 the release takes h itself.
    """
    if "minigpt4" in backbone.family:
        linear.weight.copy_(torch.eye(*linear.weight.shape))
        linear.bias.zero_()
        return
    base: Any = backbone.connector.get("projection")  # a linear module
    if base is None:
        raise BackboneError(
            f"{backbone.name} has no Q-Former with a projection",
            remedy="import for the base model of the checkpoint: blip2, minigpt4 or blip2-hf",
        )
    weight, bias = found.get("weight"), found.get("bias")
    if weight is None or bias is None or weight.shape[0] != linear.weight.shape[0]:
        raise CheckpointError(f"{path} lacks language_projection, or one of the right size")
    if weight.shape[1] != base.weight.shape[1]:
        raise CheckpointError(
            f"{path}: language_projection takes {weight.shape[1]} values, the Q-Former of "
            f"{backbone.name} gives {base.weight.shape[1]}",
            remedy="import for the base model that the checkpoint was trained on",
        )
    folded = weight.double() @ torch.linalg.pinv(base.weight.double().cpu())
    linear.weight.copy_(folded)
    linear.bias.copy_(bias.double() - folded @ base.bias.double().cpu())
