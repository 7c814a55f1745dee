"""Scenes on disk: PNG images and JSON records in the released FGVEdit schema."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataError
from ..core.files import disk_error, read_json, write_json
from . import edits, language
from .edits import SceneEdit
from .world import Scene, render

WORLD_VERSION = 2  # raise it when the same seed would give other records or images
N_TRAIN, N_TEST = 6000, 1000
DEFAULT_ROOT = Path("data/scenes")


@dataclass(frozen=True)
class ScenesFiles:
    """Where a finished set lies; image paths in the records are relative to ``images``."""

    root: Path
    train: Path
    test: Path
    images: Path


def _draw(index: int, split: str, seed: int, seen: set[str]) -> tuple[SceneEdit, random.Random]:
    """A record's edit, of a scene that no earlier record has, and what draws the rest of it."""
    rng = random.Random(f"scenes {seed} {split} {index}")
    while True:
        edit = edits.draw_edit(rng, split)
        if edit.scene.key not in seen:
            break
    seen.add(edit.scene.key)
    return edit, rng


def scenes_of(split: str, n: int, seed: int = 0) -> list[Scene]:
    """The scenes of the first ``n`` records of a split."""
    seen: set[str] = set()
    return [_draw(i, split, seed, seen)[0].scene for i in range(n)]


def _record(index: int, split: str, seed: int, seen: set[str]) -> tuple[dict, Scene, int]:
    """One record without its ``m_loc`` fields, its scene and the seed of its image."""
    edit, rng = _draw(index, split, seed, seen)
    # Test records are edited with familiar words and rephrased with held-out ones.
    src = language.phrase(edit.question, rng, "train")
    others = language.paraphrases(edit.question, split)
    name = f"{split}/{index:05d}"
    fact = rng.choice(language.FACTS)
    record = {
        "case_id": f"{split}-{index:05d}",
        "src": src,
        "pred": edit.before,
        "alt": edit.value,
        "rephrase": rng.choice([o for o in others if o != src]),
        "image": f"{name}.png",
        "image_rephrase": f"{name}_again.png",
        **edits.scope_fields(edit, src, "train" if split == "train" else "all", rng),
        "loc": language.FACT_PREFIX + rng.choice(fact.questions),
        "loc_ans": fact.answer,
    }
    return record, edit.scene, rng.getrandbits(31)


def make_records(split: str, n: int, seed: int = 0) -> tuple[list[dict], dict[str, tuple]]:
    """``n`` records of a split, and what to draw: image path -> (scene, render seed).

    Raises:
        ValueError: an unknown split, or fewer than two records (``m_loc`` needs another image).
    """
    if split not in ("train", "test") or n < 2:
        raise ValueError(f"need split train or test and n >= 2, got {split!r} and {n}")
    seen: set[str] = set()
    made = [_record(i, split, seed, seen) for i in range(n)]
    images = {}
    for index, (record, scene, image_seed) in enumerate(made):
        images[record["image"]] = (scene, image_seed)
        images[record["image_rephrase"]] = (scene, image_seed + 1)
        rng = random.Random(f"m_loc {seed} {split} {index}")
        other, other_scene, _ = made[(index + 1 + rng.randrange(n - 1)) % n]
        question = language.sample_question(other_scene, rng)
        record["m_loc"] = other["image"]
        record["m_loc_q"] = language.phrase(question, rng, "train" if split == "train" else "all")
        record["m_loc_a"] = language.answer(other_scene, question)
    return [record for record, _, _ in made], images


def write_scenes(
    out_dir: str | Path, n_train: int = N_TRAIN, n_test: int = N_TEST, seed: int = 0
) -> ScenesFiles:
    """Write ``train.json``, ``test.json`` and ``images/``; a finished set is found and kept.

    An interrupted call is completed by the next one.

    Raises:
        DataError: the folder holds scenes of other settings.
        EasyEditMMError: no room on the disk, or no permission.
    """
    root = Path(out_dir)
    files = ScenesFiles(root, root / "train.json", root / "test.json", root / "images")
    settings = {"world": WORLD_VERSION, "n_train": n_train, "n_test": n_test, "seed": seed}
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
    for split, n in (("train", n_train), ("test", n_test)):
        records, images = make_records(split, n, seed)
        _draw_all(files.images, images)
        write_json(root / f"{split}.json", records)
    done = {
        "settings": settings,
        "complete": True,
        "sha256": {p.name: _sha256(p) for p in (files.train, files.test)},
        "images": 2 * (n_train + n_test),
    }
    write_json(manifest, done)
    return files


def _draw_all(folder: Path, images: dict[str, tuple]) -> None:
    """Draw what is not there yet; an image appears whole or not at all."""
    for parent in {(folder / name).parent for name in images}:
        parent.mkdir(parents=True, exist_ok=True)
    for name, (scene, seed) in images.items():
        path = folder / name
        if path.exists():
            continue
        # Not files.atomic_path: for thousands of tiny files its temporary names cost too much.
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            render(scene, seed).save(temporary, format="PNG", compress_level=1)
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


def ensure_scenes(
    root: str | Path | None = None, n_train: int = N_TRAIN, n_test: int = N_TEST, seed: int = 0
) -> ScenesFiles:
    """The scenes under ``root`` (default ``data/scenes`` below the current folder), made if absent.

    Raises:
        DataError: the folder holds scenes of other settings.
    """
    return write_scenes(DEFAULT_ROOT if root is None else root, n_train, n_test, seed)
