"""Questions about scenes, their exact answers, and a closed list of text-only facts.

A question is about one thing, named by its shape, its colour or its place, or by where it stands
from another thing; or it is about the whole scene (existence and count).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..facts import FACT_PREFIX, Fact, fact_questions, fact_words, known_facts
from ..questions import (
    CAPTION_PROMPT,
    NUMBERS,
    REFERENCES,
    SceneQuestion,
    answer,
    caption,
    existence,
    names,
    offered_value,
    paraphrases,
    phrase,
    relation_words,
    template_words,
)
from .world import ATTRIBUTES, Entity, Scene

__all__ = [
    "CAPTION_PROMPT",
    "EDITOR_FACTS",
    "FACTS",
    "FACT_PREFIX",
    "NUMBERS",
    "ONE_HOP_TYPES",
    "QUESTION_TYPES",
    "REFERENCES",
    "RELATED",
    "RELATION_TYPES",
    "UNSEEN_FACTS",
    "Fact",
    "SceneQuestion",
    "all_texts",
    "answer",
    "caption",
    "fact_questions",
    "names",
    "new_fact",
    "open_questions",
    "paraphrases",
    "phrase",
    "sample_question",
    "shown",
]

RELATED = ("color", "shape", "size")  # what may be asked of a thing named by a relation
ONE_HOP_TYPES = (
    *(f"{a}_by_{r}" for a in ATTRIBUTES for r in REFERENCES if a != r),
    *(f"verify_{a}" for a in ATTRIBUTES),
    "exist",
    "count",
)
RELATION_TYPES = (*(f"{a}_by_relation" for a in RELATED), "verify_by_relation")
QUESTION_TYPES = (*ONE_HOP_TYPES, *RELATION_TYPES)

FACTS = known_facts(more=True)
# Editors train on the first half of the facts and are examined on the second; the backbones know
# all of them.
EDITOR_FACTS, UNSEEN_FACTS = FACTS[::2], FACTS[1::2]


def open_questions(scene: Scene, entity: Entity) -> Iterator[SceneQuestion]:
    """The open questions about one thing, up to nine; it is named by its own values."""
    for reference, referent, _ in names(scene, entity):
        for attribute in ATTRIBUTES:
            if attribute != reference:
                yield SceneQuestion("open", attribute, reference, referent)


def sample_question(scene: Scene, rng: random.Random, kind: str | None = None) -> SceneQuestion:
    """A question that this scene answers; yes/no questions are answered "yes" half the time.

    Args:
        kind: ``"open"``, ``"verify"``, ``"exist"``, ``"count"`` or ``"relation"``.
    """
    if kind is None:
        kinds = ("open", "verify", "exist", "count", "relation")
        kind = rng.choices(kinds, (8, 11, 2, 0.6, 6))[0]
    if kind == "count":
        return SceneQuestion("count")
    truth = rng.random() < 0.5
    if kind == "exist":
        return existence(scene, truth, rng)
    related = kind == "relation"
    entity = rng.choice(scene.entities)
    found = names(scene, entity, relations=related)
    if not found:  # no neighbour, or none that a name of its own tells: ask about itself
        related, found = False, names(scene, entity)
    reference, referent, relation = rng.choice(found)
    asked = RELATED if related else tuple(a for a in ATTRIBUTES if a != reference)
    attribute = rng.choice(asked)
    if kind == "open" or (related and rng.random() < 0.8):
        return SceneQuestion("open", attribute, reference, referent, relation=relation)
    value = offered_value(scene, entity, attribute, truth, rng)
    return SceneQuestion("verify", attribute, reference, referent, value, relation)


def new_fact(question: str, value: str) -> str:
    """A fact that stands in front of a question, in EasyEdit's wording for IKE."""
    return f"New Fact: {question} {value}\nPrompt: "


def shown(question: str, value: str, asked: str, given: str) -> str:
    """A whole demonstration in EasyEdit's wording: a new fact, a question, its answer."""
    return f"{new_fact(question, value)}{asked} {given}\n\n"


def all_texts() -> Iterator[str]:
    """Texts that hold every word of the scenes' language, to make a vocabulary of."""
    yield from template_words()
    yield from relation_words()
    yield new_fact("", "")
    yield "user assistant system"
    yield from fact_words(FACTS)
