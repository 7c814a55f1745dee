"""Questions about scenes: their structure, their words and their exact answers.

What a question refers to and asks for is kept as structure, so scopes of an edit follow from the
graph and not from the words. Both editions of the world share this; each says which questions it
draws.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .graph import RELATIONS, VALUES, Entity, Scene, counterfactual

REFERENCES = ("shape", "color", "place")
NUMBERS = {2: "two", 3: "three", 4: "four"}
CAPTION_PROMPT = "a photo of"

# {r} is the reference ("the circle"), {v} the value that is asked about.
# The second list of each pair is held out: never seen in training. A held-out wording recombines
# what other wordings taught; a small model cannot know a word order that it has never met.
_OPEN: dict[str, tuple[list[str], list[str]]] = {
    "color": (
        [
            "what color is {r}?",
            "what is the color of {r}?",
            "which color does {r} have?",
            "tell me the color of {r}.",
            "{r} is what color?",
        ],
        ["what color does {r} have?"],
    ),
    "shape": (
        [
            "what shape is {r}?",
            "what is the shape of {r}?",
            "which shape does {r} have?",
            "tell me the shape of {r}.",
            "{r} is what shape?",
        ],
        ["what shape does {r} have?"],
    ),
    "size": (
        [
            "what size is {r}?",
            "what is the size of {r}?",
            "how big is {r}?",
            "which size does {r} have?",
            "{r} is what size?",
            "tell me the size of {r}.",
        ],
        ["what size does {r} have?"],
    ),
    "place": (
        [
            "where is {r}?",
            "in which corner is {r}?",
            "what is the place of {r}?",
            "where in the picture is {r}?",
            "{r} is in which corner?",
        ],
        ["tell me the place of {r}.", "in what corner is {r}?"],
    ),
}
_VERIFY: dict[str, tuple[list[str], list[str]]] = {
    "color": (
        [
            "is {r} {v}?",
            "is the color of {r} {v}?",
            "does {r} have the color {v}?",
            "{r} is {v}, is it?",
        ],
        ["is {v} the color of {r}?", "does {r} have a {v} color?"],
    ),
    "shape": (
        [
            "is {r} a {v}?",
            "is the shape of {r} a {v}?",
            "does {r} have the shape of a {v}?",
            "is a {v} the shape of {r}?",
            "{r} is a {v}, is it?",
        ],
        ["does {r} have the shape {v}?", "does {r} have a {v} shape?"],
    ),
    "size": (
        [
            "is {r} {v}?",
            "is the size of {r} {v}?",
            "does {r} have a {v} size?",
            "is {v} the size of {r}?",
            "{r} is {v}, is it?",
        ],
        ["does {r} have the size {v}?", "does {r} have the {v} size?"],
    ),
    "place": (
        [
            "is {r} in the {v}?",
            "is the place of {r} the {v}?",
            "is {r} in the {v} corner?",
            "is the {v} the place of {r}?",
            "{r} is in the {v}, is it?",
        ],
        ["{r} is in the {v} corner, is it?", "is the {v} corner the place of {r}?"],
    ),
}
_EXIST: tuple[list[str], list[str]] = (
    [
        "is there {v}?",
        "does the picture have {v}?",
        "is there {v} in the picture?",
        "there is {v}, is there?",
    ],
    ["does the picture have {v} in it?", "there is {v} in the picture, is there?"],
)
_COUNT: tuple[list[str], list[str]] = (
    [
        "how many things are there?",
        "how many things are in the picture?",
        "what is the number of things?",
        "how many things does the picture have?",
    ],
    ["tell me the number of things.", "what is the number of things in the picture?"],
)
_REFER = {
    "shape": ["the {}"],
    "color": ["the {} thing", "the {} one"],
    "place": ["the thing in the {}", "the {} thing", "the thing in the {} corner"],
}

_RELATED = {
    "left of": ["the thing left of {}", "the thing to the left of {}"],
    "right of": ["the thing right of {}", "the thing to the right of {}"],
    "above": ["the thing above {}", "the thing just above {}"],
    "below": ["the thing below {}", "the thing just below {}"],
}


@dataclass(frozen=True)
class SceneQuestion:
    """What is asked, free of words.

    Attributes:
        kind: ``"open"``, ``"verify"``, ``"exist"`` or ``"count"``.
        attribute: what is asked about (for ``exist``: the kind of thing, shape or colour).
        reference: ``"shape"``, ``"color"`` or ``"place"``: how the entity is named; "" for
            ``exist`` and ``count``.
        referent: the naming value, such as ``"circle"`` or ``"top left"``.
        value: the value offered by a yes/no question.
        relation: one of :data:`graph.RELATIONS`: the thing meant stands so from the one that is
            named; "" where the thing meant is the one that is named.
    """

    kind: str
    attribute: str = ""
    reference: str = ""
    referent: str = ""
    value: str = ""
    relation: str = ""

    @property
    def type(self) -> str:
        """One of an edition's ``QUESTION_TYPES``."""
        if self.kind == "open":
            return f"{self.attribute}_by_{'relation' if self.relation else self.reference}"
        if self.kind == "verify":
            return "verify_by_relation" if self.relation else f"verify_{self.attribute}"
        return self.kind

    def entity(self, scene: Scene) -> Entity | None:
        """The thing meant; None when the scene has none, or the question is not about one."""
        if not self.reference:
            return None
        named = scene.find(self.reference, self.referent)
        if named is None or not self.relation:
            return named
        return scene.related(self.relation, named)


