"""Where question-answer pairs come from: one small interface, several formats behind it.

A source gives :class:`ImageGroup` objects, one per image, in a fixed order; the first pair of a
group is what is edited. Another source is a class with ``groups()``, registered in ``SOURCES`` or
by the entry point ``easyedit_mm_plugins.sources``.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError, DataError
from ...files import read_json
from ...registry import Registry

SOURCES = Registry("source", "easyedit_mm_plugins.sources")

_NUMBERS = frozenset("zero one two three four five six seven eight nine ten".split())


@dataclass(frozen=True)
class QA:
    """One question about an image and its right answer.

    Attributes:
        question_type: the group that counterfactual answers are drawn within, as VQAv2's
            ``question_type`` ("what color is the").
        answer_type: "yes/no", "number" or "other", as in VQAv2.
        accepted: every answer that somebody gave; none of them becomes a counterfactual answer.
        alternatives: plausible different answers, where the source knows them.
        rephrase: another wording, where the source has one.
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
        image_root: what the groups' image paths are relative to.
        example_nq: locality questions that come with the source, if any, as (question, answer).
    """

    name: str = "source"
    image_root: Path
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
        ConfigError: options that it does not take, or lacks.
    """
    kind = SOURCES.get(name)
    try:
        return kind(**{k: v for k, v in options.items() if v not in (None, [], ())})
    except TypeError as error:
        if "argument" not in str(error):
            raise
        text = str(error).split("__init__() ")[-1]
        raise ConfigError(f"source {name}: {text}", remedy="see docs/data.md") from error


