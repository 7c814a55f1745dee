"""Worker processes that report progress, notes and errors to the parent process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from .console import CONSOLE, progress_bars
from .distributed import Ranks
from .errors import EasyEditMMError, RunError
from .secrets import redact


class Reporter:
    """Sends a worker's progress, notes and lines to the parent process."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    @staticmethod
    def one_thread() -> None:
        """Use one thread: several one-thread processes use few cores best."""
        import torch

        torch.set_num_threads(1)

    def progress(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) for ``label``."""
        return lambda done, total: self.channel.put(("progress", label, done, total))

    def note(self, text: str) -> None:
        """Print a note."""
        self.channel.put(("note", text))

    def line(self, text: str) -> None:
        """Print a line, such as what is finished."""
        self.channel.put(("log", text))

    def forward_log(self, label: str) -> None:
        """Print what the package logs in this process, with ``label`` in front."""
        handler = _Forward()
        handler.tell = lambda text: self.channel.put(("log", f"{label}: {text}"))
        logger = logging.getLogger("easyedit_mm_plugins")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _Forward(logging.Handler):
    tell: Callable[[str], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(record.getMessage())


class LocalReporter(Reporter):
    """A reporter for work in the parent process itself; it keeps the number of threads."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(self)
        self.screen = screen

    def put(self, message: tuple) -> None:
        """Print a message at once."""
        self.screen.show(*message)

    @staticmethod
    def one_thread() -> None:
        """Do nothing: there is only one process."""


class Screen:
    """Prints the messages of reporters as progress bars and lines."""

    def __init__(self, bar: Callable[[str], Callable[[int, int], None]]) -> None:
        self.bar = bar
        self.bars: dict[str, Callable[[int, int], None]] = {}

    def show(self, kind: str, *what: Any) -> None:
        """Print one message."""
        what = tuple(redact(one) if isinstance(one, str) else one for one in what)
        if kind == "progress":
            label, finished, total = what
            if label not in self.bars:
                self.bars[label] = self.bar(label)
            self.bars[label](finished, total)
        elif kind == "log":
            CONSOLE.print(what[0], style="dim", markup=False, soft_wrap=True)
        elif kind == "note":
            CONSOLE.print(f"[yellow]note[/] {escape(what[0])}", soft_wrap=True)


class Silent(Screen):
    """Prints nothing."""

    def show(self, kind: str, *what: Any) -> None:
        """Do nothing."""


def _work(name: str, target: Callable[..., None], arguments: tuple, channel: Any) -> None:
    """Run in the child process: every error is sent as a message."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Ranks.forget()
    try:
        target(*arguments, Reporter(channel))
        channel.put(("done", name))
    except KeyboardInterrupt:
        pass
    except EasyEditMMError as error:
        channel.put(("error", error.message, error.remedy))
    except Exception as error:
        channel.put(("error", f"{error!r}\n{traceback.format_exc()}", None))


def _end_with_parent() -> None:
    """End with the parent: the workers of a killed command must not go on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_parallel(
    target: Callable[..., None],
    jobs: Mapping[str, tuple],
    *,
    limit: int | None = None,
    survive: bool = False,
    every: float = 15.0,
) -> dict[str, int]:
    """Run ``target(*arguments, reporter)`` for every job in a process of its own.

    Args:
        target: importable by name, since the processes are spawned.
        jobs: arguments by job name; the name appears in errors.
        limit: number of processes at a time; all by default.
        survive: go on with the others when a process dies.
        every: seconds between lines of progress outside a terminal.

    Returns:
        The exit codes of processes that died, with ``survive``.

    Raises:
        RunError: a worker failed; the others are stopped. Finished work is kept.
    """
    context = multiprocessing.get_context("spawn")
    channel = context.Queue()
    waiting = {
        name: context.Process(target=_work, args=(name, target, arguments, channel), daemon=True)
        for name, arguments in jobs.items()
    }
    running: dict[str, Any] = {}
    died: dict[str, int] = {}
    try:
        with progress_bars(every=every) as bar:
            screen = Screen(bar)
            while waiting or running:
                while waiting and len(running) < (limit or len(jobs)):
                    name = next(iter(waiting))
                    running[name] = waiting.pop(name)
                    running[name].start()
                _follow(running, channel, screen, died)
                if died and not survive:
                    name, code = next(iter(died.items()))
                    raise RunError(
                        f"the process for {name} ended with code {code} (out of memory?)",
                        remedy="start the same command again; finished cases are kept",
                    )
    finally:
        for worker in running.values():
            if worker.is_alive():
                worker.terminate()
            worker.join(10)
        channel.close()
    return died


def _follow(running: dict[str, Any], channel: Any, screen: Screen, died: dict[str, int]) -> None:
    """Print what the workers report until one ends; remove it from ``running``."""
    while True:
        try:
            kind, *what = channel.get(timeout=0.5)
        except queue.Empty:
            codes = {name: worker.exitcode for name, worker in running.items()}
            dead = {name: code for name, code in codes.items() if code not in (None, 0)}
            if dead:
                died |= dead
                for name in dead:
                    del running[name]
                return
            continue
        if kind == "error":
            raise RunError(what[0], remedy=what[1])
        if kind == "done":
            running.pop(what[0]).join(10)
            return
        screen.show(kind, *what)


def run_here(
    target: Callable[..., None],
    jobs: Mapping[str, tuple],
    *,
    every: float = 15.0,
    silent: bool = False,
) -> None:
    """Run the jobs in this process, one after the other; errors are raised unchanged."""
    with progress_bars(Console(quiet=True) if silent else None, every) as bar:
        for arguments in jobs.values():
            target(*arguments, LocalReporter(Silent(bar) if silent else Screen(bar)))
