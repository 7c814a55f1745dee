"""Questions about scenes, their exact answers, and a closed list of text-only facts.

Every question is about one entity, named by its shape, its colour or its place (or about the
whole scene: existence and count).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .facts import FACT_PREFIX, Fact, fact_questions, fact_words, known_facts
from .graph import ATTRIBUTES, Entity, Scene
from .questions import (
    CAPTION_PROMPT,
    NUMBERS,
    REFERENCES,
    SceneQuestion,
    answer,
    caption,
    existence,
    offered_value,
    paraphrases,
    phrase,
    template_words,
)

__all__ = [
    "CAPTION_PROMPT",
    "FACTS",
    "FACT_PREFIX",
    "NUMBERS",
    "QUESTION_TYPES",
    "REFERENCES",
    "Fact",
    "SceneQuestion",
    "all_texts",
    "answer",
    "caption",
    "fact_questions",
    "open_questions",
    "paraphrases",
    "phrase",
    "sample_question",
    "verify_question",
]

QUESTION_TYPES = (
    *(f"{a}_by_{r}" for a in ATTRIBUTES for r in REFERENCES if a != r),
    *(f"verify_{a}" for a in ATTRIBUTES),
    "exist",
    "count",
)
FACTS = known_facts(more=False)


def open_questions(entity: Entity) -> Iterator[SceneQuestion]:
    """The nine open questions about one entity."""
    for attribute in ATTRIBUTES:
        for reference in REFERENCES:
            if attribute != reference:
                yield SceneQuestion("open", attribute, reference, entity.value(reference))


def verify_question(entity: Entity, attribute: str, reference: str, value: str) -> SceneQuestion:
    """ "Is the circle red?" as structure."""
    return SceneQuestion("verify", attribute, reference, entity.value(reference), value)


def sample_question(scene: Scene, rng: random.Random, kind: str | None = None) -> SceneQuestion:
    """A question that this scene answers; yes/no questions are answered "yes" half the time."""
    kind = kind or rng.choices(("open", "verify", "exist", "count"), (8, 11, 2, 0.6))[0]
    if kind == "count":
        return SceneQuestion("count")
    truth = rng.random() < 0.5
    if kind == "exist":
        return existence(scene, truth, rng)
    entity = rng.choice(scene.entities)
    if kind == "open":
        return rng.choice(list(open_questions(entity)))
    attribute = rng.choice(ATTRIBUTES)
    reference = rng.choice([r for r in REFERENCES if r != attribute])
    value = offered_value(scene, entity, attribute, truth, rng)
    return verify_question(entity, attribute, reference, value)


def all_texts() -> Iterator[str]:
    """Texts that hold every word of the scenes' language, to make a vocabulary of."""
    yield from template_words()
    yield from fact_words(FACTS)
