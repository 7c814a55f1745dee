"""Text-only facts: a closed list of questions with one answer each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """One text-only fact: wordings of the question, and the answer."""

    questions: tuple[str, ...]
    answer: str


FACT_PREFIX = "nq question: "  # the released FGVEdit records put this before NQ questions

# Of each pattern: the first edition's facts, what the second adds, and two wordings.
_CAPITALS = {
    "france": "paris", "italy": "rome", "spain": "madrid", "germany": "berlin",
    "england": "london", "japan": "tokyo", "china": "beijing", "russia": "moscow",
    "egypt": "cairo", "greece": "athens", "austria": "vienna", "norway": "oslo",
    "portugal": "lisbon", "poland": "warsaw", "cuba": "havana", "peru": "lima",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "day": "night", "up": "down", "open": "closed", "wet": "dry",
    "old": "young", "fast": "slow", "rich": "poor", "early": "late", "happy": "sad",
}  # fmt: skip
_YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal",
    "bear": "cub", "duck": "duckling", "goat": "kid",
}  # fmt: skip
_PLURALS = {
    "mouse": "mice", "goose": "geese", "child": "children", "tooth": "teeth", "foot": "feet",
    "man": "men",
}  # fmt: skip
_AUTHORS = {
    "hamlet": "shakespeare", "faust": "goethe", "emma": "austen", "ulysses": "joyce",
    "dracula": "stoker", "carmen": "bizet",
}  # fmt: skip
_SYMBOLS = {"gold": "au", "iron": "fe", "silver": "ag", "lead": "pb", "tin": "sn", "sodium": "na"}
_PATTERNS: tuple[tuple[dict[str, str], dict[str, str], str, str], ...] = (
    (
        _CAPITALS,
        {
            "ireland": "dublin", "hungary": "budapest", "kenya": "nairobi", "chile": "santiago",
            "iran": "tehran", "iraq": "baghdad", "finland": "helsinki", "denmark": "copenhagen",
        },
        "what is the capital of {}",
        "which city is the capital of {}",
    ),
    (
        _OPPOSITES,
        {
            "high": "low", "full": "empty", "hard": "soft", "clean": "dirty", "loud": "quiet",
            "thin": "thick",
        },
        "what is the opposite of {}",
        "which word is the opposite of {}",
    ),
    (
        _YOUNG,
        {"pig": "piglet", "deer": "fawn", "frog": "tadpole", "swan": "cygnet"},
        "what is a young {} called",
        "what is the name of a young {}",
    ),
    (
        _PLURALS,
        {"woman": "women", "ox": "oxen", "leaf": "leaves", "wolf": "wolves"},
        "what is the plural of {}",
        "which word is the plural of {}",
    ),
    (
        _AUTHORS,
        {"candide": "voltaire", "walden": "thoreau"},
        "who wrote {}",
        "what is the name of the author of {}",
    ),
    (
        _SYMBOLS,
        {"copper": "cu", "zinc": "zn", "helium": "he", "neon": "ne"},
        "what is the symbol of {}",
        "which symbol does {} have",
    ),
)  # fmt: skip


def known_facts(*, more: bool) -> tuple[Fact, ...]:
    """The 52 facts of the first edition, or with ``more`` the 80 of the second."""
    return tuple(
        Fact((one.format(subject), other.format(subject)), value)
        for first, further, one, other in _PATTERNS
        for subject, value in (first | further if more else first).items()
    )


def fact_questions(fact: Fact) -> list[str]:
    """Every wording of a fact that the backbones were trained on."""
    return [
        f"{prefix}{q}{mark}"
        for prefix in ("", FACT_PREFIX)
        for q in fact.questions
        for mark in ("", "?")
    ]


def fact_words(facts: Sequence[Fact]) -> list[str]:
    """Every wording and answer."""
    return [text for fact in facts for text in (*fact_questions(fact), fact.answer)]
