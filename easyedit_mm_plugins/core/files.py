"""Write files atomically: to a temporary file in the same folder, which is then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DataError, EasyEditMMError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; renamed to ``path`` if the block succeeds.

    Raises:
        EasyEditMMError: the disk is full or the folder is not writable.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files of :func:`atomic_path` for ``path`` that killed processes left.

    To be called only where no other process can be writing ``path``.
    """
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}")  # as tempfile.mkstemp names it
    for temporary in path.parent.iterdir():
        if name.fullmatch(temporary.name) and temporary.is_file():
            temporary.unlink(missing_ok=True)


def disk_error(error: OSError, path: str | Path) -> EasyEditMMError:
    """The error to raise for a failed write to ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EasyEditMMError(
            f"no room left on the disk while writing {path}",
            remedy="free some space and start again; what was finished is kept",
        )
    return EasyEditMMError(f"cannot write {path}: {error.strerror or error}")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all.

    Half a surrogate pair, which UTF-8 cannot hold, is written as its escape (``\\ud83d``).
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, *, parse_int: Callable[[str], Any] | None = None) -> Any:
    """Parse the JSON file ``path``.

    Args:
        parse_int: reads the digits of a whole number; by default ``int``.

    Raises:
        DataError: the file is missing, is not UTF-8 text, its JSON is cut short or malformed, or it
            holds a whole number of more digits than Python reads (4,300).
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError("does not exist", file=path, remedy="check the path") from None
    except (OSError, ValueError) as error:  # not UTF-8, or a path that no file can have
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"cannot be read: {reason or error}", file=path) from error
    try:
        return json.loads(text, parse_int=parse_int)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(
            f"is not valid JSON{where}: {error}",
            file=path,
            remedy="the file is cut short or malformed; fetch or write it again",
        ) from error


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """The hash of a file's content, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest(value: Any) -> str:
    """A short stable hash of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
