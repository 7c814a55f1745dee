"""Reads runs into one report; runs whose figures cannot be compared are refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import RunError
from ..evaluation.metrics import Suite, suite_named
from ..evaluation.results import CaseResult, make_row
from ..evaluation.runs import RunFolder, find_run
from ..methods.entries import METHODS

UNEDITED = "unedited"


@dataclass
class Source:
    """A run folder that figures come from.

    Attributes:
        name: how the report calls it, unique among its runs.
        path: as it was given.
    """

    name: str
    path: Path
    run: RunFolder
    environment: dict[str, Any]

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything about the protocol that can change a number."""
        return dict(self.run.config.get("protocol") or {})

    @property
    def datasets(self) -> dict[str, dict[str, Any]]:
        """Size and digest of the records by name; a grid has several."""
        one, several = self.run.config.get("dataset"), self.run.config.get("datasets")
        if isinstance(several, Mapping):
            return {name: dict(settings) for name, settings in several.items()}
        return {one["name"]: dict(one)} if isinstance(one, Mapping) and "name" in one else {}


@dataclass
class Entry:
    """One method on one backbone and data set: a row of a table.

    Attributes:
        label: the method as the papers write it, with the run's name where two runs have it.
        row: as in ``summary.json``; see :class:`evaluation.results.Row`.
        wanted: how many cases the run asked for, if it says so.
    """

    method: str
    label: str
    source: Source
    row: dict[str, Any]
    cases: dict[str, CaseResult]
    wanted: int | None

    @property
    def unfinished(self) -> bool:
        """Whether cases are missing that the run asked for."""
        return self.wanted is not None and self.row["n"] < self.wanted


@dataclass
class Board:
    """Rows that may be compared: same backbone, records, protocol and metrics.

    Attributes:
        tests: see :func:`layout.all_tests`, which fills it.
    """

    backbone: str
    dataset: str
    protocol: str
    suite: Suite
    entries: list[Entry]
    tests: dict[tuple[int, int], dict[str, Any]] | None = None

    @property
    def cases(self) -> list[str]:
        """Ids of all cases, in order."""
        return sorted({case for entry in self.entries for case in entry.cases})


@dataclass
class Report:
    """The boards of one or several runs, and the rows that were not measured.

    Attributes:
        missing: method, backbone, dataset, status, reason and run of each row not measured.
        notes: what the reader should know of the runs, e.g. that files were changed.
    """

    sources: list[Source]
    boards: list[Board]
    missing: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def collect(runs: Sequence[str | Path], root: str | Path = "runs") -> Report:
    """Read runs, given by folder or by name below ``root``, into one report.

    A folder that holds run folders stands for all of them.

    Raises:
        RunError: no such run, one of a newer format, none with a finished case, or runs that may
            not be compared; the message names what differs.
    """
    sources = _sources(runs, root)
    _refuse_other_protocols(sources)
    _refuse_other_records(sources)
    report = Report(sources, [])
    for source in sources:
        report.notes += source.run.notes
        report.missing += [
            {**{key: str(value) for key, value in row.items()}, "run": source.name}
            for row in source.run.status.missing()
        ]
    report.boards = _boards(sources)
    if not report.boards and not report.missing:
        raise RunError(
            f"no case is finished in {', '.join(str(s.path) for s in sources)}",
            remedy="start the same evaluation again to finish it",
        )
    for entry in (entry for board in report.boards for entry in board.entries):
        if entry.unfinished:
            place = f"{entry.label} on {entry.row['backbone']}, {entry.row['dataset']}"
            report.notes.append(f"{place}: {entry.row['n']} of {entry.wanted} cases so far")
    return report


