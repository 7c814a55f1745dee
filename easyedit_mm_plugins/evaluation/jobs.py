"""What the commands share: records by name, a method on a backbone measured into a run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.distributed import Ranks
from ..core.errors import UnknownNameError
from ..core.registry import BACKBONES, DATASETS, METHODS, did_you_mean
from ..data import EditRecord, FGVEditDataset
from . import Evaluation, Protocol, RunFolder, evaluate, records_digest
from .evaluator import Progress

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..methods import Editor

SCENES = "scenes"
# Names of the embedded data, and the metrics that each is for; the records are the same, and
# "scenes" is short for the first.
SCENES_SUITES = {"scenes-fgvedit": "fgvedit", "scenes-evqa": "evqa", "scenes-eic": "evqa"}
_EVQA_SETS = ("e-vqa", "evqa", "e-ic", "eic")
CAPTIONS = "captions"
_CAPTION_SETS = ("scenes-eic", "e-ic", "eic")


@dataclass(frozen=True)
class Records:
    """Checked records and where they came from.

    Attributes:
        name: how results call them.
        skipped: what was left out, one line each.
        suite: the metrics that they are for.
        task: "captions", or ``None``: questions.
    """

    name: str
    records: list[EditRecord]
    skipped: list[str]
    path: Path
    suite: str = "fgvedit"
    task: str | None = None

    def settings(self) -> dict[str, Any]:
        """What identifies them in a run's configuration, whatever folder they lie in."""
        return {"name": self.name, "n": len(self.records), "digest": records_digest(self.records)}


def load_records(
    data: str,
    *,
    split: str = "test",
    images: str | Path | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    extra: bool = False,
    suite: str | None = None,
) -> Records:
    """Records to evaluate or train on, checked before anything long starts.

    Args:
        data: ``"scenes"`` or ``"scenes-fgvedit"`` (drawn below ``data/`` when absent),
            ``"scenes-evqa"`` (the same records for E-VQA's metrics), ``"scenes-eic"`` (captions of
            the same scenes), the path of a JSON file in the FGVEdit schema, or ``NAME:PATH`` for a
            registered data set class.
        split: of scenes, "train" or "test".
        images, limit, skip_bad, extra: see :class:`FGVEditDataset`.
        suite: the metrics, if not those that the data set is for.

    Raises:
        DataError: naming file, record and field of what is wrong.
        UnknownNameError: no such data set; offers the nearest.
    """
    name, _, tail = data.partition(":")
    data = "scenes-fgvedit" if data == SCENES else data
    if data in SCENES_SUITES:
        from ..scenes.records import ensure_scenes

        files = ensure_scenes()
        path = files.test if split == "test" else files.train
        dataset = FGVEditDataset(path, limit, image_root=files.images, check="exists", extra=extra)
        records, task = dataset.records, task_of(data)
        if task == CAPTIONS:
            from ..scenes.captions import caption_records

            records = caption_records(records, split)
        return Records(data, records, [], path, suite or SCENES_SUITES[data], task)
    if tail and name in DATASETS:
        dataset = DATASETS.get(name)(tail, limit, image_root=images, skip_bad=skip_bad)
        suite = suite or ("evqa" if DATASETS.key(name) in _EVQA_SETS else "fgvedit")
        found = list(dataset), list(dataset.skipped)
        return Records(Path(tail).stem, *found, Path(tail), suite, task_of(data))
    path = Path(data)
    if not path.exists() and path.suffix != ".json":
        known = [SCENES, *SCENES_SUITES, *(f"{n}:PATH" for n in DATASETS.names()), "a JSON file"]
        raise UnknownNameError(f"unknown data set {data!r}; {did_you_mean(data, known)}")
    dataset = FGVEditDataset(path, limit, image_root=images, skip_bad=skip_bad, extra=extra)
    return Records(path.stem, dataset.records, dataset.skipped, path, suite or "fgvedit")


def task_of(data: str) -> str | None:
    """The :attr:`Records.task` of a data set, by the name that :func:`load_records` takes."""
    name = data.partition(":")[0]
    key = DATASETS.key(name) if name in DATASETS else name
    return CAPTIONS if key in _CAPTION_SETS else None


def check_names(methods: Sequence[str], backbones: Sequence[str]) -> None:
    """Raise :class:`UnknownNameError` for the first name that nothing here answers to.

    A backbone may also be a model folder.
    """
    for module in ("backbones", "methods"):  # these enter their names
        import_module(f"easyedit_mm_plugins.{module}")

    for registry, names in ((METHODS, methods), (BACKBONES, backbones)):
        for name in names:
            if name not in registry and not (registry is BACKBONES and Path(name).is_dir()):
                hint = did_you_mean(name, registry.names())
                raise UnknownNameError(f"unknown {registry.kind} {name!r}; {hint}")


def open_run(
    path: str | Path,
    records: Records,
    protocol: Protocol,
    *,
    suite: str = "fgvedit",
    execution: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> RunFolder:
    """The run folder of an evaluation of ``records``; methods and backbones join as they come."""
    config = {"dataset": records.settings(), "protocol": protocol.settings(), "suite": suite}
    return RunFolder.open(path, config, execution=execution, overwrite=overwrite)


def measure(
    editors: Mapping[str, Callable[[], Editor]],
    records: Records,
    protocol: Protocol,
    run: RunFolder,
    *,
    batch_size: int = 32,
    suite: str = "fgvedit",
    progress: Callable[[str], Progress] | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008 - it is frozen
) -> list[Evaluation]:
    """Evaluate editors one after the other into ``run``; each is built when its turn comes.

    Args:
        editors: by method name, how to make it.
        progress: gives the callback for one method's progress.
        ranks: which part of the records is this process's.
    """
    mine = ranks.share(records.records)
    if not mine:  # fewer cases than processes
        return []
    results = []
    for name, make in editors.items():
        results.append(
            evaluate(
                make(),
                mine,
                protocol,
                batch_size=batch_size,
                run=run,
                dataset=records.name,
                suite=suite,
                progress=progress(name) if progress else None,
            )
        )
    return results


def editor_makers(
    methods: Sequence[str],
    backbone: Backbone,
    folders: Mapping[str, str | Path] | None = None,
    task: str | None = None,
) -> dict[str, Callable[[], Editor]]:
    """For :func:`measure`: trained editors by name, from ``folders`` or as shipped for ``task``."""
    from ..methods import load_editor

    def maker(name: str) -> Callable[[], Editor]:
        return lambda: load_editor(name, backbone, (folders or {}).get(name), task)

    return {name: maker(name) for name in methods}
