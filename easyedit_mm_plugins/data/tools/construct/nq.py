"""Read locality questions from Natural Questions, in any of its common formats."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from .tables import read_rows

PREFIX = "nq question: "  # as in the released FGVEdit and E-VQA records


def read_nq(path: str | Path) -> list[tuple[str, str]]:
    """(question, answer) pairs, each question once, without :data:`PREFIX`.

    Reads NQ-open (``question``, ``answer`` as a list), Google's simplified NQ (``question_text``
    with ``annotations`` and ``document_text``; questions without a short answer are left out),
    files with ``loc`` and ``loc_ans``, and tables with ``question`` and ``answer``.

    Raises:
        DataError: the file cannot be read, or no row of it has a question and an answer.
    """
    path = Path(path)
    found: dict[str, str] = {}
    for place, row in read_rows(path):
        if not isinstance(row, dict):
            raise DataError(f"is a {type(row).__name__}, not an object", file=path, record=place)
        for question, answer in _pairs(row):
            question = " ".join(question.split())
            if question.lower().startswith(PREFIX):
                question = question[len(PREFIX) :]
            if question and answer.strip():
                found.setdefault(question, " ".join(answer.split()))
    if not found:
        raise DataError(
            "has no question with a short answer",
            file=path,
            remedy="give NQ-open JSON Lines, simplified NQ, or rows with question and answer",
        )
    return list(found.items())


def _pairs(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(row.get("question_text"), str):
        answer = _short_answer(row)
        if answer:
            yield row["question_text"], answer
        return
    for question, answer in (("loc", "loc_ans"), ("question", "answer")):
        asked, answered = row.get(question), row.get(answer)
        if isinstance(answered, list):
            answered = next((a for a in answered if isinstance(a, str) and a.strip()), None)
        if isinstance(asked, str) and isinstance(answered, str):
            yield asked, answered
            return


def _short_answer(row: dict[str, Any]) -> str | None:
    document = row.get("document_text")
    tokens = document.split(" ") if isinstance(document, str) else []
    notes = row.get("annotations")
    for note in notes if isinstance(notes, list) else []:
        if not isinstance(note, dict):
            continue
        if note.get("yes_no_answer") in ("YES", "NO"):
            return note["yes_no_answer"].lower()
        spans = note.get("short_answers")
        for span in spans if isinstance(spans, list) else []:
            if not isinstance(span, dict):
                continue
            start, end = span.get("start_token"), span.get("end_token")
            if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(tokens):
                return " ".join(tokens[start:end])
    return None


def deal(questions: list[tuple[str, str]], n: int, seed: int) -> list[tuple[str, str]]:
    """``n`` questions in a seeded order; a question repeats only after all have been used."""
    order = list(range(len(questions)))
    random.Random(f"nq {seed}").shuffle(order)
    return [questions[order[i % len(order)]] for i in range(n)]
