"""One process of a grid: all methods on one backbone; a method that fails does not stop it."""

from __future__ import annotations

import traceback
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.distributed import Ranks
from ..core.errors import DataError, EasyEditMMError, RunError
from ..core.processes import Reporter
from ..data import EditRecord, Records
from . import RunFolder, evaluate
from .grid import BackboneSpec, Grid
from .memory import release
from .status import Key

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..methods import Editor


def measure_backbone(
    grid: Grid,
    spec: BackboneSpec,
    path: str,
    skip: Collection[Key],
    ranks: Ranks,
    reporter: Reporter,
) -> None:
    """Measure all methods on one backbone, except the rows ``skip``, into the run folder ``path``.

    Raises:
        RunError: the run folder cannot be written. The failure of a method is noted in it instead.
    """
    reporter.one_thread()
    sets = grid.load()
    run = grid.open(path, sets, joined=True)
    wanted = [
        [r for r in sets if (method, spec.label, r.name) not in skip] for method in grid.methods
    ]
    worker = _BackboneWorker(grid, run, reporter, ranks, spec.label, sum(len(s) for s in wanted))
    spec = replace(spec, device=ranks.device(spec.device))
    backbone: Backbone | None = None
    for method, data in zip(grid.methods, wanted, strict=True):
        keys = [(method, spec.label, records.name) for records in data]
        if backbone is None and keys:
            try:
                backbone = spec.load()
            except Exception as error:
                pairs = zip(grid.methods, wanted, strict=True)
                worker.failed([(m, spec.label, r.name) for m, sets in pairs for r in sets], error)
                return
        if backbone is not None and keys:
            worker.method(method, backbone, data, keys)


class _BackboneWorker:
    """Measures the methods on one backbone, one after the other, and reports progress."""

    def __init__(
        self,
        grid: Grid,
        run: RunFolder,
        reporter: Reporter,
        ranks: Ranks,
        label: str,
        rows: int,
    ) -> None:
        self.grid, self.run, self.reporter, self.ranks = grid, run, reporter, ranks
        self.label, self.rows, self.done_rows = label, rows, 0
        self.report_progress = reporter.progress(label)

    def method(self, method: str, backbone: Backbone, data: list[Records], keys: list[Key]) -> None:
        """Measure one method on all data sets, and free its memory."""
        tasks: dict[str | None, list[tuple[Records, Key]]] = {}
        for records, key in zip(data, keys, strict=True):
            tasks.setdefault(records.task, []).append((records, key))
        for task, rows in tasks.items():  # a task may have an editor of its own
            self.rows_of(method, backbone, task, rows)
            release()

    def rows_of(
        self,
        method: str,
        backbone: Backbone,
        task: str | None,
        rows: list[tuple[Records, Key]],
    ) -> None:
        """Make one editor and measure it on the data sets of one task."""
        try:
            self.run.status.start(rows[0][1], self.ranks.rank)
            editor = self.grid.spec(method, self.label).make(backbone, task)
        except RunError:
            raise
        except Exception as error:
            self.failed([key for _, key in rows], error)
            return
        for records, key in rows:
            self.run.status.start(key, self.ranks.rank)
            try:
                self.row(editor, records, key)
            except RunError:
                raise
            except Exception as error:
                self.failed([key], error)

    def row(self, editor: Editor, records: Records, key: Key) -> None:
        """Measure one method on one data set; halve the batch when the memory is full."""
        mine = self.ranks.share(records.records)
        batch, seconds = self.grid.batch_size, 0.0
        while mine:
            try:
                seconds = self.evaluate(editor, records, mine, batch)
                break
            except Exception as error:
                if not out_of_memory(error) or batch == 1:
                    raise
                batch = max(1, batch // 2)
            release()
            self.reporter.note(
                f"{key[0]} on {key[1]}: out of memory; going on with a batch size of {batch}"
            )
        self.done_rows += 1
        self.run.status.done(key, (editor.name, editor.backbone.name), self.ranks.rank)
        self.reporter.line(f"{key[0]} on {key[1]}, {key[2]}: {len(mine)} cases, {seconds:.0f} s")

    def evaluate(
        self, editor: Editor, records: Records, mine: list[EditRecord], batch: int
    ) -> float:
        """Evaluate the cases ``mine``; returns the seconds that editing and asking took."""
        before = self.done_rows

        def progress(done: int, total: int) -> None:
            self.report_progress(before * total + done, self.rows * total)

        result = evaluate(
            editor,
            mine,
            self.grid.protocol,
            batch_size=batch,
            run=self.run,
            progress=progress,
            dataset=records.name,
            suite=records.suite,
        )
        return result.row.seconds

    def failed(self, keys: list[Key], error: Exception) -> None:
        """Note that rows failed; in a strict grid, raise ``error``."""
        self.done_rows += len(keys)
        reason = error_text(error)
        details = "".join(traceback.format_exception(error))
        for key in keys:
            self.run.status.fail(key, reason, details, self.ranks.rank)
        if self.grid.strict:
            raise error
        names = ", ".join(dict.fromkeys(key[0] for key in keys))
        self.reporter.note(f"{names} on {self.label} failed: {reason}")


def error_text(error: Exception) -> str:
    """An error in one line for a table: what is wrong, and the remedy."""
    if isinstance(error, EasyEditMMError):
        text = error.message if not isinstance(error, DataError) else str(error).split("\n")[0]
        return f"{text} ({error.remedy})" if error.remedy else text
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(
        sign in text
        for sign in ("out of memory", "can't allocate memory", "cannot allocate memory")
    )
