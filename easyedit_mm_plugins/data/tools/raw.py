"""Record files as they are, for tools that look at data rather than use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import DataError
from ...core.files import read_json


def record_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The JSON files meant: those given, and of a folder those that hold a list.

    Raises:
        DataError: a path does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for one in path if isinstance(path, (list, tuple)) else [path]:
        one = Path(one)
        if one.is_dir():
            inside = [p for p in sorted(one.glob("*.json")) if _holds_list(p)]
            if not inside:
                raise DataError("has no JSON file with a list of records", file=one)
            found += inside
        elif not one.exists():
            raise DataError("does not exist", file=one, remedy="check the path")
        else:
            found.append(one)
    return found


def read_records(path: str | Path | Sequence[str | Path]) -> dict[Path, list[Any]]:
    """Each file's list, unchecked.

    Raises:
        DataError: a file is missing, is no JSON, or holds something else than a list.
    """
    contents = {}
    for file in record_files(path):
        content = read_json(file)
        if not isinstance(content, list):
            raise DataError(f"holds a {type(content).__name__}, not a list of records", file=file)
        contents[file] = content
    return contents


def _holds_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
