"""Scenes as a source for building benchmarks: every scope label is known exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.files import atomic_path
from ..data.tools.construct.sources import QA, ImageGroup, Source
from . import language
from .language import SceneQuestion
from .world import Scene, counterfactual, counterfactual_values, render, sample_scene

_NEAR = 0.3  # share of the questions that are about the criterion's own fact


class ScenesSource(Source):
    """Images of scenes, drawn when they are asked for, and questions about them.

    Args:
        images: folder for the PNG files; those that are there already are kept.
        n: how many scenes.
        questions: per scene; the first is an open question about one entity.
        seed: of everything.
    """

    name = "scenes"

    def __init__(self, images: str | Path, n: int = 100, questions: int = 8, seed: int = 0) -> None:
        if n < 1 or questions < 2:
            raise ConfigError(f"n is {n} and questions {questions}; need at least 1 and 2")
        self.image_root, self.n, self.questions, self.seed = Path(images), n, questions, seed
        self.example_nq = tuple(
            (question, fact.answer) for fact in language.FACTS for question in fact.questions
        )

    def describe(self) -> dict[str, Any]:
        size = {"n": self.n, "questions": self.questions, "seed": self.seed}
        return {"source": self.name, **size}

    @cached_property
    def scenes(self) -> dict[str, tuple[Scene, dict[str, SceneQuestion]]]:
        """By image name: the scene, and the meaning of each of its questions by id."""
        found = {}
        for index in range(self.n):
            rng = random.Random(f"source {self.seed} {index}")
            scene = sample_scene(rng)
            asked = [_criterion(scene, rng)]
            near = _same_fact(scene, asked[0])
            while len(asked) < self.questions:
                close = near and rng.random() < _NEAR
                question = rng.choice(near) if close else language.sample_question(scene, rng)
                if question not in asked:
                    asked.append(question)
            found[f"{index:05d}.png"] = (scene, {f"{index}-{i}": q for i, q in enumerate(asked)})
        return found

    def groups(self) -> Iterator[ImageGroup]:
        for index, (name, (scene, asked)) in enumerate(self.scenes.items()):
            path = self.image_root / name
            if not path.exists():
                with atomic_path(path) as temporary:
                    render(scene, 1000 * self.seed + index).save(temporary, format="PNG")
            rng = random.Random(f"words {self.seed} {index}")
            pairs = [self._pair(scene, qid, question, rng) for qid, question in asked.items()]
            yield ImageGroup(Path(name).stem, name, tuple(pairs))

    def truth(self, group: ImageGroup, other: QA) -> str | None:
        """ "in" if some edit of the first question's answer changes the other's, and so on."""
        scene, asked = self.scenes[group.image]
        return scope(scene, asked[group.pairs[0].qid], asked[other.qid])

    def _pair(self, scene: Scene, qid: str, question: SceneQuestion, rng: random.Random) -> QA:
        answer = language.answer(scene, question)
        kind = {"open": "other", "count": "number"}.get(question.kind, "yes/no")
        others: tuple[str, ...] | None = None
        if question.kind == "open":
            entity = question.entity(scene)
            others = counterfactual_values(scene, entity, question.attribute)
        text = language.phrase(question, rng)
        return QA(qid, text, answer, question.type, kind, alternatives=others)


def _criterion(scene: Scene, rng: random.Random) -> SceneQuestion:
    """An open question whose answer can be edited (nothing can move where no cell is free)."""
    while True:
        question = language.sample_question(scene, rng, "open")
        if counterfactual_values(scene, question.entity(scene), question.attribute):
            return question


def _same_fact(scene: Scene, criterion: SceneQuestion) -> list[SceneQuestion]:
    """Other questions about the fact that the criterion asks for."""
    entity, attribute = criterion.entity(scene), criterion.attribute
    references = [r for r in language.REFERENCES if r != attribute]
    values = {entity.value(attribute), *counterfactual_values(scene, entity, attribute)}
    found = [q for q in language.open_questions(entity) if q.attribute == attribute]
    found += [
        language.verify_question(entity, attribute, reference, value)
        for reference in references
        for value in sorted(values)
    ]
    return [q for q in found if q != criterion]


def edits_of(scene: Scene, criterion: SceneQuestion) -> Iterator[Scene]:
    """Every scene that an edit of the criterion's answer can lead to."""
    entity = criterion.entity(scene)
    for value in counterfactual_values(scene, entity, criterion.attribute):
        yield counterfactual(scene, entity, criterion.attribute, value)


def scope(scene: Scene, criterion: SceneQuestion, other: SceneQuestion) -> str:
    """Would a change of the criterion's answer impact the other's?

    "in": some edit gives it another right answer. "none": no edit does, but under some the
    question loses its referent, so that no answer is right. "out": neither.
    """
    before = language.answer(scene, other)
    after = [language.answer(edited, other) for edited in edits_of(scene, criterion)]
    if any(answer is not None and answer != before for answer in after):
        return "in"
    return "none" if None in after else "out"


def scope_by_text(criterion: SceneQuestion, other: SceneQuestion) -> str:
    """What the words alone tell, without the picture: "in", "out" or "none" (cannot be told).

    The same way of naming settles whether two questions are about the same entity. Otherwise only
    the picture can, unless the other question asks for something else altogether.
    """
    if other.kind in ("exist", "count"):
        if other.kind == "count" or other.attribute != criterion.attribute:
            return "out"
        return "none"
    if other.attribute != criterion.attribute:
        return "none" if other.reference == criterion.attribute else "out"
    if other.reference == criterion.reference:
        return "in" if other.referent == criterion.referent else "out"
    return "none"


__all__ = ["ScenesSource", "edits_of", "scope", "scope_by_text"]
