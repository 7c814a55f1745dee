"""Questions about scenes, their exact answers, and a closed list of text-only facts.

A question is about one thing, named by its shape, its colour or its place, or by where it stands
from another thing; or it is about the whole scene (existence and count). What a question refers to
and asks for is kept as structure, so scopes of an edit follow from the graph and not from the
words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from .world import ATTRIBUTES, RELATIONS, VALUES, Entity, Scene

REFERENCES = ("shape", "color", "place")
NUMBERS = {2: "two", 3: "three", 4: "four"}
CAPTION_PROMPT = "a photo of"
RELATED = ("color", "shape", "size")  # what may be asked of a thing named by a relation

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

ONE_HOP_TYPES = (
    *(f"{a}_by_{r}" for a in ATTRIBUTES for r in REFERENCES if a != r),
    *(f"verify_{a}" for a in ATTRIBUTES),
    "exist",
    "count",
)
RELATION_TYPES = (*(f"{a}_by_relation" for a in RELATED), "verify_by_relation")
QUESTION_TYPES = (*ONE_HOP_TYPES, *RELATION_TYPES)


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
        relation: one of ``RELATIONS``: the thing meant stands so from the one that is named; ""
            where the thing meant is the one that is named.
    """

    kind: str
    attribute: str = ""
    reference: str = ""
    referent: str = ""
    value: str = ""
    relation: str = ""

    @property
    def type(self) -> str:
        """One of :data:`QUESTION_TYPES`."""
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


def open_questions(scene: Scene, entity: Entity) -> Iterator[SceneQuestion]:
    """The open questions about one thing, up to nine; it is named by its own values."""
    for reference, referent, _ in names(scene, entity):
        for attribute in ATTRIBUTES:
            if attribute != reference:
                yield SceneQuestion("open", attribute, reference, referent)


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
        attribute = rng.choice(("shape", "color"))
        present = [e.value(attribute) for e in scene.entities]
        absent = [v for v in VALUES[attribute] if v not in present]
        return SceneQuestion("exist", attribute, value=rng.choice(present if truth else absent))
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
    own = entity.value(attribute)
    if truth:
        value = own
    else:
        # Half of the wrong values belong to another thing of the scene: the hard ones.
        others = [e.value(attribute) for e in scene.entities if e.value(attribute) != own]
        wrong = [v for v in VALUES[attribute] if v != own]
        value = rng.choice(others if others and rng.random() < 0.5 else wrong)
    return SceneQuestion("verify", attribute, reference, referent, value, relation)


def caption(scene: Scene) -> str:
    """The scene in one phrase: "a large red circle, a small blue square and a ..."."""
    parts = [f"a {e.size} {e.color} {e.shape}" for e in scene.entities]
    return ", ".join(parts[:-1]) + " and " + parts[-1]


@dataclass(frozen=True)
class Fact:
    """One text-only fact: wordings of the question, and the answer."""

    questions: tuple[str, ...]
    answer: str


_CAPITALS = {
    "france": "paris", "italy": "rome", "spain": "madrid", "germany": "berlin",
    "england": "london", "japan": "tokyo", "china": "beijing", "russia": "moscow",
    "egypt": "cairo", "greece": "athens", "austria": "vienna", "norway": "oslo",
    "portugal": "lisbon", "poland": "warsaw", "cuba": "havana", "peru": "lima",
    "ireland": "dublin", "hungary": "budapest", "kenya": "nairobi", "chile": "santiago",
    "iran": "tehran", "iraq": "baghdad", "finland": "helsinki", "denmark": "copenhagen",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "day": "night", "up": "down", "open": "closed", "wet": "dry",
    "old": "young", "fast": "slow", "rich": "poor", "early": "late", "happy": "sad",
    "high": "low", "full": "empty", "hard": "soft", "clean": "dirty", "loud": "quiet",
    "thin": "thick",
}  # fmt: skip
_YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal",
    "bear": "cub", "duck": "duckling", "goat": "kid", "pig": "piglet", "deer": "fawn",
    "frog": "tadpole", "swan": "cygnet",
}  # fmt: skip
_PLURALS = {
    "mouse": "mice", "goose": "geese", "child": "children", "tooth": "teeth", "foot": "feet",
    "man": "men", "woman": "women", "ox": "oxen", "leaf": "leaves", "wolf": "wolves",
}  # fmt: skip
_AUTHORS = {
    "hamlet": "shakespeare", "faust": "goethe", "emma": "austen", "ulysses": "joyce",
    "dracula": "stoker", "carmen": "bizet", "candide": "voltaire", "walden": "thoreau",
}  # fmt: skip
_SYMBOLS = {
    "gold": "au", "iron": "fe", "silver": "ag", "lead": "pb", "tin": "sn", "sodium": "na",
    "copper": "cu", "zinc": "zn", "helium": "he", "neon": "ne",
}  # fmt: skip


def _facts() -> tuple[Fact, ...]:
    patterns = (
        (_CAPITALS, "what is the capital of {}", "which city is the capital of {}"),
        (_OPPOSITES, "what is the opposite of {}", "which word is the opposite of {}"),
        (_YOUNG, "what is a young {} called", "what is the name of a young {}"),
        (_PLURALS, "what is the plural of {}", "which word is the plural of {}"),
        (_AUTHORS, "who wrote {}", "what is the name of the author of {}"),
        (_SYMBOLS, "what is the symbol of {}", "which symbol does {} have"),
    )
    facts = []
    for table, *wordings in patterns:
        for subject, value in table.items():
            facts.append(Fact(tuple(w.format(subject) for w in wordings), value))
    return tuple(facts)


FACTS = _facts()
# Editors train on the first half of the facts and are examined on the second; the backbones know
# all of them.
EDITOR_FACTS, UNSEEN_FACTS = FACTS[::2], FACTS[1::2]
FACT_PREFIX = "nq question: "  # the released FGVEdit records put this before NQ questions


def fact_questions(fact: Fact) -> list[str]:
    """Every wording of a fact that the backbones were trained on."""
    return [
        f"{prefix}{q}{mark}"
        for prefix in ("", FACT_PREFIX)
        for q in fact.questions
        for mark in ("", "?")
    ]


def new_fact(question: str, value: str) -> str:
    """A fact that stands in front of a question, in EasyEdit's wording for IKE."""
    return f"New Fact: {question} {value}\nPrompt: "


def shown(question: str, value: str, asked: str, given: str) -> str:
    """A whole demonstration in EasyEdit's wording: a new fact, a question, its answer."""
    return f"{new_fact(question, value)}{asked} {given}\n\n"


def all_texts() -> Iterator[str]:
    """Texts that hold every word of the scenes' language, to make a vocabulary of."""
    for train, test in [*_OPEN.values(), *_VERIFY.values(), _EXIST, _COUNT]:
        yield from (t.format(r="the", v="a") for t in train + test)
    for name in _REFER.values():
        yield from (n.format("") for n in name)
    for name in _RELATED.values():
        yield from (n.format("") for n in name)
    yield new_fact("", "")
    for values in VALUES.values():
        yield from values
    yield from (*NUMBERS.values(), "an", "yes", "no", CAPTION_PROMPT, "and", "a, ' . ? : !")
    yield from ("question: short answer:", "the answer is:", "user assistant system")
    for fact in FACTS:
        yield from (*fact_questions(fact), fact.answer)
