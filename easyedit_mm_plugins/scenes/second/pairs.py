"""Edits and queries whose scope only the picture tells: texts first, pictures second.

An edit's text, its answer and two queries are drawn, then two pictures. In picture A the first
query is about the edited thing and the second about another thing; in picture B the two things have
swapped what the queries name them by, and the scopes with it. Both queries have the same right
answer before the edit in both pictures, and so has the edit's own question. So neither the texts,
nor a prior, nor an answer of the unedited model tells the two sides apart; each picture has queries
of both sides, so it does not either.

    shared   the two things have the edited value in common ("what color is ...?" has one answer)
    alone    the edited thing alone has it: the queries offer the new value ("is ... blue?"), which
             neither has before; and a question after the *old* value ("is there a red thing?") is
             in scope here and out of scope in the shared pair with the same texts
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from . import language
from .edits import EDITED, SceneEdit
from .language import REFERENCES, SceneQuestion
from .world import (
    NOVEL_PAIRS,
    SIZES,
    VALUES,
    Entity,
    Scene,
    counterfactual_values,
    distinct,
    make_scene,
    sample_scene,
)

_SHARES = (0.4, 0.35, 0.25)  # of the attributes that are edited
_ALONE = 0.3  # share of the edits of shape and colour that have a pair of each sort
_YES_NO = 0.25  # share of the shared pairs whose first queries are yes/no questions
_EXTRA = 3  # further hard queries a side, at most
EASY = 2  # easy queries a side
Name = tuple[str, str, str]  # see :func:`language.names`


@dataclass(frozen=True)
class Query:
    """A question with its words and what sort it is."""

    question: SceneQuestion
    text: str
    sort: str


@dataclass(frozen=True)
class Case:
    """One edit of one picture with its queries, each with the right answer after the edit.

    Attributes:
        edit: the edit.
        text: its words.
        rephrase: other words for it.
        hard: (query, answer, in scope); the first two are the pair's main ones.
        easy: the same, for queries whose scope the texts tell.
        pair: the two cases of a pair share this number.
        novel: the things asked about have pairs of shape and colour that training never shows.
    """

    edit: SceneEdit
    text: str
    rephrase: str
    hard: tuple[tuple[Query, str, bool], ...]
    easy: tuple[tuple[Query, str, bool], ...]
    pair: int
    novel: bool = False


@dataclass(frozen=True)
class _Plan:
    """What a pair's pictures have in common; ``names`` of the first and of the second thing."""

    scene: Scene
    edited: Entity
    other: Entity
    attribute: str
    reference: str
    swap: str
    value: str
    names: tuple[Sequence[Name], Sequence[Name]] = ((), ())


def draw_cases(rng: random.Random, split: str, *, novel: bool = False) -> Iterator[Case]:
    """The cases of pairs of one edit's text, numbered from 0: two cases, or four."""
    attribute = rng.choices(EDITED, _SHARES)[0]
    both = attribute != "size" and not novel and rng.random() < _ALONE
    while True:
        # No two novel pairs share a colour: such an edit is always of the other sort.
        shared = not novel or (attribute != "color" and rng.random() < 0.8)
        plan = _plan(rng, split, attribute, shared, novel)
        if plan is None:
            continue
        alone = _lonely(plan, rng, split) if both else None
        if both == (alone is not None):
            break
    words = _Words(plan, rng, split)
    existence = _existence(plan, rng, split) if both else None
    sort = "shared" if shared else "alone"
    yield from _pair(plan, words, rng, split, 0, sort, novel, existence)
    if alone is not None:
        yield from _pair(alone, words, rng, split, 1, "alone", novel, existence)


class _Words:
    """An edit's words: the edit in familiar ones, the rephrase in held-out ones for testing."""

    def __init__(self, plan: _Plan, rng: random.Random, split: str) -> None:
        self.question = SceneQuestion(
            "open", plan.attribute, plan.reference, plan.edited.value(plan.reference)
        )
        self.text = language.phrase(self.question, rng, "train")
        others = [p for p in language.paraphrases(self.question, split) if p != self.text]
        self.rephrase = rng.choice(others)


