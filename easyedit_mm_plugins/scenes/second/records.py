"""Scenes on disk: PNG pictures and JSON records in the released FGVEdit schema.

Beyond it a record says which ``pair`` it belongs to, and it has ``image_far`` (the same things
drawn again with another ground, tone and place) and ``m_loc_near``, ``m_loc_near_q``,
``m_loc_near_a`` (a picture in which one thing differs in one attribute).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..files import N_TEST, N_TRAIN, ScenesFiles, write_set
from . import language
from .pairs import Case, draw_cases
from .world import VALUES, Drawing, Scene, distinct, make_scene, render, sample_drawing

WORLD_VERSION = 3  # raise it when the same seed would give other records or images
_NOVEL = 8  # one test edit in eight is of novel pairs of shape and colour
Pictures = dict[str, tuple[Scene, Drawing]]


def draw_records(split: str, seed: int = 0) -> Iterator[tuple[Case, random.Random, str]]:
    """Cases of a split without end, what draws the rest of each, and the name of its pair.

    No two edits have the same picture; the two cases of a pair follow each other.
    """
    seen: set[str] = set()
    group = 0
    while True:
        rng = random.Random(f"scenes {seed} {split} {group}")
        novel = split == "test" and group % _NOVEL == _NOVEL - 1
        cases = list(draw_cases(rng, split, novel=novel))
        group += 1
        keys = {case.edit.scene.key for case in cases}
        if len(keys) < len(cases) or keys & seen:
            continue
        seen |= keys
        for case in cases:
            yield case, rng, f"{split}-{group - 1:05d}-{'ab'[case.pair]}"


def scenes_of(split: str, n: int, seed: int = 0) -> list[Scene]:
    """The scenes of the first ``n`` records of a split."""
    return [case.edit.scene for case, _, _ in islice(draw_records(split, seed), n)]


def make_records(split: str, n: int, seed: int = 0) -> tuple[list[dict], Pictures]:
    """``n`` records of a split, and what to draw: image path -> (scene, drawing).

    Raises:
        ValueError: an unknown split, or fewer than two records (``m_loc`` needs another picture).
    """
    if split not in ("train", "test") or n < 2:
        raise ValueError(f"need split train or test and n >= 2, got {split!r} and {n}")
    records, scenes, pictures = [], [], {}
    for index, (case, rng, pair) in enumerate(islice(draw_records(split, seed), n)):
        record, drawn = _record(index, case, rng, pair, split)
        records.append(record)
        scenes.append(case.edit.scene)
        pictures |= drawn
    for index, record in enumerate(records):
        rng = random.Random(f"m_loc {seed} {split} {index}")
        # The record after it may be its pair's other picture, where the edit's words fit too.
        other = (index + 4 + rng.randrange(max(1, n - 8))) % n if n > 8 else (index + 1) % n
        question = language.sample_question(scenes[other], rng)
        record["m_loc"] = records[other]["image"]
        record["m_loc_q"] = language.phrase(question, rng, "train" if split == "train" else "all")
        record["m_loc_a"] = language.answer(scenes[other], question)
    return records, pictures


def _record(
    index: int, case: Case, rng: random.Random, pair: str, split: str
) -> tuple[dict[str, Any], Pictures]:
    """One record without its ``m_loc`` fields, and its pictures."""
    edit, name = case.edit, f"{split}/{index:05d}"
    wordings = "train" if split == "train" else "all"
    facts = language.EDITOR_FACTS if split == "train" else language.UNSEEN_FACTS
    fact = rng.choice(facts)
    near, question = _near(case, rng)
    sides = {side: [h for h in case.hard if h[2] is side] for side in (True, False)}
    mains = {side: items[0] for side, items in sides.items()}
    extra = {
        key: [
            {"q": q.text, "a": answer, "hard": q.sort != "existence", "kind": q.sort}
            for q, answer, _ in sides[side][1:]
        ]
        + [
            {"q": q.text, "a": answer, "hard": False, "kind": q.sort}
            for q, answer, inside in case.easy
            if inside is side
        ]
        for key, side in (("in", True), ("out", False))
    }
    record: dict[str, Any] = {
        "case_id": f"{split}-{index:05d}",
        "pair": pair,
        "src": case.text,
        "pred": edit.before,
        "alt": edit.value,
        "rephrase": case.rephrase,
        "image": f"{name}.png",
        "image_rephrase": f"{name}_again.png",
        "image_far": f"{name}_far.png",
        "fg_gen_q": mains[True][0].text,
        "fg_gen_a": mains[True][1],
        "fg_gen_kind": "novel" if case.novel else mains[True][0].sort,
        "fg_loc_q": mains[False][0].text,
        "fg_loc_a": mains[False][1],
        "fg_loc_kind": "novel" if case.novel else mains[False][0].sort,
        "fg_extra": extra,
        "loc": language.FACT_PREFIX + rng.choice(fact.questions),
        "loc_ans": fact.answer,
        "m_loc_near": f"{name}_near.png",
        "m_loc_near_q": case.text if question is None else language.phrase(question, rng, wordings),
        "m_loc_near_a": language.answer(near, question or edit.question),
    }
    if case.novel:
        record["novel"] = True
    drawing = sample_drawing(rng)
    return record, {
        record["image"]: (edit.scene, drawing),
        record["image_rephrase"]: (edit.scene, replace(drawing, seed=drawing.seed + 1)),
        record["image_far"]: (edit.scene, sample_drawing(rng, far=1.0)),
        record["m_loc_near"]: (near, replace(drawing, seed=drawing.seed + 2)),
    }


def _near(case: Case, rng: random.Random) -> tuple[Scene, language.SceneQuestion | None]:
    """A scene in which one thing differs in one attribute, and what is asked about it.

    None: the edit's own question, whose right answer is another one there.
    """
    edit = case.edit
    while True:
        own = rng.random() < 0.5
        thing = edit.entity if own else rng.choice(edit.scene.entities)
        attribute = edit.attribute if own else rng.choice(("shape", "color", "size"))
        values = [v for v in VALUES[attribute] if v != thing.value(attribute)]
        changed = replace(thing, **{attribute: rng.choice(values)})
        others = [e for e in edit.scene.entities if e != thing]
        scene = make_scene([changed, *others])
        if not distinct(scene.entities) or (changed.novel and not thing.novel):
            continue
        if not own:
            return scene, language.sample_question(scene, rng)
        if language.answer(scene, edit.question) == changed.value(attribute):
            return scene, None


def write_scenes(
    out_dir: str | Path, n_train: int = N_TRAIN, n_test: int = N_TEST, seed: int = 0
) -> ScenesFiles:
    """A set of scenes in ``out_dir``; see :func:`files.write_set`."""
    settings = {"world": WORLD_VERSION, "n_train": n_train, "n_test": n_test, "seed": seed}
    return write_set(out_dir, settings, make_records, render)
