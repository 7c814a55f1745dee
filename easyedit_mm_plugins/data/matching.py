"""When two answers are the same answer.

Answers are compared after :func:`normalise`, in this order:

1. Unicode NFKC and case folding ("café" and "CAFÉ" agree, "cafe" does not); invisible format
   characters go.
2. Apostrophes go without a trace ("don't" = "dont"); the comma of "1,000" goes; every other
   punctuation mark becomes a space, except the point of a decimal number.
3. The articles "a", "an" and "the" go.
4. White space is collapsed.

A step that would leave nothing is not taken: the answer "a" (a letter) or "?" stays what it is.
Number words, plurals and synonyms are not touched: two is not 2.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_ARTICLES = {"a", "an", "the"}
_APOSTROPHES = str.maketrans("", "", "'`\u2018\u2019\u02bc")


def _without_punctuation(text: str) -> str:
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text).translate(_APOSTROPHES)
    kept = []
    for at, char in enumerate(text):
        decimal = char == "." and text[at - 1 : at].isdigit() and text[at + 1 : at + 2].isdigit()
        mark = unicodedata.category(char)[0] == "P"
        kept.append(" " if mark and not decimal else char)
    return "".join(kept)


def _step(text: str) -> str:
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = " ".join(text.split())
    words = _without_punctuation(text).split() or text.split()
    return " ".join([word for word in words if word not in _ARTICLES] or words)


@lru_cache(maxsize=65536)
def normalise(answer: str) -> str:
    """The form in which answers are compared; see the module's docstring. Idempotent."""
    for _ in range(8):  # folding and dropping marks can make new work for each other, rarely twice
        shorter = _step(answer)
        if shorter == answer:
            break
        answer = shorter
    return answer


def same_answer(first: str, second: str) -> bool:
    """Whether two answers agree after normalisation. Two empty ones do: nothing has changed."""
    return normalise(first) == normalise(second)
