"""The table of data sets, and records by a data set's name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..core.errors import UnknownNameError
from ..core.registry import Entry, EntryTable, Registry, did_you_mean, resolve
from .fgvedit import FGVEditDataset
from .records import EditRecord

CAPTIONS = "captions"  # the task of a data set whose edits are captions


@dataclass(frozen=True, kw_only=True)
class DatasetEntry(Entry):
    """Everything that the project asks about a data set.

    Attributes:
        reader: a class or function, or ``"module:attribute"``; it gives a sequence of
            :class:`EditRecord` that may have ``skipped`` (what was left out, one line each) and
            ``path``. Called as ``reader(path, limit, image_root=..., skip_bad=...)``, with
            ``extra=True`` or ``allow_outside=True`` where the user asks for it; or, if
            ``takes_path`` is false, as ``reader(split=..., limit=..., extra=...)``.
        takes_path: users name a file, ``NAME:PATH``.
        suite: the metrics that it is for, "fgvedit" or "evqa".
        task: "captions" if an edit is a caption; ``None``: questions.
        paper: the published data set that it is or stands for.
        released: the names, without ending, of the files that are that published data set: the
            paper's numbers may stand beside what is measured on them.
        source: where to get it, for people.
    """

    reader: Any
    takes_path: bool = True
    suite: str = "fgvedit"
    task: str | None = None
    paper: str | None = None
    released: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """An entry for another package's reader."""
        return cls(name=name, reader=value) if callable(value) else super().of(name, value)

    def read(
        self,
        path: str | Path | None,
        *,
        split: str = "test",
        images: str | Path | None = None,
        limit: int | None = None,
        skip_bad: bool = False,
        extra: bool = False,
        allow_outside: bool = False,
    ) -> Any:
        """The sequence of records; see :func:`load_records` for the arguments.

        A reader need not know ``extra`` (its records have no further questions then) nor
        ``allow_outside`` (it does not confine image paths then).
        """
        reader = resolve(self.reader)
        if not self.takes_path:
            return reader(split=split, limit=limit, extra=extra)
        known = inspect.signature(reader).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        asked = {"extra": extra, "allow_outside": allow_outside}
        further = {n: True for n, wanted in asked.items() if wanted and (n in known or takes_all)}
        return reader(path, limit, image_root=images, skip_bad=skip_bad, **further)


# Where question-answer pairs come from that a benchmark is built of; data/tools/construct.
SOURCES: Registry[Any] = Registry("source", "easyedit_mm_plugins.sources")
DATASETS: EntryTable[DatasetEntry] = EntryTable(
    "data set", "easyedit_mm_plugins.datasets", DatasetEntry
)


@dataclass(frozen=True)
class Records:
    """Checked records and where they came from.

    Attributes:
        name: how results call them.
        skipped: what was left out, one line each.
        suite, task: see :class:`DatasetEntry`.
    """

    name: str
    records: list[EditRecord]
    skipped: list[str]
    path: Path
    suite: str = "fgvedit"
    task: str | None = None


def load_records(
    data: str,
    *,
    split: str = "test",
    images: str | Path | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    extra: bool = False,
    suite: str | None = None,
    allow_outside: bool = False,
) -> Records:
    """Records to evaluate or train on, checked before anything long starts.

    Args:
        data: the name of a data set (``scenes-fgvedit``, or ``scenes`` for short), ``NAME:PATH``
            for one that takes a file, or the path of a JSON file in FGVEdit's schema.
        split: "train" or "test", for a data set that has both.
        images: folder that image paths are relative to.
        limit: the first so many records only.
        skip_bad: leave bad records out instead of raising.
        extra: also take the further scope questions (``fg_extra``).
        suite: the metrics, if not those that the data set is for.
        allow_outside: accept image paths that lead out of ``images``.

    Raises:
        DataError: naming file, record and field of what is wrong.
        UnknownNameError: no such data set; offers the nearest.
    """
    options: dict[str, Any] = {"skip_bad": skip_bad, "extra": extra, "allow_outside": allow_outside}
    entry, path = find_dataset(data)
    if entry is None:
        found = FGVEditDataset(path, limit, image_root=images, **options)
        return Records(
            Path(path).stem, found.records, found.skipped, Path(path), suite or "fgvedit"
        )
    found = entry.read(path or None, split=split, images=images, limit=limit, **options)
    name = Path(path).stem if path else entry.name
    where = Path(getattr(found, "path", None) or path or entry.name)
    skipped = list(getattr(found, "skipped", ()))
    return Records(name, list(found), skipped, where, suite or entry.suite, entry.task)


def find_dataset(data: str) -> tuple[DatasetEntry | None, str]:
    """The entry and the path in ``data``, as :func:`load_records` takes it.

    Returns:
        The entry, ``None`` for a JSON file by its path alone; and the path, "" where none is given.

    Raises:
        UnknownNameError: no such data set, or a path is missing or too many; offers the nearest.
    """
    name, colon, path = data.partition(":")
    if name in DATASETS:
        entry = DATASETS.get(name)
        if entry.takes_path == bool(path):
            return entry, path
        wrong = "needs the path of a file" if entry.takes_path else "takes no path"
        form = f"{entry.name}:PATH" if entry.takes_path else entry.name
        raise UnknownNameError(f"data set {entry.name} {wrong}", remedy=f"write {form}")
    if not colon and (Path(data).exists() or Path(data).suffix == ".json"):
        return None, data
    if Path(data).exists():
        return None, data
    raise UnknownNameError(f"unknown data set {data!r}; {did_you_mean(data, dataset_forms())}")


def dataset_forms() -> list[str]:
    """What users may write for a data set."""
    forms = [f"{name}:PATH" if DATASETS.get(name).takes_path else name for name in DATASETS.names()]
    return [*forms, "a JSON file"]


def task_of(data: str) -> str | None:
    """The task of a data set, by the name that :func:`load_records` takes."""
    entry, _ = find_dataset(data)
    return entry.task if entry else None
