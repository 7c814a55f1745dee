"""A folder that only one process may write results to."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from .errors import DataError, RunError
from .files import disk_error, read_json, write_json

_LOCK, _OWNER = ".owner.lock", ".owner.json"


def own_folder(folder: str | Path, *, patience: float = 1.0) -> BaseFileLock:
    """Make this process the owner of ``folder``.

    The lock ends with ``release()``, or with the process: the operating system drops it, also when
    the process is killed. A process may own a folder several times; it is free after as many calls
    of ``release()``.

    Args:
        patience: seconds to wait for an owner that is about to end.

    Raises:
        RunError: another process owns the folder (the message names its process id, its host and
            since when), or the folder cannot be written to.
    """
    folder = Path(folder)
    place = folder.resolve()
    lock = FileLock(place / _LOCK, timeout=patience, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder} is in use by {_owner(place)}",
            remedy="wait for it to end, stop it, or choose another folder",
        ) from None
    except OSError as error:
        problem = disk_error(error, place / _LOCK)
        raise RunError(problem.message, remedy=problem.remedy) from error
    if lock.lock_counter == 1:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            write_json(
                place / _OWNER, {"process": os.getpid(), "host": platform.node(), "since": now}
            )
        except BaseException:
            lock.release()
            raise
    return lock


def _owner(folder: Path) -> str:
    """The owner of ``folder`` in words."""
    try:
        owner = read_json(folder / _OWNER)
        return f"process {owner['process']} on {owner['host']} since {owner['since']}"
    except (DataError, KeyError, TypeError):
        return "another process"
