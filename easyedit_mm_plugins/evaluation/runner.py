"""Measures a grid in one or several processes: resumes a stopped run, goes on after a failure."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

from ..core.distributed import Ranks
from ..core.errors import EasyEditMMError
from ..core.files import write_text
from ..core.processes import run_here, run_parallel
from ..data import Records
from . import RunFolder
from .grid import Grid
from .status import DONE, FAILED, STARTED, Key
from .worker import measure_backbone

LOG_INTERVAL = 300.0  # seconds between lines of progress in a log


def run_grid(
    grid: Grid, out: str | Path, *, overwrite: bool = False, every: float = LOG_INTERVAL
) -> RunFolder:
    """Measure everything that ``grid`` asks for into the run folder ``out``.

    What is finished there is kept and not measured again; a row that failed is tried again. Under
    ``torchrun`` or ``accelerate launch`` every process measures its share of the cases.

    Args:
        overwrite: drop what is there and start over.
        every: seconds between lines of progress where there is no terminal.

    Returns:
        The run folder, its ``summary.json`` and ``table.md`` written; rows that could not be
        measured stand under "failed" there, with the reason.

    Raises:
        DataError: the records are wrong. RunError: another process owns the folder; or it holds
            another run, another version of a method, or cannot be written.
    """
    ranks = Ranks.here()
    sets = grid.load()
    if ranks.first:
        run = grid.open(out, sets, overwrite=overwrite)
    else:
        ranks.wait()  # until the first process owns the folder and has noted what is wanted
        run = grid.open(out, sets, joined=True)
    with closing(run):
        _run(grid, sets, run, ranks, every)
    ranks.leave()
    return run


def _run(grid: Grid, sets: list[Records], run: RunFolder, ranks: Ranks, every: float) -> None:
    """This process's part of a grid in the opened folder."""
    done = _finished(grid, sets, run)
    if ranks.first:
        if grid.resolved is not None:
            write_text(run.path / "resolved.yaml", grid.resolved)
        run.status.ask(key for key in _keys(grid, sets) if key not in done)
        ranks.wait()  # lets the others open the folder
    try:
        _measure_all(grid, sets, run, done, ranks, every)
    except BaseException:
        if ranks.world == 1:  # so that what is there can be looked at
            with suppress(EasyEditMMError):
                run.summarise()
        raise
    ranks.wait()
    if ranks.first:
        run.summarise()
    ranks.wait()  # now every process can read it


def finished(grid: Grid, out: str | Path) -> bool:
    """Whether the run folder ``out`` holds all that ``grid`` asks for.

    Raises:
        DataError: the records are wrong. RunError: the folder holds another run.
    """
    if not (Path(out) / "config.yaml").is_file():
        return False
    sets = grid.load()
    with closing(grid.open(out, sets)) as run:
        return _finished(grid, sets, run) == set(_keys(grid, sets))


def _keys(grid: Grid, sets: list[Records]) -> list[Key]:
    return [
        (method, backbone.label, records.name)
        for backbone in grid.backbones
        for records in sets
        for method in grid.methods
    ]


def _finished(grid: Grid, sets: list[Records], run: RunFolder) -> set[Key]:
    """Rows of which every case is there."""
    cases = {records.name: {r.case_id for r in records.records} for records in sets}
    found = set()
    for key in _keys(grid, sets):
        row = run.status.measured_as(key)
        if run.status.states(key) == {DONE} and row is not None:
            done = run.finished((*row, key[2], grid.protocol.name))
            if cases[key[2]] <= set(done):
                found.add(key)
    return found


def _measure_all(
    grid: Grid,
    sets: list[Records],
    run: RunFolder,
    done: set[Key],
    ranks: Ranks,
    every: float,
) -> None:
    todo = {
        backbone.label: backbone
        for backbone in grid.backbones
        if any(key[1] == backbone.label and key not in done for key in _keys(grid, sets))
    }
    here = grid.processes == 0 or (grid.processes is None and len(todo) == 1) or ranks.world > 1

    def work(skip: Collection[Key]) -> dict[str, tuple]:
        path = str(run.path)
        return {name: (grid, b, path, frozenset(skip), ranks) for name, b in todo.items()}

    if here:
        run_here(measure_backbone, work(done), every=every, silent=not ranks.first)
        return
    cpu = all(backbone.device == "cpu" for backbone in todo.values())
    limit = grid.processes or (None if cpu else 1)
    skip = set(done)
    while todo:
        died = run_parallel(measure_backbone, work(skip), limit=limit, survive=True, every=every)
        run.status.load()
        for name, code in died.items():
            skip |= _fail_rows_of_dead_process(
                run, [k for k in _keys(grid, sets) if k[1] == name], code
            )
        todo = {name: todo[name] for name in died}
        skip |= {k for k in _keys(grid, sets) if run.status.states(k) & {DONE, FAILED}}


def _fail_rows_of_dead_process(run: RunFolder, keys: list[Key], code: int) -> set[Key]:
    """Note as failed, and return, the rows that a process had begun when it died with ``code``."""
    begun = {key for key in keys if STARTED in run.status.states(key)}
    if not begun:  # it died before its first method and would do so again: all its rows fail
        begun = {key for key in keys if not run.status.states(key) & {DONE, FAILED}}
    for key in begun:
        run.status.fail(
            key, f"its process ended with code {code} (out of memory?); the others went on"
        )
    return begun