def _plan(
    rng: random.Random, split: str, attribute: str, shared: bool, novel: bool
) -> _Plan | None:
    """A first picture that can be one of a pair; None where the draw does not work out."""
    base = sample_scene(rng)
    reference = rng.choice([r for r in REFERENCES if r != attribute])
    swap = rng.choice([r for r in REFERENCES if r not in (attribute, reference)])
    edited, other = rng.sample(base.entities, 2)
    rest = [e for e in base.entities if e not in (edited, other)]
    if novel:
        if swap != "place":
            return None  # other swaps would take the novel pairs apart
        looks = rng.sample(sorted(NOVEL_PAIRS), 2)
        edited, other = (
            replace(e, shape=shape, color=color)
            for e, (shape, color) in zip((edited, other), looks, strict=True)
        )
        if shared and attribute == "size":
            other = replace(other, size=edited.size)
        if shared != (edited.value(attribute) == other.value(attribute)):
            return None
    elif shared:
        other = replace(other, **{attribute: edited.value(attribute)})
    scene = make_scene([edited, other, *rest])
    values = counterfactual_values(scene, edited, attribute)
    if not values:
        return None
    plan = _Plan(scene, edited, other, attribute, reference, swap, rng.choice(values))
    return _checked(plan, split, novel)


def _lonely(plan: _Plan, rng: random.Random, split: str) -> _Plan | None:
    """The plan with pictures in which the edited thing alone has the old value."""
    old = plan.edited.value(plan.attribute)
    free = [v for v in VALUES[plan.attribute] if v not in (old, plan.value)]
    rest = [e for e in plan.scene.entities if e not in (plan.edited, plan.other)]
    if any(e.value(plan.attribute) == old for e in rest):
        return None
    for _ in range(200):
        edited, other, *others = (
            replace(e, size=rng.choice(SIZES)) for e in (plan.edited, plan.other, *rest)
        )
        other = replace(other, **{plan.attribute: rng.choice(free)})
        scene = make_scene([edited, other, *others])
        made = replace(plan, scene=scene, edited=edited, other=other)
        if (found := _checked(made, split, False)) is not None:
            return found
    return None


def _existence(plan: _Plan, rng: random.Random, split: str) -> Query:
    """The question after the old value: in scope where the edited thing alone has it."""
    old = plan.edited.value(plan.attribute)
    question = SceneQuestion("exist", plan.attribute, value=old)
    text = language.phrase(question, rng, "train" if split == "train" else "all")
    return Query(question, text, "existence")


def _swapped(plan: _Plan) -> tuple[Scene, Entity, Entity]:
    """The second picture, and what the edited and the other thing are there."""
    first, second = plan.edited, plan.other
    edited = replace(first, **{plan.swap: second.value(plan.swap)})
    other = replace(second, **{plan.swap: first.value(plan.swap)})
    rest = [e for e in plan.scene.entities if e not in (first, second)]
    return make_scene([edited, other, *rest]), edited, other


def _checked(plan: _Plan, split: str, novel: bool) -> _Plan | None:
    """The plan with the names of its two things, if both of its pictures serve."""
    scene, edited, other = _swapped(plan)
    pictures = ((plan.scene, plan.edited, plan.other), (scene, edited, other))
    for picture, one, two in pictures:
        if not distinct(picture.entities) or picture.split != split:
            return None
        wanted = {one, two} if novel else set()
        if {e for e in picture.entities if e.novel} != wanted:
            return None
        if plan.value not in counterfactual_values(picture, one, plan.attribute):
            return None
        for thing in (one, two):  # either could have been the one that is edited
            if picture.find(plan.reference, thing.value(plan.reference)) != thing:
                return None
            if picture.find(plan.swap, thing.value(plan.swap)) != thing:
                return None
    names = [_names(plan, a, scene, b) for a, b in ((plan.edited, other), (plan.other, edited))]
    return replace(plan, names=(names[0], names[1]))


