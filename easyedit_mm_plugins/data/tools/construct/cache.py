"""A judge's replies on disk: a request that was answered is not sent again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from ....core.files import disk_error


def content_key(value: Any) -> str:
    """The key of a request: a hash of everything that decides its reply."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """A file of JSON lines ``{"key", "reply"}``. Each reply is written as soon as it comes.

    A last line cut short by a kill is dropped when the file is next opened. Without a path, replies
    are kept in memory only.

    Raises:
        DataError: the file is not such a cache.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self._lock = threading.Lock()
        self._replies: dict[str, str] = {}
        self._waiting: dict[str, Future[str]] = {}
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._replies)

    def __contains__(self, key: str) -> bool:
        return key in self._replies

    def get(self, key: str) -> str | None:
        """The reply under ``key``, if there is one."""
        return self._replies.get(key)

    def ask(self, key: str, fetch: Callable[[], str]) -> str:
        """The reply under ``key``; if it is not there, it is fetched and written.

        Threads that ask for the same key at the same time share one request.
        """
        with self._lock:
            if key in self._replies:
                return self._replies[key]
            other = self._waiting.get(key)
            if other is None:
                future: Future[str] = Future()
                self._waiting[key] = future
        if other is not None:
            return other.result()
        try:
            reply = fetch()
            self._write(key, reply)
        except BaseException as error:
            with self._lock:
                del self._waiting[key]
            future.set_exception(error)
            raise
        with self._lock:
            self._replies[key] = reply
            del self._waiting[key]
        future.set_result(reply)
        return reply

    def _read(self, path: Path) -> None:
        raw = path.read_bytes()
        end = raw.rfind(b"\n") + 1
        for number, line in enumerate(raw[:end].split(b"\n")[:-1], 1):
            try:
                entry = json.loads(line)
                key, reply = entry["key"], entry["reply"]
            except (ValueError, KeyError, TypeError, RecursionError):
                key = reply = None
            if not isinstance(key, str) or not isinstance(reply, str):
                raise DataError(
                    "is not a judge's answer",
                    file=path,
                    record=f"line {number}",
                    remedy="delete the line, or name another cache file",
                )
            self._replies[key] = reply
        if end < len(raw):  # the last answer was being written when the run was killed
            os.truncate(path, end)

    def _write(self, key: str, reply: str) -> None:
        if self.path is None:
            return
        line = json.dumps({"key": key, "reply": reply}).encode() + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self.path.open("ab", buffering=0) as file:
                start = os.fstat(file.fileno()).st_size
                if file.write(line) != len(line):  # the disk is full: leave no half line
                    os.truncate(self.path, start)
                    raise OSError(28, "No space left on device")
        except OSError as error:
            raise disk_error(error, self.path) from error
