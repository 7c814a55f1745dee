"""One image: the questions to the judge, and the record made from its replies."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ....core.errors import ConfigError, DataError
from .answers import AnswerPool
from .ask import Asker
from .prompts import normalise
from .sources import QA, ImageGroup, Source

LOG = logging.getLogger(__name__)
_SCOPES = {"Yes": "in", "No": "out", "Maybe": "none"}


@dataclass(frozen=True)
class BuildConfig:
    """The settings that decide the records, besides the data and the judge.

    Attributes:
        seed: of counterfactual answers, locality questions and the split.
        limit: number of images to use, from the first.
        max_questions: number of questions of an image to use, from the first.
        alt: where counterfactual answers come from.
        test_share: share of images in the test file; the paper splits 3:1.
        both_sides: leave out records that lack questions in scope or out of scope.
        balance: "texts" leaves out hard questions whose texts tell the scope too surely, see
            ``balance.py``.
        balance_to: percent; the routing accuracy that a learned judge of texts may then reach.
        tries: how often the judge is asked until its reply can be used.
    """

    seed: int = 0
    limit: int | None = None
    max_questions: int | None = None
    alt: Literal["distribution", "judge"] = "distribution"
    test_share: float = 0.25
    both_sides: bool = False
    tries: int = 3
    balance: Literal["none", "texts"] = "none"
    balance_to: float = 55.0

    def __post_init__(self) -> None:
        if self.alt not in ("distribution", "judge"):
            raise ConfigError(f"alt is {self.alt!r}; known: distribution, judge")
        if self.balance not in ("none", "texts"):
            raise ConfigError(f"balance is {self.balance!r}; known: none, texts")
        if not 50 <= self.balance_to < 100:
            raise ConfigError(
                f"balance_to is {self.balance_to}, must be from 50 to below 100",
                remedy="50 % is chance; 55 leaves room for it",
            )
        if not 0 <= self.test_share < 1:
            raise ConfigError(f"test_share is {self.test_share}, must be in [0, 1)")
        for name in ("limit", "max_questions", "tries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, must be at least 1")


@dataclass
class Case:
    """The outcome for one image; ``dropped`` says why there is no record."""

    record: dict[str, Any] | None = None
    labels: list[dict[str, Any]] = field(default_factory=list)
    dropped: str | None = None


def make_case(
    group: ImageGroup, source: Source, asker: Asker, pool: AnswerPool, config: BuildConfig
) -> Case:
    """Ask the judge about one image and make its record."""
    if len(group.pairs) < 2:
        return Case(dropped="only one question")
    first, others = group.pairs[0], group.pairs[1:]
    image = source.image_root / group.image
    case = Case()
    sides: dict[str, list[tuple[bool, QA]]] = {"in": [], "out": [], "none": []}
    seen = {normalise(first.question)}
    try:
        for pair in others:
            if normalise(pair.question) in seen:
                continue  # asked twice about the same image
            seen.add(normalise(pair.question))
            texts = (first.question, first.answer, pair.question, pair.answer)
            with_image = asker.verdict(*texts, image)
            by_text = asker.verdict(*texts, None)
            scope = _SCOPES[with_image]
            hard = scope != "none" and by_text != with_image
            sides[scope].append((hard, pair))
            label = {
                "image": group.image,
                "criterion": first.question,
                "question": pair.question,
                "qid": pair.qid,
                "with_image": with_image,
                "by_text": by_text,
                "scope": scope,
                "hard": hard,
            }
            truth = source.truth(group, pair)
            case.labels.append(label | ({"truth": truth} if truth is not None else {}))
        return _finish(case, group, first, sides, image, asker, pool, config)
    except DataError as error:
        LOG.warning("%s left out: %s", group.image, error.message)
        return Case(dropped="image not usable")


def _finish(
    case: Case,
    group: ImageGroup,
    first: QA,
    sides: dict[str, list[tuple[bool, QA]]],
    image: Path,
    asker: Asker,
    pool: AnswerPool,
    config: BuildConfig,
) -> Case:
    """Get answers and rephrase, and make the record; ``case.dropped`` says why there is none."""
    if not any(hard for side in ("in", "out") for hard, _ in sides[side]):
        case.dropped = "no hard question"
        return case
    if config.both_sides and not (sides["in"] and sides["out"]):
        case.dropped = "questions on one side only"
        return case
    alt = (
        asker.alternative(first.question, first.answer, image)
        if config.alt == "judge"
        else pool.draw(first, config.seed)
    )
    if alt is None:
        case.dropped = "no other answer"
        return case
    rephrase = first.rephrase or asker.rephrase(first.question)
    if rephrase is None:
        case.dropped = "no rephrase"
        return case
    inside = []
    for hard, pair in sides["in"]:
        answer = asker.after(first.question, first.answer, alt, pair.question, pair.answer, image)
        if answer is not None:
            changed = normalise(answer) != normalise(pair.answer)
            inside.append((hard, changed, pair.question, answer))
    outside = [(hard, False, pair.question, pair.answer) for hard, pair in sides["out"]]
    if not any(x[0] for x in inside + outside):
        case.dropped = "no answer to a hard question"
        return case
    case.record = {
        "case_id": group.image_id,
        "src": first.question,
        "pred": first.answer,
        "alt": alt,
        "rephrase": rephrase,
        "image": group.image,
        **_scope_fields(inside, outside),
    }
    return case


def _scope_fields(
    inside: list[tuple[bool, bool, str, str]], outside: list[tuple[bool, bool, str, str]]
) -> dict[str, Any]:
    """``fg_gen`` and ``fg_loc`` with the best question of each side, the others in ``fg_extra``."""
    fields: dict[str, Any] = {}
    extra = {}
    for name, side, found in (("fg_gen", "in", inside), ("fg_loc", "out", outside)):
        # Hard questions first, then those whose answer the edit changes, then the data's order.
        ranked = sorted(found, key=lambda x: (not x[0], not x[1]))
        if ranked:
            fields[f"{name}_q"], fields[f"{name}_a"] = ranked[0][2:]
            fields[f"{name}_hard"] = ranked[0][0]
        extra[side] = [{"q": q, "a": a, "hard": hard} for hard, _, q, a in ranked[1:]]
    return fields | {"fg_extra": extra}
