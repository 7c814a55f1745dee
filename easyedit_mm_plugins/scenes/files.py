"""A finished set of records and pictures on disk, as both editions of the world write it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..core.errors import DataError
from ..core.files import disk_error, read_json, write_json

N_TRAIN, N_TEST = 6000, 1000
DEFAULT_ROOT = Path("data/scenes")


@dataclass(frozen=True)
class ScenesFiles:
    """Where a finished set lies; image paths in the records are relative to ``images``."""

    root: Path
    train: Path
    test: Path
    images: Path


def write_set(
    out_dir: str | Path,
    settings: Mapping[str, Any],
    make: Callable[[str, int, int], tuple[list[dict], Mapping[str, tuple]]],
    render: Callable[..., Image.Image],
) -> ScenesFiles:
    """Write ``train.json``, ``test.json`` and ``images/``; a finished set is found and kept.

    An interrupted call is completed by the next one.

    Args:
        settings: ``world`` (the version of what is drawn), ``n_train``, ``n_test`` and ``seed``.
        make: called with split, number and seed; gives the records, and of each picture's path
            what ``render`` draws it from.

    Raises:
        DataError: the folder holds scenes of other settings.
        EasyEditMMError: no room on the disk, or no permission.
    """
    root = Path(out_dir)
    files = ScenesFiles(root, root / "train.json", root / "test.json", root / "images")
    manifest = root / "manifest.json"
    if manifest.exists():
        known = read_json(manifest)
        if known.get("settings") != settings:
            raise DataError(
                f"holds scenes of other settings: {known.get('settings')}, asked: {settings}",
                file=root,
                remedy="choose another folder, or delete this one",
            )
        if known.get("complete") and _intact(files, known):
            return files
    write_json(manifest, {"settings": settings, "complete": False})
    count = 0
    for split in ("train", "test"):
        records, pictures = make(split, settings[f"n_{split}"], settings["seed"])
        _draw_all(files.images, pictures, render)
        write_json(root / f"{split}.json", records)
        count += len(pictures)
    done = {
        "settings": settings,
        "complete": True,
        "sha256": {p.name: _sha256(p) for p in (files.train, files.test)},
        "images": count,
    }
    write_json(manifest, done)
    return files


def _draw_all(
    folder: Path, pictures: Mapping[str, tuple], render: Callable[..., Image.Image]
) -> None:
    """Draw what is not there yet; a picture appears whole or not at all."""
    for parent in {(folder / name).parent for name in pictures}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, drawn_from in pictures.items():
        path = folder / name
        if path.exists():
            continue
        # Not files.atomic_path: for thousands of tiny files its temporary names cost too much.
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            render(*drawn_from).save(temporary, format="PNG", compress_level=1)
            os.replace(temporary, path)
        except OSError as error:
            raise disk_error(error, path) from error


def _intact(files: ScenesFiles, known: dict) -> bool:
    try:
        same = all(_sha256(files.root / n) == h for n, h in known["sha256"].items())
    except OSError:
        return False
    count = sum(1 for split in ("train", "test") for _ in (files.images / split).glob("*.png"))
    return same and count == known["images"]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
