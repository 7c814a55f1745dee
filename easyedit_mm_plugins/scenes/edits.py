"""Counterfactual edits of scenes, and the questions in and out of their scope."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import questions
from .language import (
    REFERENCES,
    SceneQuestion,
    answer,
    open_questions,
    paraphrases,
    phrase,
    verify_question,
)
from .world import (
    ATTRIBUTES,
    counterfactual_values,
    sample_scene,
)

YES_NO_SHARE = 0.3  # of the scope questions that are not in the reserve


class SceneEdit(questions.SceneEdit):
    """An edit of the first edition, with every question in and out of its scope."""

    def in_scope(self) -> list[tuple[SceneQuestion, str, bool]]:
        """Questions about the edited entity whose answer the edit changes.

        Returns:
            (question, answer after the edit, hard). Hard: the entity is named otherwise than in
            the edit. Rewordings of the edit's own question are not among them.
        """
        found = []
        for reference in REFERENCES:
            if reference == self.attribute:
                continue  # that name would mean something else after the edit
            name = self.entity.value(reference)
            asked = [SceneQuestion("open", self.attribute, reference, name)]
            asked += [
                verify_question(self.entity, self.attribute, reference, value)
                for value in (self.before, self.value)
            ]
            for question in asked:
                after = answer(self.edited, question)
                if question == self.question or after is None:
                    continue
                if after != answer(self.scene, question):
                    found.append((question, after, reference != self.question.reference))
        return found

    def out_scope(self) -> list[tuple[SceneQuestion, str, bool]]:
        """Questions about the other entities, answered alike before and after.

        Returns:
            (question, answer, hard). Hard: asks for the edited attribute in the edit's manner.
        """
        found = []
        for entity in self.scene.entities:
            if entity == self.entity:
                continue
            asked = list(open_questions(entity))
            for attribute in ATTRIBUTES:
                values = {entity.value(attribute)}
                if attribute == self.attribute:
                    values |= {self.before, self.value}
                asked += [
                    verify_question(entity, attribute, reference, value)
                    for reference in REFERENCES
                    if reference != attribute
                    for value in sorted(values)
                ]
            for question in asked:
                truth = answer(self.scene, question)
                if truth is None or truth != answer(self.edited, question):
                    continue
                hard = (
                    question.attribute == self.attribute
                    and question.reference == self.question.reference
                )
                found.append((question, truth, hard))
        return found


def draw_edit(rng: random.Random, split: str) -> SceneEdit:
    """A random edit of a random scene of a split; attributes are about equally frequent."""
    attribute = rng.choice(ATTRIBUTES)
    # A move needs a free cell.
    scene = sample_scene(rng, split, max_entities=3 if attribute == "place" else 4)
    entity = rng.choice(scene.entities)
    reference = rng.choice([r for r in REFERENCES if r != attribute])
    question = SceneQuestion("open", attribute, reference, entity.value(reference))
    value = rng.choice(counterfactual_values(scene, entity, attribute))
    return SceneEdit(scene, entity, question, value)


Scoped = tuple[SceneQuestion, str, bool]  # question, answer after the edit, hard


def _pick(questions: Sequence[Scoped], rng: random.Random) -> Scoped:
    """One of them; a yes/no question with the probability :data:`YES_NO_SHARE`."""
    kinds: dict[str, list[Scoped]] = {"open": [], "verify": []}
    for item in questions:
        kinds[item[0].kind].append(item)
    kind = "verify" if rng.random() < YES_NO_SHARE else "open"
    return rng.choice(kinds[kind] or kinds["open"] or kinds["verify"])


def scope_fields(edit: SceneEdit, src: str, wordings: str, rng: random.Random) -> dict:
    """The record fields on visual scopes: one hard question of each, six further ones.

    Args:
        src: the edit's words; hard out-of-scope questions often copy their pattern.
        wordings: which paraphrases may be used, ``"train"`` or ``"all"``.
    """
    pattern = paraphrases(edit.question, wordings).index(src)

    def words(question: SceneQuestion, alike: bool) -> str:
        if alike and question.kind == "open":
            return paraphrases(question, wordings)[pattern]
        return phrase(question, rng, wordings)

    fields: dict = {"fg_extra": {}}
    for side, found in (("in", edit.in_scope()), ("out", edit.out_scope())):
        first = _pick([f for f in found if f[2]], rng)
        chosen = [first]
        rest = [f for f in found if f != first]
        rng.shuffle(rest)
        if side == "out":  # half hard, half easy
            rest.sort(key=lambda f: f[2])
            rest = [f for f in rest if f[2]][:3] + [f for f in rest if not f[2]][:3]
        chosen += rest[:6]
        texts = [(words(q, side == "out" and h and rng.random() < 0.6), a, h) for q, a, h in chosen]
        name = "fg_gen" if side == "in" else "fg_loc"
        fields[f"{name}_q"], fields[f"{name}_a"] = texts[0][:2]
        fields["fg_extra"][side] = [{"q": q, "a": a, "hard": h} for q, a, h in texts[1:]]
    return fields
