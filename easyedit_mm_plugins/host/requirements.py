"""Facts for ``easyedit-mm doctor``: which EasyEdit is here, what an hparams file still lacks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones.entries import BACKBONES, is_place
from ..core.environment import package_version
from ..core.errors import BridgeError
from ..core.shipped import ASSETS
from .easyedit import Generation, import_problem, locate

OLD_TRANSFORMERS = (
    "EasyEdit's own BLIP-2 and MiniGPT-4 do not build with transformers 5: pip install "
    "transformers==4.53.3, or use a backbone of the plugin (blip2-hf, llava)"
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
PACKAGES = ("easyeditor", "torch", "torchvision", "transformers", "open_clip_torch", "peft")


@dataclass(frozen=True)
class HostInfo:
    """What :func:`inspect_host` found.

    Attributes:
        generation: ``"pypi"``, ``"head"``, or ``None`` where there is no EasyEdit.
        path: its package folder, ``None`` likewise.
        source: how it was found, in words.
        versions: of the packages that matter, ``None`` where one is absent.
        problem, remedy: why it cannot be used, if it cannot.
    """

    generation: Generation | None
    path: Path | None
    source: str
    versions: dict[str, str | None]
    problem: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Missing:
    """One thing that an hparams file names and this machine lacks.

    Attributes:
        what: in words, e.g. "weights of the vision tower".
        where: the field and its value, e.g. ``state_dict_file=eva_vit_g.pth``.
        remedy: what to do.
        blocking: false where EasyEdit or transformers would fetch it from the network.
    """

    what: str
    where: str
    remedy: str
    blocking: bool = True


def inspect_host(*, try_import: bool = False) -> HostInfo:
    """Look for EasyEdit without importing it in this process.

    Args:
        try_import: import it in a process of its own, so that ``problem`` says why that fails.
    """
    versions = {name: package_version(name) for name in PACKAGES}
    try:
        host = locate()
    except BridgeError as error:
        return HostInfo(None, None, "not found", versions, error.message, error.remedy)
    if host.source != "installed":
        versions["easyeditor"] = None  # a checkout carries no version
    problem = import_problem() if try_import else None
    told = (problem.message, problem.remedy) if problem else (None, None)
    return HostInfo(host.generation, host.folder, host.source, versions, *told)


def missing_for(hparams: Any) -> list[Missing]:
    """Everything that ``hparams`` (an object or a mapping of fields) lacks on this machine."""
    if _field(hparams, "model_name") is None:
        return [Missing("the base model", "model_name", "name one, e.g. scenes-blip2")]
    missing = missing_files(hparams)
    if own_class(_field(hparams, "model_name")) and new_transformers():
        where = f"transformers={package_version('transformers')}"
        missing.append(Missing("an older transformers", where, OLD_TRANSFORMERS))
    for field in ("coco_image", "rephrase_image"):
        root = _field(hparams, field)
        if root and not Path(root).is_dir():
            missing.append(Missing("image folder", f"{field}={root}", f"set {field} to a folder"))
    archive = _field(hparams, "archive")
    if archive and not Path(archive).is_dir():
        remedy = "train an editor, or set archive to its folder"
        missing.append(Missing("trained editor", f"archive={archive}", remedy))
    if not archive:  # an archive holds these parts itself
        missing += _missing_parts(hparams)
    return missing


def _missing_parts(hparams: Any) -> list[Missing]:
    """Weights that an untrained editor begins from: its scope encoder, its language model."""
    missing = []
    scope, lm = _field(hparams, "scope"), _field(_field(hparams, "counterfactual"), "lm")
    if isinstance(lm, str) and not _model_here(lm):
        remedy = "fetch it, or set it to a folder or to a configuration"
        online = _on_hub(lm)
        missing.append(
            Missing("counterfactual model", f"counterfactual.lm={lm}", remedy, not online)
        )
    encoder, tag = _field(scope, "encoder"), _field(scope, "pretrained")
    if encoder and tag and not (Path(encoder) / "config.json").is_file():
        try:
            import open_clip
            from huggingface_hub import try_to_load_from_cache

            repo = (open_clip.get_pretrained_cfg(encoder, tag) or {}).get("hf_hub", "").rstrip("/")
            files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            here = Path(tag).is_file() or any(
                isinstance(try_to_load_from_cache(repo, name), str) for name in files if repo
            )
        except Exception:  # an unusual name: nothing can be said about it
            here = True
        if not here:
            where = f"scope.encoder={encoder}, scope.pretrained={tag}"
            remedy = "fetch them with open_clip, or set scope.pretrained to a weights file"
            missing.append(Missing("scope encoder weights", where, remedy, False))
    return missing


def missing_files(hparams: Any) -> list[Missing]:
    """The base model's files that ``hparams`` names, or should name, and that are not here."""
    model_name = _field(hparams, "model_name")
    if not own_class(model_name):
        return _missing_backbone(model_name, _field(hparams, "name"))
    lm = "OPT-2.7B, facebook/opt-2.7b" if model_name == "blip2" else "Vicuna 7B"
    qformer = (
        "LAVIS's blip2_pretrained_opt2.7b.pth"
        if model_name == "blip2"
        else "LAVIS's blip2_pretrained_flant5xxl.pth"
    )
    wanted = [
        ("name", f"language model, {lm}", "model", True),
        ("tokenizer_name", "tokenizer of the language model", "model", False),
        ("qformer_name_or_path", "BERT of the Q-Former, bert-base-uncased", "model", True),
        ("qformer_checkpoint", f"Q-Former weights, {qformer}", "file", True),
        ("state_dict_file", "vision tower weights, LAVIS's eva_vit_g.pth", "file", True),
    ]
    fetched = {"state_dict_file"} | ({"qformer_checkpoint"} if model_name == "blip2" else set())
    if model_name == "minigpt4":
        what = "projection weights, MiniGPT-4's pretrained_minigpt4_7b.pth"
        wanted.append(("pretrained_ckpt", what, "file", False))
    missing = []
    for field, what, kind, required in wanted:
        value = _field(hparams, field)
        if not value:
            if required:
                missing.append(Missing(what, field, f"set {field}", field not in fetched))
        elif not (_file_here(value) if kind == "file" else _model_here(value)):
            noun = "file" if kind == "file" else "folder"
            remedy = f"fetch it, and set {field} to the {noun}"
            online = kind == "model" and _on_hub(value)
            missing.append(Missing(what, f"{field}={value}", remedy, not online))
    return missing