def guess_types(question: str, answer: str) -> tuple[str, str]:
    """A question type (its first words) and an answer type, for data that has none."""
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
        DataError: it is missing, empty or no text.
    """
    if not isinstance(item, dict):
        raise DataError(f"is a {type(item).__name__}, not an object", file=file, record=record)
    value = item.get(field)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if value is None else "is empty or no text"
        raise DataError(
            what, file=file, record=record, field=field, remedy="mend or delete the record"
        )
    return " ".join(value.split())


class VQAv2Source(Source):
    """The official VQAv2 files and COCO 2014 images.

    Args:
        questions: one or several ``v2_OpenEnded_mscoco_*_questions.json``.
        annotations: the ``v2_mscoco_*_annotations.json`` of the same parts, in any order.
        images: the folder that holds ``train2014/`` and ``val2014/``.
    """

    name = "vqav2"

    def __init__(
        self,
        questions: str | Path | list[str | Path],
        annotations: str | Path | list[str | Path],
        images: str | Path,
    ) -> None:
        self.questions, self.annotations = _paths(questions), _paths(annotations)
        self.image_root = Path(images)

    def describe(self) -> dict[str, Any]:
        files = [path.name for path in (*self.questions, *self.annotations)]
        return {"source": self.name, "files": files}

    def groups(self) -> Iterator[ImageGroup]:
        answers = self._annotations()
        found: dict[tuple[str, int], list[QA]] = {}
        for path in self.questions:
            content = _object(path)
            subtype = content.get("data_subtype")
            if not isinstance(subtype, str) or not subtype.replace("_", "").isalnum():
                raise DataError("is missing or odd", file=path, field="data_subtype")
            for number, item in enumerate(_list(content, "questions", path)):
                question = text_of(item, "question", path, number)
                qid = _whole(item, "question_id", path, number)
                image = _whole(item, "image_id", path, number)
                if qid not in answers:
                    continue
                if answers[qid].get("image_id", image) != image:
                    raise DataError(
                        "has another image_id in the annotations",
                        file=path,
                        record=number,
                        field="image_id",
                        remedy="give the questions and annotations of the same release",
                    )
                pair = self._pair(qid, question, answers[qid])
                found.setdefault((subtype, image), []).append(pair)
        if not found:
            raise DataError(
                "no question has an annotation",
                file=self.questions[0],
                remedy="give the questions and annotations of the same part (train or val)",
            )
        for (subtype, image), pairs in found.items():
            name = f"COCO_{subtype}_{image:012d}"
            yield ImageGroup(name, f"{subtype}/{name}.jpg", tuple(pairs))

    def _annotations(self) -> dict[int, dict[str, Any]]:
        found = {}
        for path in self.annotations:
            for number, item in enumerate(_list(_object(path), "annotations", path)):
                text_of(item, "multiple_choice_answer", path, number)
                found[_whole(item, "question_id", path, number)] = item | {"_where": (path, number)}
        return found

    def _pair(self, qid: int, question: str, item: dict[str, Any]) -> QA:
        file, number = item["_where"]
        answer = text_of(item, "multiple_choice_answer", file, number)
        kinds = guess_types(question, answer)
        given = item.get("answers") or []
        if not isinstance(given, list):
            raise DataError("is not a list", file=file, record=number, field="answers")
        accepted = dict.fromkeys(
            " ".join(a["answer"].split())
            for a in given
            if isinstance(a, dict) and isinstance(a.get("answer"), str) and a["answer"].strip()
        )
        types = [
            value if isinstance(value := item.get(field), str) and value.strip() else kind
            for field, kind in zip(("question_type", "answer_type"), kinds, strict=True)
        ]
        return QA(str(qid), question, answer, *types, accepted=tuple(accepted))


class EVQASource(Source):
    """E-VQA's files, its edits taken as questions: ``alt`` is the right answer there.

    Args:
        files: ``vqa_train.json``, ``vqa_eval.json``.
        images: the folder that holds ``val2014/``.
    """

    name = "e-vqa"

    def __init__(self, files: str | Path | list[str | Path], images: str | Path) -> None:
        self.files, self.image_root = _paths(files), Path(images)

    def describe(self) -> dict[str, Any]:
        return {"source": self.name, "files": [path.name for path in self.files]}

    def groups(self) -> Iterator[ImageGroup]:
        return group_pairs(self._items())

    def _items(self) -> Iterator[tuple[str, QA]]:
        for path in self.files:
            content = read_json(path)
            if not isinstance(content, list):
                raise DataError("is not a list of records", file=path)
            for number, item in enumerate(content):
                texts = [text_of(item, f, path, number) for f in ("src", "alt", "image")]
                question, answer, image = texts
                kinds = guess_types(question, answer)
                rephrase = item.get("rephrase")
                again = rephrase if isinstance(rephrase, str) and rephrase.strip() else None
                yield image, QA(f"{path.stem}-{number}", question, answer, *kinds, rephrase=again)


class EasyVQASource(Source):
    """The images and questions inside the package ``easy-vqa``.

    Args:
        split: "train" or "test".
    """

    name = "easy-vqa"

    def __init__(self, split: str = "train") -> None:
        from ..optional import need

        if split not in ("train", "test"):
            raise ConfigError(f"unknown split {split!r}; known: train, test")
        package = need("easy_vqa", "the source easy-vqa", package="easy-vqa")
        self.split = split
        self.image_root = Path(package.__file__).parent / "data"

    def describe(self) -> dict[str, Any]:
        return {"source": self.name, "split": self.split}

    def groups(self) -> Iterator[ImageGroup]:
        path = self.image_root / self.split / "questions.json"
        items = []
        for number, (question, answer, image) in enumerate(read_json(path)):
            pair = QA(str(number), question, answer, *guess_types(question, answer))
            items.append((f"{self.split}/images/{image}.png", pair))
        return group_pairs(items)


class TableSource(Source):
    """A user's own CSV or JSON Lines file with ``image``, ``question`` and ``answer``.

    Optional: ``question_type``, ``answer_type``, ``rephrase``, ``id``. Rows of one image need not
    stand together; the first of them is what is edited.

    Args:
        files: ``.csv`` (with a header), ``.tsv``, ``.jsonl`` or ``.json`` (a list).
        images: the folder that image paths are relative to; by default the first file's.
    """

    name = "table"

    def __init__(
        self, files: str | Path | list[str | Path], images: str | Path | None = None
    ) -> None:
        self.files = _paths(files)
        self.image_root = Path(images) if images is not None else self.files[0].parent

    def describe(self) -> dict[str, Any]:
        return {"source": self.name, "files": [path.name for path in self.files]}

    def groups(self) -> Iterator[ImageGroup]:
        items = []
        for path in self.files:
            for number, item in read_rows(path):
                texts = [text_of(item, f, path, number) for f in ("image", "question", "answer")]
                image, question, answer = texts
                kinds = [
                    text_of(item, field, path, number) if item.get(field) else guessed
                    for field, guessed in zip(
                        ("question_type", "answer_type"),
                        guess_types(question, answer),
                        strict=True,
                    )
                ]
                again = text_of(item, "rephrase", path, number) if item.get("rephrase") else None
                name = str(item.get("id") or f"{path.stem}-{number}")
                items.append((image, QA(name, question, answer, *kinds, rephrase=again)))
        if not items:
            raise DataError("has no rows", file=self.files[0])
        return group_pairs(items)


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a CSV, TSV, JSON Lines or JSON file.

    Raises:
        DataError: the file is missing, no text, or malformed; the message names the line.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if not isinstance(content, list):
            raise DataError("is not a list of rows", file=path)
        yield from ((f"{i}", item) for i, item in enumerate(content))
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("does not exist", file=path, remedy="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text: {error}", file=path) from error
    if path.suffix.lower() in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        try:
            reader = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
            for row in reader:
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"is not valid CSV: {error}", file=path) from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"is not valid JSON: {error}"
            raise DataError(message, file=path, record=f"line {number}") from error


def _paths(value: str | Path | list[str | Path]) -> list[Path]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [Path(v) for v in values]


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(
            f"holds a {type(content).__name__}, not an object",
            file=path,
            remedy="give the official VQAv2 file",
        )
    return content


def _list(content: dict[str, Any], field: str, path: Path) -> list[Any]:
    value = content.get(field)
    if not isinstance(value, list):
        raise DataError(
            "is missing or no list", file=path, field=field, remedy="give the official VQAv2 file"
        )
    return value


def _whole(item: dict[str, Any], field: str, path: Path, record: object) -> int:
    value = item.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError("is not a whole number", file=path, record=record, field=field)
    return value


SOURCES.register("vqav2", VQAv2Source)
SOURCES.register("e-vqa", EVQASource)
SOURCES.register("easy-vqa", EasyVQASource)
SOURCES.register("table", TableSource)
SOURCES.register("scenes", "easyedit_mm_plugins.scenes.source:ScenesSource")
