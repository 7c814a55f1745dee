"""Editors on disk: their header (``config.json``), and tensors as safetensors in fp16 or fp32.

A file of settings is written with the checksums (sha256) of the files that it belongs to and of its
own values, and they are checked where it is read: weights with a single flipped bit still load, and
answer otherwise. Files written before there were checksums are read without.

Errors say what is wrong with which file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..core.errors import CheckpointError, DataError
from ..core.files import atomic_path, digest, file_digest, read_json, write_json
from ..core.version import __version__

FORMAT = 1
CHECKSUMS = "checksums"  # the key: {"files": {path as seen from the folder: sha256}, "values": ...}
AGAIN = "save the editor again, or fetch it again if it was downloaded"


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    half: bool = False,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write ``tensors``, in fp16 if ``half``, and ``notes`` to ``path``, whole or not at all."""
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous().clone()  # clones: no shared storage
        plain[name] = tensor.half() if half and tensor.is_floating_point() else tensor
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt", **(notes or {})})


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU; raises as :func:`read_noted`."""
    return read_noted(path)[0]


def read_noted(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on the CPU, and the notes beside them.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", remedy="check the folder's name")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", remedy=AGAIN) from error


def load_tensors(module: nn.Module, path: str | Path, tied: Collection[str] = ()) -> None:
    """Load ``path`` into ``module``, every tensor and no other, in the module's own dtype.

    ``tied`` names tensors that share another one's storage and are not in the file.

    Raises:
        CheckpointError: the file is damaged, or holds other names or shapes.
    """
    found, own = read_tensors(path), module.state_dict()
    wrong = sorted(set(found) ^ (set(own) - set(tied)))
    wrong += [n for n in found if n in own and found[n].shape != own[n].shape]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit the model that its config describes: {len(wrong)} tensors "
            f"differ, first {wrong[0]!r}",
            remedy=AGAIN,
        )
    bad = [n for n, t in found.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if bad:
        raise CheckpointError(f"{path}: {bad[0]!r} holds values that are not finite", remedy=AGAIN)
    module.load_state_dict(found, strict=not tied)


def tied_names(module: nn.Module) -> list[str]:
    """Names in the state dict whose storage an earlier name has: left out of files."""
    seen: dict[int, str] = {}
    again = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            again.append(name)
        seen.setdefault(id(tensor), name)
    return again


def read_config(path: str | Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        CheckpointError: it is missing, malformed, or lacks a key of ``needed``.
    """
    try:
        config = read_json(path)
    except DataError as error:
        raise CheckpointError(f"{path}: {error.message}", remedy=AGAIN) from error
    if not isinstance(config, dict) or any(key not in config for key in needed):
        raise CheckpointError(f"{path} lacks one of {', '.join(needed)}", remedy=AGAIN)
    return config


