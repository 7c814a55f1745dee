"""Scenes as a source for building benchmarks: every scope label is known exactly."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.files import atomic_path
from ..data.tools.construct.sources import QA, ImageGroup, Source
from . import language
from .questions import SceneQuestion, names
from .world import Entity, Scene, counterfactual, counterfactual_values, render, sample_scene

_NEAR = 0.3  # share of the questions about the fact that the criterion asks for


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
        """See :func:`scope`; the criterion is the first question of the group."""
        scene, asked = self.scenes[group.image]
        return scope(scene, asked[group.pairs[0].qid], asked[other.qid])

    def _pair(self, scene: Scene, qid: str, question: SceneQuestion, rng: random.Random) -> QA:
        answer = language.answer(scene, question) or ""  # the scene has what is asked about
        kind = {"open": "other", "count": "number"}.get(question.kind, "yes/no")
        others: tuple[str, ...] | None = None
        if question.kind == "open":
            others = counterfactual_values(scene, _entity(scene, question), question.attribute)
        text = language.phrase(question, rng)
        return QA(qid, text, answer, question.type, kind, alternatives=others)


def _entity(scene: Scene, question: SceneQuestion) -> Entity:
    """The entity that a question drawn from this scene is about."""
    entity = question.entity(scene)
    assert entity is not None
    return entity


def _criterion(scene: Scene, rng: random.Random) -> SceneQuestion:
    """An open question whose answer can be edited (nothing can move where no cell is free)."""
    while True:
        question = language.sample_question(scene, rng, "open")
        if counterfactual_values(scene, _entity(scene, question), question.attribute):
            return question


def _same_fact(scene: Scene, criterion: SceneQuestion) -> list[SceneQuestion]:
    """Other questions about the fact that the criterion asks for."""
    entity, attribute = _entity(scene, criterion), criterion.attribute
    values = {entity.value(attribute), *counterfactual_values(scene, entity, attribute)}
    found = [
        SceneQuestion("open", attribute, reference, referent)
        for reference, referent, _ in names(scene, entity)
        if reference != attribute
    ]
    offers = [replace(q, kind="verify", value=value) for q in found for value in sorted(values)]
    return [q for q in (*found, *offers) if q != criterion]


def edits_of(scene: Scene, criterion: SceneQuestion) -> Iterator[Scene]:
    """Every scene that an edit of the criterion's answer can lead to."""
    entity = _entity(scene, criterion)
    for value in counterfactual_values(scene, entity, criterion.attribute):
        yield counterfactual(scene, entity, criterion.attribute, value)


def scope(scene: Scene, criterion: SceneQuestion, other: SceneQuestion) -> str:
    """Whether an edit of the criterion's answer changes the answer to the other question.

    "in": some edit does. "none": no edit does, but after some the scene lacks the entity that the
    question names, so that no answer is right. "out": neither.
    """
    before = language.answer(scene, other)
    after = [language.answer(edited, other) for edited in edits_of(scene, criterion)]
    if any(answer is not None and answer != before for answer in after):
        return "in"
    return "none" if None in after else "out"
