"""The state of each row of a run: asked for, started, done, or failed with a reason.

A row is one method on one backbone and data set. Every change of its state is a line of
``status.jsonl`` in the run folder; where several processes share the row's cases, each of them
(``rank``) has a state of its own. A process writes "started" before it begins with a row, so that
the row of a killed process is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..core import jsonl
from ..core.errors import RunError
from .field_types import check_fields

Key: TypeAlias = tuple[str, str, str]  # method, backbone and data set, as they were asked for

ASKED, STARTED, DONE, FAILED = "asked", "started", "done", "failed"
_WORST_FIRST = (FAILED, STARTED, ASKED, DONE)
_NO_RANK = -1  # of a row that no process has begun
_REASONS = {
    ASKED: "not measured yet",
    STARTED: "begun and not finished: it is running now, or was stopped or killed",
    FAILED: "failed, without a reason in status.jsonl",
}


class Status:
    """The state of every row of the run in ``folder``.

    Attributes:
        note: what had to be removed from the file, if anything.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "status.jsonl"
        self.note: str | None = None
        self._rows: dict[Key, dict[int, dict[str, Any]]] = {}
        self.load()

    def load(self) -> None:
        """Read what all processes have written so far.

        Raises:
            RunError: a line that is damaged, by file and line.
        """
        self._rows.clear()
        lines, self.note = jsonl.load(self.path)
        for number, line in enumerate(lines, start=1):
            try:
                self._apply(_checked(line))
            except (TypeError, ValueError) as error:
                raise RunError(
                    f"{self.path}, line {number}: not a state of this format ({error})",
                    remedy="delete that line; its row will be measured again where cases lack",
                ) from None

    def ask(self, rows: Iterable[Key]) -> None:
        """Note that these rows are to be measured; their earlier states are dropped."""
        self._write([self._line(key, ASKED) for key in rows])

    def start(self, key: Key, rank: int = 0) -> None:
        """Note that process ``rank`` begins with a row."""
        self._write([self._line(key, STARTED, rank)])

    def done(self, key: Key, row: tuple[str, str], rank: int = 0) -> None:
        """Note that a row is measured; ``row``: method and backbone as its cases name them."""
        self._write([{**self._line(key, DONE, rank), "row": list(row)}])

    def fail(self, key: Key, reason: str, details: str | None = None, rank: int = 0) -> None:
        """Note that a row failed, and why; ``details`` is a traceback, kept in the file only."""
        self._write([{**self._line(key, FAILED, rank), "reason": reason, "details": details}])

    def states(self, key: Key) -> set[str]:
        """The states of a row, one for each process; empty if it was never asked for."""
        return {line["state"] for line in self._rows.get(key, {}).values()}

    def measured_as(self, key: Key) -> tuple[str, str] | None:
        """Method and backbone as the cases of a row name them, if it is done."""
        for line in self._rows.get(key, {}).values():
            if line["state"] == DONE:
                method, backbone = line["row"]
                return method, backbone
        return None

    def missing(self) -> list[dict[str, Any]]:
        """Rows that are not completely measured.

        Returns:
            ``method``, ``backbone``, ``dataset``, ``status`` ("failed" or "unfinished") and
            ``reason`` of each, in the order in which they were asked for.
        """
        found = []
        for key, ranks in self._rows.items():
            worst = min(ranks.values(), key=lambda line: _WORST_FIRST.index(line["state"]))
            if worst["state"] != DONE:
                found.append(
                    {
                        **dict(zip(("method", "backbone", "dataset"), key, strict=True)),
                        "status": "failed" if worst["state"] == FAILED else "unfinished",
                        "reason": worst.get("reason") or _REASONS[worst["state"]],
                    }
                )
        return found

    @staticmethod
    def _line(key: Key, state: str, rank: int = 0) -> dict[str, Any]:
        method, backbone, dataset = key
        return {
            "method": method,
            "backbone": backbone,
            "dataset": dataset,
            "state": state,
            "rank": rank,
        }

    def _write(self, lines: list[dict[str, Any]]) -> None:
        jsonl.append(self.path, lines)
        for line in lines:
            self._apply(line)

    def _apply(self, line: Mapping[str, Any]) -> None:
        ranks = self._rows.setdefault((line["method"], line["backbone"], line["dataset"]), {})
        if line["state"] == ASKED:
            ranks.clear()
        ranks.pop(_NO_RANK, None)
        ranks[_NO_RANK if line["state"] == ASKED else line["rank"]] = dict(line)


_FIELDS = {"method": str, "backbone": str, "dataset": str, "state": str, "rank": int}
_MORE = {"row": list[str], "reason": str | None, "details": str | None}


def _checked(line: Any) -> dict[str, Any]:
    check_fields(line, {**_FIELDS, **_MORE}, optional=_MORE)
    if line["state"] not in _WORST_FIRST:
        raise ValueError(f"unknown state {line['state']!r}")
    if line["state"] == DONE and len(line.get("row", [])) != 2:
        raise ValueError("field row is not a method and a backbone")
    return line
