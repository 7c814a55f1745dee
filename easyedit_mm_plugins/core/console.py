"""Printing: progress (bars in a terminal, few lines in a log file), errors without a traceback."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from .errors import EasyEditMMError

CONSOLE = Console(highlight=False)
ERRORS = Console(stderr=True, highlight=False)
_QUIET_SECONDS = 15.0
_LONGEST = 300  # characters of an exception's text


def show_error(error: EasyEditMMError) -> None:
    """Print an error's message and remedy."""
    ERRORS.print("[bold red]error[/]", end=" ")
    ERRORS.print(error.message if error.remedy else str(error), markup=False, soft_wrap=True)
    if error.remedy:
        ERRORS.print("[bold]remedy[/]", end=" ")
        ERRORS.print(error.remedy, markup=False, soft_wrap=True)


def show_unforeseen(error: BaseException) -> None:
    """One line about an exception that nobody expected; its traceback goes to a file."""
    from .secrets import redact

    trace = redact("".join(traceback.format_exception(error)))
    said = " ".join(redact(str(error)).split())
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if len(said) > _LONGEST:
        said = f"{said[:_LONGEST]} ..."
    try:
        handle, path = tempfile.mkstemp(prefix="easyedit-mm-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{redact(' '.join(sys.argv))}\n\n{trace}")
        where = f"full trace: {path}"
    except OSError as reason:  # such as a full disk
        where = f"the full trace could not be written ({reason}): set EASYEDIT_MM_DEBUG=1 to see it"
    ERRORS.print("[bold red]unforeseen error[/]", end=" ")
    ERRORS.print(f"{said} ({where})", markup=False, soft_wrap=True)


@contextmanager
def progress_bars(
    console: Console | None = None, every: float = _QUIET_SECONDS
) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Give a function from a label to its progress callback, which is called with (done, total).

    In a terminal each label is a live bar with the time left. Elsewhere, such as in a log file, it
    prints a line every ``every`` seconds and one at the end.
    """
    console = console or CONSOLE
    if not console.is_terminal:
        yield lambda label: _Lines(console, label, every)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as live:

        def bar(label: str) -> Callable[[int, int], None]:
            task: TaskID = live.add_task(label, total=None)
            return lambda done, total: live.update(task, completed=done, total=total)

        yield bar


class _Lines:
    """Progress as few lines of text."""

    def __init__(self, console: Console, label: str, every: float = _QUIET_SECONDS) -> None:
        self.console, self.label, self.every = console, label, every
        self.start = self.last = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = done
        if done < total and now - self.last < self.every:
            return
        self.last = now
        line = f"{self.label}: {done}/{total}"
        fresh = done - self.first
        if done < total and fresh:
            line += f", {(now - self.start) / fresh * (total - done):.0f} s left"
        elif done == total:
            line += f", {now - self.start:.0f} s" if fresh else ", done before"
        self.console.print(line, markup=False)