def own_class(model_name: Any) -> str | None:
    """The class of EasyEdit's that ``model_name`` names, if it is one of EasyEdit's own models."""
    known = isinstance(model_name, str) and model_name in BACKBONES
    return BACKBONES.get(model_name).easyedit if known else None


def new_transformers() -> bool:
    """Whether transformers is of version 5 or later, which EasyEdit's own models fail with."""
    return int((package_version("transformers") or "0").split(".")[0]) >= 5


def _missing_backbone(name: Any, source: Any) -> list[Missing]:
    if not isinstance(name, str):
        return []
    if name not in BACKBONES and not is_place(name):
        known = ", ".join(BACKBONES.names())
        return [Missing("base model", f"model_name={name}", f"use one of: {known}")]
    entry = BACKBONES.get(name) if name in BACKBONES else None
    if entry and entry.embedded and not source and not (ASSETS / name).is_dir():
        return [Missing("embedded base model", str(ASSETS / name), "reinstall the package")]
    hub = (
        entry.weights
        if entry and "/" in entry.weights and _HUB_ID.fullmatch(entry.weights)
        else None
    )
    wanted = source or hub
    if wanted and wanted != name and not _model_here(wanted):
        return [
            Missing(
                "base model weights",
                f"name={wanted}",
                "fetch them from the hub, or set name to a local folder",
                blocking=not _on_hub(wanted),
            )
        ]
    return []


def _file_here(value: str | Path) -> bool:
    return str(value).startswith(("http://", "https://")) or Path(value).is_file()


def _on_hub(value: str | Path) -> bool:
    """Whether ``value`` may be a hub id; EasyEdit's files keep local folders in hugging_cache/."""
    text = str(value)
    return bool(_HUB_ID.fullmatch(text)) and not text.startswith("hugging_cache/")


def _model_here(value: str | Path) -> bool:
    """Whether ``value`` is a model folder, or a hub id that is in the local cache."""
    if Path(value).is_dir():
        return True
    try:
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(str(value), "config.json"), str)
    except Exception:  # not a hub id at all
        return False


def _field(hparams: Any, name: str) -> Any:
    """A setting of an object or a mapping, ``None`` where there is none."""
    return hparams.get(name) if isinstance(hparams, dict) else getattr(hparams, name, None)
