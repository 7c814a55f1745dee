"""Sources with one row per question: E-VQA, easy-vqa, and a user's own tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....core.errors import ConfigError, DataError
from ....core.files import read_json
from ...record_files import read_list
from .sources import QA, ImageGroup, Source, as_paths, group_pairs, guess_types, image_of, text_of


class EVQASource(Source):
    """E-VQA's files, its edits taken as questions: ``alt`` is the right answer there.

    Args:
        files: ``vqa_train.json``, ``vqa_eval.json``.
        images: the folder that holds ``val2014/``.
        allow_outside: accept image paths that lead out of ``images``.
    """

    name = "e-vqa"

    def __init__(
        self,
        files: str | Path | list[str | Path],
        images: str | Path,
        *,
        allow_outside: bool = False,
    ) -> None:
        self.files, self.image_root = as_paths(files), Path(images)
        self.allow_outside = allow_outside

    def describe(self) -> dict[str, Any]:
        return {"source": self.name, "files": [path.name for path in self.files]}

    def groups(self) -> Iterator[ImageGroup]:
        return group_pairs(self._items())

    def _items(self) -> Iterator[tuple[str, QA]]:
        for path in self.files:
            for number, item in enumerate(read_list(path)):
                question, answer = (text_of(item, f, path, number) for f in ("src", "alt"))
                image = image_of(self, item, path, number)
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
        from ....core.optional import need

        if split not in ("train", "test"):
            raise ConfigError(f"unknown split {split!r}; known: train, test")
        package = need("easy_vqa", "the source easy-vqa", package="easy-vqa")
        self.split = split
        self.image_root = Path(package.__path__[0]) / "data"

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
    follow each other; the first of them is the edit.

    Args:
        files: ``.csv`` (with a header), ``.tsv``, ``.jsonl`` or ``.json`` (a list).
        images: the folder that image paths are relative to; by default the first file's.
        allow_outside: accept image paths that lead out of that folder.
    """

    name = "table"

    def __init__(
        self,
        files: str | Path | list[str | Path],
        images: str | Path | None = None,
        *,
        allow_outside: bool = False,
    ) -> None:
        self.files, self.allow_outside = as_paths(files), allow_outside
        self.image_root = Path(images) if images is not None else self.files[0].parent

    def describe(self) -> dict[str, Any]:
        return {"source": self.name, "files": [path.name for path in self.files]}

    def groups(self) -> Iterator[ImageGroup]:
        items = []
        for path in self.files:
            for number, item in read_rows(path):
                question, answer = (text_of(item, f, path, number) for f in ("question", "answer"))
                image = image_of(self, item, path, number)
                question_type, answer_type = (
                    text_of(item, field, path, number) if item.get(field) else guessed
                    for field, guessed in zip(
                        ("question_type", "answer_type"),
                        guess_types(question, answer),
                        strict=True,
                    )
                )
                again = text_of(item, "rephrase", path, number) if item.get("rephrase") else None
                given = item.get("id") not in (None, "")
                name = text_of(item, "id", path, number) if given else f"{path.stem}-{number}"
                pair = QA(name, question, answer, question_type, answer_type, rephrase=again)
                items.append((image, pair))
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
        yield from ((f"{i}", item) for i, item in enumerate(read_list(path)))
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError("does not exist", file=path, remedy="check the path") from None
    except (OSError, ValueError) as error:
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
