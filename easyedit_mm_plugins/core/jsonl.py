"""JSON Lines files that stay valid when a process is killed, the disk is full, or several write."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import RunError
from .files import disk_error

try:
    import fcntl
except ImportError:  # Windows: the user must see to it that only one process writes
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(file: BinaryIO) -> Iterator[None]:
    """Hold the advisory lock of an open file; other processes that call this wait for it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_UN)


def append(path: Path, values: list[Any]) -> None:
    """Append one line per value and flush; either all lines are written or none.

    Raises:
        RunError: the disk is full or the file cannot be written; earlier lines are untouched.
    """
    data = b"".join(
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
        + b"\n"
        for value in values
    )
    if not data:
        return
    try:
        with path.open("ab", buffering=0) as file, locked(file):
            end = os.fstat(file.fileno()).st_size
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except BaseException:
                file.truncate(end)  # leave no partial line
                raise
    except OSError as error:
        problem = disk_error(error, path)
        raise RunError(problem.message, remedy=problem.remedy) from error


def load(path: Path) -> tuple[list[Any], str | None]:
    """All values of the file, and a note if its last line had to be dropped.

    If a process died while it wrote the last line, that line is incomplete; it is removed from the
    file, so that the next append starts a new line. A read-only file is left unchanged.

    Raises:
        RunError: a line in the middle is not JSON, naming file and line.
    """
    if not path.exists():
        return [], None
    try:
        with _open(path) as file, locked(file):
            data = file.read()
            lines = data.split(b"\n")
            keep, values = 0, []
            for number, line in enumerate(lines[:-1], start=1):
                try:
                    values.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    if number < len(lines) - 1 or lines[-1]:
                        raise RunError(
                            f"{path}, line {number}: not JSON ({error})",
                            remedy="delete that line; its case will be evaluated again",
                        ) from None
                    break
                keep += len(line) + 1
            if keep == len(data):
                return values, None
            if file.writable():
                file.truncate(keep)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}") from error
    note = f"{path}: the last line was cut short ({len(data) - keep} bytes); dropped"
    return values, note


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("r+b", buffering=0)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return path.open("rb", buffering=0)
        raise