def _sources(runs: Sequence[str | Path], root: str | Path) -> list[Source]:
    paths: dict[Path, Path] = {}
    for given in runs:
        inside, is_run = [], False
        with suppress(OSError, ValueError):  # a name that no file can have
            inside = sorted(p.parent for p in Path(given).glob("*/config.yaml"))
            is_run = (Path(given) / "config.yaml").exists()
        for path in inside if inside and not is_run else [find_run(given, root)]:
            paths.setdefault(path.resolve(), path)
    if not paths:
        raise RunError("no run was given", remedy="name one or more run folders")
    names = _short_names(list(paths))
    sources = []
    for resolved, path in paths.items():
        run = RunFolder.read(path)
        sources.append(Source(names[resolved], path, run, run.environment()))
    return sources


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The last part of each path, and as many before it as make it unique."""
    names = {}
    for path in paths:
        for count in range(1, len(path.parts) + 1):
            tail = path.parts[-count:]
            if sum(other.parts[-count:] == tail for other in paths) == 1:
                break
        names[path] = "/".join(tail)
    return names


def _refuse_other_protocols(sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        ours, theirs = first.protocol, other.protocol
        different = [
            f"{key}: {ours.get(key)!r} in {first.name}, {theirs.get(key)!r} in {other.name}"
            for key in dict.fromkeys([*ours, *theirs])
            if ours.get(key) != theirs.get(key)
        ]
        if different:
            listed = "\n    ".join(different)
            raise RunError(
                f"these runs were measured under different protocols:\n    {listed}",
                remedy="make a report of each, or measure them again under one protocol",
            )


def _refuse_other_records(sources: Sequence[Source]) -> None:
    seen: dict[str, tuple[Source, dict[str, Any]]] = {}
    for source in sources:
        for name, settings in source.datasets.items():
            first, known = seen.setdefault(name, (source, settings))
            # Metrics are no part of the records: they go into tables of their own.
            different = [
                f"{key}: {known.get(key)} in {first.name}, {settings.get(key)} in {source.name}"
                for key in dict.fromkeys([*known, *settings])
                if key != "suite" and known.get(key) != settings.get(key)
            ]
            if different:
                listed = "\n    ".join(different)
                raise RunError(
                    f"these runs hold different records under the name {name!r}:\n    {listed}",
                    remedy="make a report of each, or measure both on the same records (--limit)",
                )


def _boards(sources: Sequence[Source]) -> list[Board]:
    grouped: dict[tuple, list[Entry]] = {}
    for source in sources:
        for key, cases in _rows(source):
            method, backbone, dataset, protocol, suite = key
            row = make_row(
                cases.values(),
                suite_named(suite),
                seed=source.protocol.get("seed", 0),
                samples=source.protocol.get("bootstrap", 1000),
                settings=source.run.editors.get(f"{method}/{backbone}", {}).get("settings"),
            ).to_json()
            wanted = source.datasets.get(dataset, {}).get("n")
            label = method_title(method)
            entry = Entry(method, label, source, row, cases, wanted)
            grouped.setdefault((dataset, suite, backbone, protocol), []).append(entry)
    boards = []
    for (dataset, suite, backbone, protocol), entries in sorted(grouped.items(), key=_order):
        entries.sort(key=lambda entry: method_place(entry.method))
        for method in {entry.method for entry in entries}:
            same = [entry for entry in entries if entry.method == method]
            for entry in same if len(same) > 1 else []:
                entry.label = f"{entry.label} ({entry.source.name})"
        boards.append(Board(backbone, dataset, protocol, suite_named(suite), entries))
    return boards


def _rows(source: Source) -> Iterator[tuple[tuple[str, ...], dict[str, CaseResult]]]:
    """Cases by method, backbone, data set, protocol and suite, as they were measured."""
    rows: dict[tuple[str, ...], dict[str, CaseResult]] = {}
    for case in source.run.cases:
        rows.setdefault((*case.row_key, case.suite), {})[case.case] = case
    yield from rows.items()


def method_title(method: str) -> str:
    """The title of a method in tables; its name if it is not installed here."""
    return METHODS.get(method).title if method in METHODS else method


def method_place(method: str) -> int:
    """Its place in tables."""
    return METHODS.get(method).order if method in METHODS else 1000


def _order(item: tuple[tuple, Any]) -> tuple:
    """Sort key of boards: FGVEdit before E-VQA, backbones in the papers' order, then by name."""
    (dataset, suite, backbone, protocol), _ = item
    families = [
        place for place, name in enumerate(("blip2", "minigpt4", "llava")) if name in backbone
    ]
    return (suite != "fgvedit", suite, dataset, families or [9], backbone, protocol)
