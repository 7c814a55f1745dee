"""Find record files, and read the list of records in each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from ..core.files import read_json

_MOST_DIGITS = 4300  # Python reads no longer whole number


def record_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The JSON files that ``path`` names; of a folder, those that hold a list.

    Raises:
        DataError: a path does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for one in [path] if isinstance(path, (str, Path)) else path:
        one = Path(one)
        try:
            is_folder, exists = one.is_dir(), one.exists()
        except (OSError, ValueError) as error:  # a name that no file can have
            raise DataError(f"cannot be read: {error}", file=one, remedy="check the path") from None
        if is_folder:
            inside = [p for p in sorted(one.glob("*.json")) if _holds_list(p)]
            if not inside:
                raise DataError("has no JSON file with a list of records", file=one)
            found += inside
        elif not exists:
            raise DataError("does not exist", file=one, remedy="check the path")
        else:
            found.append(one)
    return found


def read_list(path: str | Path) -> list[Any]:
    """The list in one file. Its records are not checked.

    A whole number too long for Python is read as infinity, so that the record's check names it.

    Raises:
        DataError: the file is missing, is not JSON, or holds something other than a list.
    """
    content = read_json(path, parse_int=_whole_number)
    if not isinstance(content, list):
        raise DataError(
            f"holds a {type(content).__name__}, not a list of records",
            file=path,
            remedy="give a file in the FGVEdit schema",
        )
    return content


def read_records(path: str | Path | Sequence[str | Path]) -> dict[Path, list[Any]]:
    """Each file's list; see :func:`record_files` and :func:`read_list`."""
    return {file: read_list(file) for file in record_files(path)}


def _whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _holds_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
