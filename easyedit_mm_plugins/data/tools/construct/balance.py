"""Records whose texts do not tell the scopes apart: what texts tell too surely is left out.

The paper's choice of hard questions turns a judge's verdict by text upside down, so that a learned
rule may read the scope off the texts all the same. Two steps, on hard questions alone (easy ones
stay, marked as such):

1. Questions that look alike by their texts (the query's type of question, and whether it is the
   edit's) are kept in equal numbers in and out of scope, where there are both.
2. A text attacker (``tools/attackers.py``), cross-validated by picture, tells the scopes. What it
   tells rightly and most surely is left out, and it learns again, until its routing accuracy is at
   most a given one. (AFLite, Le Bras et al. 2020, filters other data in the same spirit.)
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...records import Question
from ...schema import as_list
from ..attackers import Scoped
from ..blind import balanced_accuracy, enough, judge
from .sources import guess_types

_NAMES = {"in": "fg_gen", "out": "fg_loc"}
_SHARE = 0.25  # of a side that may go in one round
_Place = tuple[int, str, int]  # record, side, and the question's place in it


def balance(
    records: Sequence[dict[str, Any]], limit: float, *, both_sides: bool = False, seed: int = 0
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records without the questions that texts tell too surely, and what was left out.

    Args:
        records: as ``case.py`` makes them; they are not changed.
        limit: the routing accuracy, in percent, that the text attacker may reach.
        both_sides: leave out records that lack questions in scope or out of scope.

    Returns:
        The records that still have a hard question, and the report for ``build.json``.
    """
    sides = [{side: _questions(record, side) for side in _NAMES} for record in records]
    places = [
        (i, side, j)
        for i, record in enumerate(sides)
        for side in _NAMES
        for j, one in enumerate(record[side])
        if one["hard"]
    ]
    asked = {place: _scoped(records[place[0]], sides, place) for place in places}
    start = _accuracy(asked, seed)
    matched = _match(asked, seed)
    left = {place: one for place, one in asked.items() if place not in matched}
    sure: set[_Place] = set()
    rounds = 0
    while enough(some := list(left.values())):
        told = judge(some, seed=seed + rounds)
        if balanced_accuracy(some, told) <= limit:
            break
        sure |= _too_sure(left, told, limit)
        left = {place: one for place, one in left.items() if place not in sure}
        rounds += 1
    kept, dropped, gone = [], 0, sure | matched
    for i, record in enumerate(records):
        stay = {
            side: [q for j, q in enumerate(sides[i][side]) if (i, side, j) not in gone]
            for side in _NAMES
        }
        whole = all(stay.values()) or not both_sides
        if whole and any(q["hard"] for found in stay.values() for q in found):
            kept.append(_rebuilt(record, stay))
        else:
            dropped += 1
            left = {place: one for place, one in left.items() if place[0] != i}
    return kept, {
        "judge": "text attacker, cross-validated by picture",
        "limit": limit,
        "accuracy before": start,
        "accuracy": _accuracy(left, seed + rounds + 1),
        "hard questions before": _count(asked),
        "hard questions": _count(left),
        "left out to match": len(matched),
        "left out as told too surely": len(sure),
        "records left out": dropped,
        "rounds": rounds,
    }


def _questions(record: dict[str, Any], side: str) -> list[dict[str, Any]]:
    """A side's questions, the first one first; each with ``q``, ``a``, ``hard``."""
    name = _NAMES[side]
    hard = bool(record.get(f"{name}_hard", True))
    pairs = zip(as_list(record.get(f"{name}_q")), as_list(record.get(f"{name}_a")), strict=True)
    return [{"q": q, "a": a, "hard": hard} for q, a in pairs] + list(record["fg_extra"][side])


def _scoped(
    record: dict[str, Any], sides: list[dict[str, list[dict[str, Any]]]], place: _Place
) -> Scoped:
    i, side, j = place
    edit = Question(record["src"], None, record["alt"])
    return Scoped(edit, Question(sides[i][side][j]["q"]), side == "in", record["image"])


def _match(asked: dict[_Place, Scoped], seed: int) -> set[_Place]:
    """The surplus of one side among questions that look alike."""
    alike: dict[tuple[str, bool], dict[bool, list[_Place]]] = defaultdict(lambda: defaultdict(list))
    for place, one in asked.items():
        kind, _ = guess_types(one.query.text, "")
        alike[kind, kind == guess_types(one.edit.text, "")[0]][one.inside].append(place)
    surplus: set[_Place] = set()
    rng = random.Random(f"balance {seed}")
    for both in alike.values():
        if len(both) == 2:  # what has one side alone is left to the attacker
            n = min(map(len, both.values()))
            for members in both.values():
                surplus |= set(rng.sample(members, len(members) - n))
    return surplus


def _too_sure(left: dict[_Place, Scoped], told: np.ndarray, limit: float) -> set[_Place]:
    """What must go of each side so that as much as ``limit`` would be told rightly of the rest."""
    gone: set[_Place] = set()
    for inside in (True, False):
        mine = [
            (abs(score - 0.5), (score >= 0.5) is inside, place)
            for score, (place, one) in zip(told.tolist(), left.items(), strict=True)
            if one.inside is inside
        ]
        right = sorted((sure, place) for sure, is_right, place in mine if is_right)
        too_many = (len(right) - limit / 100 * len(mine)) / (1 - limit / 100)
        n = max(0, min(math.ceil(too_many), math.ceil(_SHARE * len(mine))))
        gone |= {place for _, place in right[len(right) - n :]}
    return gone


def _accuracy(left: dict[_Place, Scoped], seed: int) -> float | None:
    some = list(left.values())
    if not enough(some):
        return None
    return round(balanced_accuracy(some, judge(some, seed=seed)), 1)


def _count(some: dict[_Place, Scoped]) -> dict[str, int]:
    counts = Counter(one.inside for one in some.values())
    return {"in": counts[True], "out": counts[False]}


def _rebuilt(record: dict[str, Any], some: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """``record`` with these questions, hard ones first, else in their order."""
    gone = {f"{name}_{x}" for name in _NAMES.values() for x in ("q", "a", "hard")} | {"fg_extra"}
    made = {key: value for key, value in record.items() if key not in gone}
    extra = {}
    for side, name in _NAMES.items():
        ranked = sorted(some[side], key=lambda q: not q["hard"])
        for first in ranked[:1]:
            made |= {f"{name}_{x}": first[x] for x in ("q", "a", "hard")}
        extra[side] = ranked[1:]
    return made | {"fg_extra": extra}
