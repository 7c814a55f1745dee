"""Counterfactual edits of scenes, and the questions in and out of their scope."""

from __future__ import annotations

import random

from .. import questions
from . import language
from .language import SceneQuestion
from .world import (
    VALUES,
    Scene,
    counterfactual_values,
    sample_scene,
)

# What an edit changes. Not the place: no other thing can stand in the same one, so a query's right
# answer before the edit would tell whether it is about the edited thing.
EDITED = ("color", "shape", "size")


class SceneEdit(questions.SceneEdit):
    """An edit of the second edition."""

    def changes(self, question: SceneQuestion) -> bool | None:
        """Whether the edit changes the answer; None: it has none before or after."""
        before = language.answer(self.scene, question)
        after = language.answer(self.edited, question)
        return None if before is None or after is None else before != after


def draw_edit(scene: Scene, rng: random.Random) -> SceneEdit | None:
    """A random edit of a scene; None where the thing drawn has no name of its own."""
    entity, attribute = rng.choice(scene.entities), rng.choice(EDITED)
    found = [n for n in language.names(scene, entity) if n[0] != attribute]
    values = counterfactual_values(scene, entity, attribute)
    if not found or not values:
        return None
    reference, referent, _ = rng.choice(found)
    question = SceneQuestion("open", attribute, reference, referent)
    return SceneEdit(scene, entity, question, rng.choice(values))


def draw_any_edit(rng: random.Random, split: str) -> SceneEdit:
    """A random edit of a random scene of a split."""
    while True:
        if (edit := draw_edit(sample_scene(rng, split), rng)) is not None:
            return edit


# Facts in the prompt --------------------------------------------------------------------------


def draw_fact(scene: Scene, rng: random.Random) -> tuple[str, str, bool]:
    """A question on a scene behind a new fact, as EasyEdit's IKE puts it: (prompt, answer, whether
    the picture is shown).

    The fact is followed where it concerns the question, and not where it does not: about half of
    the draws each. Demonstrations of other facts may stand before it.
    """
    if rng.random() < 0.12:
        return _text_fact(rng)
    edit = None
    while edit is None:
        edit = draw_edit(scene, rng)
    fact = language.phrase(edit.question, rng)
    asked, answer, image = _asked(edit, fact, rng)
    prompt = _demonstrations(edit, fact, rng) + language.new_fact(fact, edit.value) + asked
    return prompt, answer, image


def _asked(edit: SceneEdit, fact: str, rng: random.Random) -> tuple[str, str, bool]:
    """What is asked behind the fact: (question, answer, whether the picture is shown)."""
    kind = rng.random()
    if kind < 0.25:
        return fact, edit.value, True
    if kind < 0.45:
        return language.phrase(edit.question, rng), edit.value, True
    if kind < 0.92:
        wanted = kind < 0.58  # in scope, by another name or as a yes/no question
        for _ in range(40):
            question = language.sample_question(edit.scene, rng)
            if question == edit.question or edit.changes(question) is not wanted:
                continue
            scene = edit.edited if wanted else edit.scene
            return language.phrase(question, rng), language.answer(scene, question) or "", True
    fact_asked = rng.choice(language.FACTS)
    return rng.choice(language.fact_questions(fact_asked)), fact_asked.answer, False


def _demonstrations(edit: SceneEdit, fact: str, rng: random.Random) -> str:
    """None to six other facts with a question each, and at times the fact's own copy."""
    count = rng.choices((0, 1, 2, 3, 4, 5, 6), (50, 14, 12, 10, 6, 4, 4))[0]
    parts = []
    for _ in range(count):
        other = draw_any_edit(rng, "train")
        # Retrieval finds facts that sound alike: the same question with another answer.
        text = fact if rng.random() < 0.4 else language.phrase(other.question, rng)
        if text == fact:
            values = [v for v in VALUES[edit.attribute] if v != edit.value]
            value, again = rng.choice(values), language.phrase(edit.question, rng)
        else:
            value, again = other.value, language.phrase(other.question, rng)
        form = rng.choice(("copy", "update", "retain"))
        if form == "retain":
            known = rng.choice(language.FACTS)
            asked = rng.choice(language.fact_questions(known))
            parts.append(language.shown(text, value, asked, known.answer))
        else:
            parts.append(language.shown(text, value, text if form == "copy" else again, value))
    if rng.random() < 0.4:
        parts.append(language.shown(fact, edit.value, fact, edit.value))
    return "".join(parts)


def _text_fact(rng: random.Random) -> tuple[str, str, bool]:
    """A new text-only fact: followed when it is asked for, and not by another question."""
    fact, other = rng.sample(language.FACTS, 2)
    asked = rng.choice(language.fact_questions(fact))
    if rng.random() < 0.6:
        prompt = language.new_fact(rng.choice(fact.questions), other.answer) + asked
        return prompt, other.answer, False
    known = rng.choice(language.fact_questions(other))
    third = rng.choice(language.FACTS)
    return language.new_fact(rng.choice(fact.questions), third.answer) + known, other.answer, False
