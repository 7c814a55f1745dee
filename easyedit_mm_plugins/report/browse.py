"""The data of the page's case browser: pictures, questions, and every method's answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.records import OUTSIDE
from ..data.tools.preview import thumbnail
from ..evaluation.results import BASE, CaseResult
from .sources import Board, Report, Source

SIDE = 160  # pixels of a thumbnail
PICTURE_BYTES = 6_000_000  # of all thumbnails together


class Strings:
    """Numbers texts, so that one that occurs a thousand times is stored once."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._places.setdefault(text, len(self._places))

    def all(self) -> list[str]:
        """The texts in order."""
        return list(self._places)


class Pictures:
    """Thumbnails as data URLs, at most ``limit`` bytes of them (:data:`PICTURE_BYTES`).

    Args:
        folders: where relative paths may start.
        given: where pictures are if not there.

    Attributes:
        missing: how many pictures were not found.
        left_out: how many pictures would have exceeded ``limit``.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        given: str | Path | None = None,
        limit: int | None = None,
    ) -> None:
        self.given = Path(given) if given is not None else None
        self.folders = [*([self.given] if self.given else []), *folders]
        self.room = PICTURE_BYTES if limit is None else limit
        self.missing = self.left_out = 0
        self._places: dict[str, int | None] = {}
        self.urls: list[str] = []

    def __call__(self, name: str | None) -> int | None:
        """The number of the picture called ``name``; ``None`` without one."""
        if name is None:
            return None
        if name not in self._places:
            self._places[name] = self._add(name)
        return self._places[name]

    def _add(self, name: str) -> int | None:
        path = next((p for p in self._candidates(name) if _is_file(p)), None)
        url = thumbnail(path, SIDE) if path else None
        if url is None:
            self.missing += 1
            return None
        if len(url) > self.room:
            self.left_out += 1
            return None
        self.room -= len(url)
        self.urls.append(url)
        return len(self.urls) - 1

    def _candidates(self, name: str) -> Iterator[Path]:
        if not name.startswith("pixels:"):
            yield Path(name)
            yield from (folder / name for folder in self.folders)
            if self.given is not None:  # the images may have moved: with ever fewer folders
                parts = Path(name).parts
                yield from (self.given.joinpath(*parts[at:]) for at in range(1, len(parts)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with characters that no name has
        return False


def run_folders(sources: Sequence[Source]) -> list[Path]:
    """Where relative image paths may start: at any folder above a run."""
    folders = []
    for source in sources:
        resolved = source.path.resolve()
        folders += [resolved, *resolved.parents]
    return list(dict.fromkeys(folders))


def browse(
    report: Report, tables: Sequence[Sequence[Board]], pictures: Pictures, limit: int | None
) -> dict[str, Any]:
    """The first ``limit`` cases of every table, with the answers of all methods.

    Returns:
        ``strings``; ``cases``: per table ``all`` (their number) and ``shown``, a list of id, edit
        (text, target, picture) and questions (kind, text, target, picture); ``before`` and
        ``answers``: per board (in the report's order), per case, flat lists over its questions:
        text for before, and text, percent right, score in thousandths or ``None``, and route
        (0 base model, 1 this case's edit, 2 another edit) for each entry's answers. Right is the
        target, or the unedited model's answer where the edit should change nothing; it differs
        from eq. 17 (a rephrasing is answered as the edit is) only where the edit itself failed.
    """
    strings = Strings()
    cases: list[dict[str, Any]] = []
    by_board: dict[int, dict[str, Any]] = {}
    for boards in tables:
        ids = sorted({case for board in boards for case in board.cases}, key=_natural)
        shown = ids[:limit] if limit is not None else ids
        known: list[CaseResult] = []
        for name in shown:
            entries = (entry for board in boards for entry in board.entries)
            known.append(next(e.cases[name] for e in entries if name in e.cases))
        cases.append({"all": len(ids), "shown": [_case(c, strings, pictures) for c in known]})
        for board in boards:
            by_board[id(board)] = _answers(board, known, strings)
    ordered = [by_board[id(board)] for board in report.boards]
    return {
        "cases": cases,
        "before": [found["before"] for found in ordered],
        "answers": [found["answers"] for found in ordered],
        "strings": strings.all(),
    }


def _case(case: CaseResult, strings: Strings, pictures: Pictures) -> dict[str, Any]:
    return {
        "id": case.case,
        "edit": [case.edit["text"], case.edit["target"], pictures(case.edit.get("image"))],
        "named": case.edit.get("image") is not None,
        "questions": [
            [strings(q.kind), strings(q.text), strings(q.target), pictures(q.image)]
            for q in case.questions
        ],
    }


def _answers(board: Board, known: Sequence[CaseResult], strings: Strings) -> dict[str, Any]:
    before: list[list[int] | None] = []
    answers: list[list[list[int | None] | None]] = [[] for _ in board.entries]
    for case in known:
        asked = [(q.kind, q.text) for q in case.questions]
        found = [entry.cases.get(case.case) for entry in board.entries]
        # Other questions under the same case id would stand beside the wrong text.
        same = [
            f if f and [(q.kind, q.text) for q in f.questions] == asked else None for f in found
        ]
        first = next((f for f in same if f), None)
        before.append([strings(q.before) for q in first.questions] if first else None)
        for place, result in enumerate(same):
            answers[place].append(_flat(result, strings) if result else None)
    return {"before": before, "answers": answers}


def _flat(result: CaseResult, strings: Strings) -> list[int | None]:
    flat: list[int | None] = []
    for q in result.questions:
        route = 0 if q.route == BASE else 1 if q.route == result.case else 2
        score = None if q.score is None else round(1000 * q.score)
        right = q.is_before if q.kind in OUTSIDE else q.is_target
        flat += [strings(q.after), round(100 * right), score, route]
    return flat


def _natural(name: str) -> tuple[list[Any], str]:
    """A key that sorts case 2 before case 10."""
    parts: list[Any] = re.split(r"([0-9]+)", name)  # texts and, at odd places, numbers
    for at in range(1, len(parts), 2):
        digits = parts[at].lstrip("0")
        parts[at] = (len(digits), digits)  # int() refuses thousands of digits
    return parts, name