def answer(scene: Scene, question: SceneQuestion) -> str | None:
    """The exact answer; None when the scene does not have the entity asked about."""
    if question.kind == "count":
        return NUMBERS[len(scene.entities)]
    if question.kind == "exist":
        values = {e.value(question.attribute) for e in scene.entities}
        return "yes" if question.value in values else "no"
    entity = question.entity(scene)
    if entity is None:
        return None
    value = entity.value(question.attribute)
    if question.kind == "open":
        return value
    return "yes" if value == question.value else "no"


def _templates(question: SceneQuestion) -> tuple[list[str], list[str]]:
    if question.kind == "count":
        return _COUNT
    if question.kind == "exist":
        return _EXIST
    return (_OPEN if question.kind == "open" else _VERIFY)[question.attribute]


def paraphrases(question: SceneQuestion, split: str = "train") -> list[str]:
    """All wordings of a question; the first is the plainest.

    Args:
        split: ``"train"``, ``"test"`` (held-out wordings) or ``"all"``.
    """
    train, test = _templates(question)
    templates = {"train": train, "test": test, "all": train + test}[split]
    if question.kind == "count":
        return list(templates)
    if question.kind == "exist":
        article = "an" if question.value[0] in "aeiou" else "a"
        thing = question.value if question.attribute == "shape" else f"{question.value} thing"
        return [t.format(v=f"{article} {thing}") for t in templates]
    called = [n.format(question.referent) for n in _REFER[question.reference]]
    if question.relation:
        called = [n.format(called[0]) for n in _RELATED[question.relation]]
    return [t.format(r=n, v=question.value) for n in called for t in templates]


def phrase(question: SceneQuestion, rng: random.Random, split: str = "train") -> str:
    """One wording drawn at random."""
    return rng.choice(paraphrases(question, split))


def names(scene: Scene, entity: Entity, *, relations: bool = False) -> list[tuple[str, str, str]]:
    """How ``entity`` can be named in ``scene``, as (reference, referent, relation).

    By each of its own values that no other thing has; with ``relations`` by where it stands from
    its neighbours instead, each named by such a value (never by a place).
    """
    if not relations:
        own = [(r, entity.value(r), "") for r in REFERENCES]
        return [n for n in own if scene.find(n[0], n[1]) is not None]
    return [
        (reference, anchor.value(reference), relation)
        for anchor in scene.entities
        for relation in RELATIONS
        if anchor != entity and scene.related(relation, anchor) == entity
        for reference in ("shape", "color")
        if scene.find(reference, anchor.value(reference)) is not None
    ]


def offered_value(
    scene: Scene, entity: Entity, attribute: str, truth: bool, rng: random.Random
) -> str:
    """The value that a yes/no question offers: the thing's own, or a wrong one.

    Half of the wrong values belong to another thing of the scene: the hard ones.
    """
    own = entity.value(attribute)
    if truth:
        return own
    others = [e.value(attribute) for e in scene.entities if e.value(attribute) != own]
    wrong = [v for v in VALUES[attribute] if v != own]
    return rng.choice(others if others and rng.random() < 0.5 else wrong)


def existence(scene: Scene, truth: bool, rng: random.Random) -> SceneQuestion:
    """Whether there is a thing of some shape or colour; answered "yes" if ``truth``."""
    attribute = rng.choice(("shape", "color"))
    present = [e.value(attribute) for e in scene.entities]
    absent = [v for v in VALUES[attribute] if v not in present]
    return SceneQuestion("exist", attribute, value=rng.choice(present if truth else absent))


def caption(scene: Scene) -> str:
    """The scene in one phrase: "a large red circle, a small blue square and a ..."."""
    parts = [f"a {e.size} {e.color} {e.shape}" for e in scene.entities]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


@dataclass(frozen=True)
class SceneEdit:
    """One attribute of one thing set to a value that the scene does not have.

    Attributes:
        question: the open question that the edit is made with.
        value: y_e, the answer after the edit.
    """

    scene: Scene
    entity: Entity
    question: SceneQuestion
    value: str

    @property
    def attribute(self) -> str:
        """What is edited."""
        return self.question.attribute

    @property
    def before(self) -> str:
        """The scene's own answer."""
        return self.entity.value(self.attribute)

    @cached_property
    def edited(self) -> Scene:
        """The graph after the edit."""
        return counterfactual(self.scene, self.entity, self.attribute, self.value)


def template_words() -> Iterator[str]:
    """Texts that hold every word of the questions without a relation."""
    for train, test in [*_OPEN.values(), *_VERIFY.values(), _EXIST, _COUNT]:
        yield from (t.format(r="the", v="a") for t in train + test)
    for name in _REFER.values():
        yield from (n.format("") for n in name)
    for values in VALUES.values():
        yield from values
    yield from (*NUMBERS.values(), "an", "yes", "no", CAPTION_PROMPT, "and", "a, ' . ? : !")
    yield from ("question: short answer:", "the answer is:")


def relation_words() -> Iterator[str]:
    """Texts that hold every word of the relations."""
    for name in _RELATED.values():
        yield from (n.format("") for n in name)
