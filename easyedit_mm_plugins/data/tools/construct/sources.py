"""The interface of a source of question-answer pairs about images.

A source gives :class:`ImageGroup` objects, one per image, in a fixed order; the first pair of a
group is the edit. Another source is a class with ``groups()``, registered in ``SOURCES`` or
by the entry point ``easyedit_mm_plugins.sources``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....core.errors import ConfigError, DataError
from ....core.text import text_problem
from ...entries import SOURCES
from ...images import image_path

_NUMBERS = frozenset("zero one two three four five six seven eight nine ten".split())


@dataclass(frozen=True)
class QA:
    """One question about an image and its right answer.

    Attributes:
        question_type: counterfactual answers are drawn from questions of the same type; as VQAv2's
            ``question_type`` ("what color is the").
        answer_type: "yes/no", "number" or "other", as in VQAv2.
        accepted: all answers that annotators gave; none of them becomes a counterfactual answer.
        alternatives: plausible wrong answers, if the source has them.
        rephrase: another wording, if the source has one.
    """

    qid: str
    question: str
    answer: str
    question_type: str
    answer_type: str
    accepted: tuple[str, ...] = ()
    alternatives: tuple[str, ...] | None = None
    rephrase: str | None = None


@dataclass(frozen=True)
class ImageGroup:
    """All pairs of one image; ``image`` is relative to the source's ``image_root``."""

    image_id: str
    image: str
    pairs: tuple[QA, ...]


class Source(ABC):
    """Question-answer pairs grouped by image.

    Attributes:
        name: as registered.
        image_root: folder that the groups' image paths are relative to.
        allow_outside: whether image paths may lead out of ``image_root``.
        example_nq: locality questions of the source itself, as (question, answer).
    """

    name: str = "source"
    image_root: Path
    allow_outside: bool = False
    example_nq: tuple[tuple[str, str], ...] = ()

    @abstractmethod
    def groups(self) -> Iterator[ImageGroup]:
        """The groups, always in the same order.

        Raises:
            DataError: a file that cannot be read or is not in the expected format.
        """

    def describe(self) -> dict[str, Any]:
        """What identifies the data in a build's protocol."""
        return {"source": self.name}

    def truth(self, group: ImageGroup, other: QA) -> str | None:
        """The scope of ``other`` ("in", "out", "none") if the source knows it, else None."""
        return None


def open_source(name: str, **options: Any) -> Source:
    """A registered source by name.

    Raises:
        UnknownNameError: no such source.
        ConfigError: an option that the source does not take, or one that it needs and lacks.
    """
    kind = SOURCES.get(name)
    try:
        return kind(**{k: v for k, v in options.items() if v not in (None, [], (), False)})
    except TypeError as error:
        if "argument" not in str(error):
            raise
        text = str(error).split("__init__() ")[-1]
        raise ConfigError(f"source {name}: {text}", remedy="see docs/data.md") from error


def guess_types(question: str, answer: str) -> tuple[str, str]:
    """A question type (its first words) and an answer type, for data without them."""
    words = question.lower().replace("?", " ").split()
    first = words[:2]
    if first[:1] == ["what"] and len(words) > 1 and words[1] in {"color", "kind", "type", "shape"}:
        first = words[:3]
    text = answer.strip().lower()
    if text in {"yes", "no"}:
        return " ".join(first), "yes/no"
    number = text.replace(",", "").replace(".", "", 1).isdigit() or text in _NUMBERS
    return " ".join(first), "number" if number else "other"


def group_pairs(items: Iterable[tuple[str, QA]]) -> Iterator[ImageGroup]:
    """Groups from (image path, pair), in order of each image's first appearance."""
    found: dict[str, list[QA]] = {}
    for image, pair in items:
        found.setdefault(image, []).append(pair)
    for image, pairs in found.items():
        yield ImageGroup(image, image, tuple(pairs))


def text_of(item: Any, field: str, file: Path, record: object) -> str:
    """A non-empty text field.

    Raises:
        DataError: it is missing, empty, not text or not valid Unicode.
    """
    if not isinstance(item, dict):
        raise DataError(f"is a {type(item).__name__}, not an object", file=file, record=record)
    value = item.get(field)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if value is None else "is empty or no text"
        raise DataError(
            what, file=file, record=record, field=field, remedy="mend or delete the record"
        )
    problem = text_problem(value)
    if problem:
        raise DataError(
            problem, file=file, record=record, field=field, remedy="write the text again as UTF-8"
        )
    return " ".join(value.split())


def image_of(source: Source, item: Any, file: Path, record: object) -> str:
    """The field ``image``: a path that stays within the source's ``image_root``.

    Raises:
        DataError: it is missing or no text, or leads out of the root and the source does not accept
            that (``allow_outside``).
    """
    name = text_of(item, "image", file, record)
    try:
        image_path(source.image_root, name, allow_outside=source.allow_outside)
    except DataError as error:
        raise DataError(
            error.message, file=file, record=record, field="image", remedy=error.remedy
        ) from None
    return name


def as_paths(value: str | Path | list[str | Path]) -> list[Path]:
    """One path or several, as a list."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [Path(v) for v in values]