def write_checked(path: str | Path, values: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Write ``values`` as JSON to ``path``, with checksums of them and of ``files``."""
    folder = Path(path).parent
    sums = {Path(os.path.relpath(f, folder)).as_posix(): file_digest(f) for f in sorted(files)}
    kept = {key: value for key, value in values.items() if key != CHECKSUMS}
    write_json(path, kept | {CHECKSUMS: {"files": sums, "values": digest([kept, sums])}})


def check_checksums(path: str | Path, values: Mapping[str, Any], below: str = "") -> None:
    """Check ``values``, read from ``path``, and its files against the checksums among them.

    Args:
        below: only the files in this folder, as seen from that of ``path``.

    Raises:
        CheckpointError: something was changed or is missing since it was written.
    """
    if CHECKSUMS not in values:
        return
    path, sums = Path(path), values[CHECKSUMS]
    files = sums.get("files") if isinstance(sums, dict) else None
    kept = {key: value for key, value in values.items() if key != CHECKSUMS}
    if not isinstance(files, dict) or sums.get("values") != digest([kept, files]):
        raise CheckpointError(
            f"{path} was changed after it was written: its checksum does not fit",
            remedy=f"{AGAIN}; what an editor should do otherwise, say in its hparams",
        )
    for name, expected in files.items():
        file = path.parent / name
        if not name.startswith(below):
            continue
        try:
            found = file_digest(file) if file.is_file() else None
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error
        if found is None:
            raise CheckpointError(
                f"{file} does not exist, and {path} needs it",
                remedy="keep the folders side by side as they were, or save the editor again",
            )
        if found != expected:
            raise CheckpointError(
                f"{file} is damaged: its sha256 is not that of the file that was saved",
                remedy=AGAIN,
            )


def part_files(folder: str | Path, parts: Mapping[str, str] | None = None) -> Iterator[Path]:
    """The files of an editor's parts: those in folders below ``folder`` and in ``parts``, folders
    that lie elsewhere. Of a part that is itself an editor, its ``config.json`` stands for all.

    What lies beside the editor's ``config.json``, such as saved edits, is no part of it.
    """
    folder = Path(folder)
    inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    for part in [*inside, *(folder / p for p in (parts or {}).values())]:
        if _has_checksums(part / "config.json"):
            yield part / "config.json"
        else:
            yield from (p for p in part.rglob("*") if p.is_file() and not p.name.startswith("."))


def _has_checksums(path: Path) -> bool:
    return path.is_file() and CHECKSUMS in read_config(path)


def write_header(
    folder: str | Path, method: str, backbone: Backbone | None = None, **settings: Any
) -> None:
    """Write an editor's ``config.json`` into ``folder``; do so last, it makes the folder an editor
    and holds the checksums of its files (:func:`part_files`).

    Args:
        method: its registered name.
        backbone: the one it was trained for; ``None`` if it fits any.
        settings: what the method needs to build the editor again; ``parts``, if given, are the
            paths of folders elsewhere, as seen from ``folder``.
    """
    header: dict[str, Any] = {"format": FORMAT, "method": method, "version": __version__}
    if backbone is not None:
        header["backbone"] = {"name": backbone.name, "fingerprint": backbone.fingerprint()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    files = part_files(folder, settings.get("parts"))
    write_checked(Path(folder) / "config.json", header | settings, files)


def change_header(folder: str | Path, **settings: Any) -> None:
    """Write the ``config.json`` in ``folder`` again, with ``settings`` changed and the checksums of
    its files as they are now.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = Path(folder) / "config.json"
    header = read_config(path) | settings
    write_checked(path, header, part_files(folder, header.get("parts")))


def read_header(
    folder: str | Path,
    method: str,
    backbone: Backbone | None = None,
    needed: Collection[str] = (),
) -> dict[str, Any]:
    """The ``config.json`` of an editor of ``method`` for ``backbone``; arguments as they were
    written, see :func:`write_header`.

    Raises:
        CheckpointError: it is missing or damaged, lacks a setting of ``needed``, or belongs to
            another method, format or backbone; the message names both. Or a checksum does not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", remedy="check the editor's path")
    always = ("method",) if backbone is None else ("method", "backbone")
    header = read_config(folder / "config.json", (*always, *needed))
    if header["method"] != method:
        raise CheckpointError(
            f"{folder} holds a {header['method']} editor, not {method}",
            remedy=f"load it as {header['method']}",
        )
    if header.get("format", FORMAT) != FORMAT:
        raise CheckpointError(
            f"{folder} has format {header['format']}, this version reads {FORMAT}",
            remedy=f"install version {header.get('version')}, or train again",
        )
    if backbone is None:
        check_checksums(folder / "config.json", header)
        return header
    trained = header["backbone"] if isinstance(header["backbone"], dict) else {}
    if trained.get("fingerprint") != backbone.fingerprint():
        raise CheckpointError(
            f"{folder} was trained for backbone {trained.get('name')} "
            f"({trained.get('fingerprint')}), this is {backbone.name} ({backbone.fingerprint()})",
            remedy=f"load backbone {trained.get('name')}, or train for {backbone.name}",
        )
    check_checksums(folder / "config.json", header)
    return header