def _names(plan: _Plan, here: Entity, second: Scene, there: Entity) -> list[Name]:
    """Names for ``here`` in the first picture that mean ``there`` in the second."""
    found = [(plan.swap, here.value(plan.swap), "")]
    if plan.swap == "place":  # what stands beside a third thing changes places, too
        known = set(language.names(second, there, relations=True))
        own = {(r, e.value(r)) for e in (plan.edited, plan.other) for r in ("shape", "color")}
        found += [
            name
            for name in language.names(plan.scene, here, relations=True)
            if name in known and name[:2] not in own and name[0] != plan.attribute
        ]
    return found


def _pair(
    plan: _Plan,
    words: _Words,
    rng: random.Random,
    split: str,
    pair: int,
    sort: str,
    novel: bool,
    existence: Query | None,
) -> Iterator[Case]:
    wordings = "train" if split == "train" else "all"
    sides = [_queries(plan, i, rng, wordings, sort) for i in (0, 1)]
    mains = []
    yes_no = sort == "alone" or rng.random() < _YES_NO
    offered = plan.value if sort == "alone" or rng.random() < 0.5 else None
    for side in sides:
        fit = [q for q in side if (q.question.kind == "verify") == yes_no]
        if yes_no:
            value = offered or plan.edited.value(plan.attribute)
            fit = [q for q in fit if q.question.value == value] or fit
        plain = [q for q in fit if not q.question.relation]
        mains.append(rng.choice(fit if rng.random() < 0.3 else plain or fit))
    extras = []
    for i, side in enumerate(sides):
        left = [q for q in side if q != mains[i]]
        extras += rng.sample(left, min(_EXTRA, len(left)))
    asked = [*mains, *extras, *([existence] if existence else [])]
    scene, edited, _ = _swapped(plan)
    for picture, thing in ((plan.scene, plan.edited), (scene, edited)):
        edit = SceneEdit(picture, thing, words.question, plan.value)
        hard = tuple(_answered(edit, q) for q in asked)
        easy = tuple(_easy(edit, rng, wordings))
        yield Case(edit, words.text, words.rephrase, hard, easy, pair, novel)


def _queries(plan: _Plan, side: int, rng: random.Random, wordings: str, sort: str) -> list[Query]:
    """Everything that can be asked by one side's names, each in words drawn once."""
    old = plan.edited.value(plan.attribute)
    found = []
    for reference, referent, relation in plan.names[side]:
        named = SceneQuestion("open", plan.attribute, reference, referent, relation=relation)
        forms = [replace(named, kind="verify", value=plan.value)]
        if sort == "shared":
            forms += [named, replace(named, kind="verify", value=old)]
        for question in forms:
            label = "relation" if relation else "yes_no" if question.kind == "verify" else "open"
            text = language.phrase(question, rng, wordings)
            found.append(Query(question, text, label))
    return found


def _answered(edit: SceneEdit, query: Query) -> tuple[Query, str, bool]:
    changes = edit.changes(query.question)
    after = language.answer(edit.edited, query.question)
    if changes is None or after is None:
        raise AssertionError(f"{query.text!r} has no answer in {edit.scene.key}")
    return query, after, changes


def _easy(edit: SceneEdit, rng: random.Random, wordings: str) -> Iterator[tuple[Query, str, bool]]:
    """Queries that the texts alone tell: the edit's own name and values; other attributes."""
    name = (edit.question.reference, edit.question.referent)
    for value in rng.sample([edit.before, edit.value], EASY):
        question = SceneQuestion("verify", edit.attribute, *name, value)
        yield _answered(edit, Query(question, language.phrase(question, rng, wordings), "easy"))
    found = 0
    while found < EASY:
        question = language.sample_question(edit.scene, rng)
        about = question.entity(edit.scene)
        if edit.changes(question) is not False or (about is None and question.kind != "count"):
            continue
        if question.attribute == edit.attribute:
            continue
        found += 1
        text = language.phrase(question, rng, wordings)
        yield _answered(edit, Query(question, text, "easy"))
