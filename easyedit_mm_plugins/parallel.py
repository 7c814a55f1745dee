"""A few processes that report to one: progress, notes, and errors in words."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape

from .console import CONSOLE, progress_bars
from .errors import EasyEditMMError, RunError


class Reporter:
    """What a worker tells the parent; a plain callable for progress of one label."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    @staticmethod
    def one_thread() -> None:
        """Several one-thread processes use few cores better than one with several threads."""
        import torch

        torch.set_num_threads(1)

    def progress(self, label: str) -> Callable[[int, int], None]:
        """A callback (done, total) for ``label``."""
        return lambda done, total: self.channel.put(("progress", label, done, total))

    def note(self, text: str) -> None:
        """A line for the person in front."""
        self.channel.put(("note", text))

    def forward_log(self, label: str) -> None:
        """Show what the package logs in this process, with ``label`` before it."""
        handler = _Forward()
        handler.tell = lambda text: self.channel.put(("log", f"{label}: {text}"))
        logger = logging.getLogger(__package__)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _Forward(logging.Handler):
    tell: Callable[[str], None]

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(record.getMessage())


def _work(target: Callable[..., None], arguments: tuple, channel: Any) -> None:
    """Runs in the child: every error becomes a message."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        target(*arguments, Reporter(channel))
        channel.put(("done",))
    except KeyboardInterrupt:
        pass
    except EasyEditMMError as error:
        channel.put(("error", error.message, error.remedy))
    except Exception as error:
        channel.put(("error", f"{error!r}\n{traceback.format_exc()}", None))


def _end_with_parent() -> None:
    """A killed command must not leave workers behind that write beside the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def run_parallel(target: Callable[..., None], jobs: Mapping[str, tuple]) -> None:
    """Run ``target(*arguments, reporter)`` for every job in a process of its own.

    Args:
        target: importable by name, since the processes start afresh.
        jobs: arguments by the name that a failure is reported with.

    Raises:
        RunError: a worker failed; the others are stopped. What they had finished is kept by them.
    """
    context = multiprocessing.get_context("spawn")
    channel = context.Queue()
    workers = {
        name: context.Process(target=_work, args=(target, arguments, channel), daemon=True)
        for name, arguments in jobs.items()
    }
    for worker in workers.values():
        worker.start()
    try:
        _follow(workers, channel)
    finally:
        for worker in workers.values():
            if worker.is_alive():
                worker.terminate()
            worker.join(10)
        channel.close()


def _follow(workers: Mapping[str, Any], channel: Any) -> None:
    """Show what the workers report until all are done."""
    done = 0
    with progress_bars() as bar:
        bars: dict[str, Callable[[int, int], None]] = {}
        while done < len(workers):
            try:
                kind, *what = channel.get(timeout=0.5)
            except queue.Empty:
                for name, worker in workers.items():
                    if worker.exitcode not in (None, 0):
                        raise RunError(
                            f"the process for {name} ended with code {worker.exitcode} "
                            "(out of memory?)",
                            remedy="start the same command again; finished cases are kept",
                        ) from None
                continue
            if kind == "progress":
                label, finished, total = what
                if label not in bars:
                    bars[label] = bar(label)
                bars[label](finished, total)
            elif kind == "log":
                CONSOLE.print(what[0], style="dim", markup=False, soft_wrap=True)
            elif kind == "note":
                CONSOLE.print(f"[yellow]note[/] {escape(what[0])}")
            elif kind == "error":
                raise RunError(what[0], remedy=what[1])
            else:
                done += 1
