"""Text that can be encoded, and text that cannot."""

from __future__ import annotations


def text_problem(text: str) -> str | None:
    """Why ``text`` is not valid Unicode, or ``None`` if it is.

    JSON's escapes can write half of a surrogate pair (``"\\ud83d"``). Python reads it, but no
    tokenizer, terminal or UTF-8 file takes it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        return f"is not valid Unicode: half of a surrogate pair (\\u{code:04x}) at {error.start}"
    return None
