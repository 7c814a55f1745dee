"""Scenes on disk: PNG images and JSON records in the released FGVEdit schema."""

from __future__ import annotations

import random
from pathlib import Path

from . import edits, language
from .edits import SceneEdit
from .files import DEFAULT_ROOT, N_TEST, N_TRAIN, ScenesFiles, write_set
from .world import Scene, render

WORLD_VERSION = 2  # raise it when the same seed would give other records or images


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
    """A set of scenes in ``out_dir``; see :func:`files.write_set`."""
    settings = {"world": WORLD_VERSION, "n_train": n_train, "n_test": n_test, "seed": seed}
    return write_set(out_dir, settings, make_records, render)


def ensure_scenes(
    root: str | Path | None = None, n_train: int = N_TRAIN, n_test: int = N_TEST, seed: int = 0
) -> ScenesFiles:
    """The scenes under ``root`` (default ``data/scenes`` below the current folder), made if absent.

    Raises:
        DataError: the folder holds scenes of other settings.
    """
    return write_scenes(DEFAULT_ROOT if root is None else root, n_train, n_test, seed)
