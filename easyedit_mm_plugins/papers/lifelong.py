"""Lifelong editing: what holds when edits stay in force, from one to ten thousand of them.

A cell is a method on a backbone in one task (``lifelong_records.py``). Its edits are put in force,
the task's records are asked by the evaluator of all other tables, and the edits are taken back. A
run goes on with the first case that is lacking.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from ..core.console import CONSOLE
from ..core.environment import PACKAGES
from ..core.errors import ConfigError, RunError
from ..core.files import read_json, write_json, write_text
from ..core.processes import Reporter, run_here, run_parallel
from ..evaluation import Protocol, RunFolder, evaluate, run_files
from ..evaluation.grid import BackboneSpec
from ..evaluation.memory import release
from ..evaluation.metrics import LIFELONG
from ..evaluation.results import records_identity
from ..evaluation.status import DONE, Key
from ..evaluation.worker import error_text
from ..methods import make_editor
from ..methods.entries import METHODS
from ..recipes.job import embedded_backbones
from . import ExperimentSettings
from .lifelong_editors import InSequence, standing
from .lifelong_records import AGAIN, FIRST, LAST, PICTURE, SEQUENCE, SIZES, Task, make_tasks
from .plots import draw
from .tables import (
    INTERVAL,
    Block,
    Line,
    NothingMeasured,
    Table,
    method_label,
    protocol_note,
    run_note,
    with_kind,
)

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..data import Records
    from ..methods import Editor

CASES = 200
LOG_INTERVAL = 60.0  # seconds between lines of progress in a log
# The rows, as far as they are registered. EasyEdit's own WISE, GRACE and LoRA stand last.
ROWS = (
    "unedited", "ft-llm", "mend", "ke", "t-patcher", "ike", "lte", "serac", "mscke", "mscke-self",
    "mscke-mend", "mscke-mend-self", "dualedit", "wise", "grace", "lora",
)  # fmt: skip
# Their changes of the weights are applied one after the other.
CHANGE_WEIGHTS = ("ft-llm", "ft-visual", "mend", "ke")
# Those that keep edits beside the model, and so can keep ten thousand.
KEEP_MANY = (
    "unedited", "serac", "mscke", "mscke-lora", "mscke-self", "mscke-mend", "mscke-mend-self",
    "dualedit",
)  # fmt: skip
FEW = 1_000
METRICS = {
    SEQUENCE: (
        "reliability", "generality", "locality", "specificity_hard_in", "specificity_hard_out",
        "redrawn", "other_picture", "retention_first", "retention_last",
    ),
    PICTURE: (
        "reliability", "generality", "specificity_hard_in", "specificity_hard_out", "redrawn",
    ),
    AGAIN: ("reliability", "generality_target", "specificity_in"),
}  # fmt: skip
SHORT = {
    "reliability": "reliab.", "generality": "general.", "generality_target": "general.",
    "locality": "locality", "specificity_hard_in": "hard in", "specificity_hard_out": "hard out",
    "specificity_in": "in scope", "redrawn": "redrawn", "other_picture": "other",
    "retention_first": "first", "retention_last": "last",
}  # fmt: skip
TITLES = {
    "again": "edited again in the same words",
    "again-undone": "and the newer edits taken back",
    "again-reworded": "edited again in other words",
    "again-reworded-undone": "and these taken back",
}


@dataclass(frozen=True)
class Entrant:
    """A row: a method, and of DualEdit one of its gates."""

    method: str
    gate: str | None = None

    @property
    def name(self) -> str:
        """In the run's files."""
        return f"{self.method}/{self.gate}" if self.gate else self.method

    @property
    def label(self) -> str:
        """In tables."""
        title = method_label(self.method)
        return f"{title}, gate {self.gate}" if self.gate else title

    @property
    def most(self) -> int:
        """How many edits it is asked to keep."""
        return max(SIZES) if self.method in KEEP_MANY else FEW

    def make(self, backbone: Backbone, editors: Path | None) -> Editor:
        """The editor, from ``editors`` where it is there, else as shipped.

        Raises:
            CheckpointError, ConfigError, BridgeError: it cannot be made.
        """
        own = editors / f"{self.method}-{backbone.name}" if editors else None
        editor: Any = make_editor(
            self.method, backbone, folder=own if own is not None and own.is_dir() else None
        )
        if self.gate is not None and editor.describe().get("gate") != self.gate:
            editor = editor.with_gate(self.gate)
        if self.method in CHANGE_WEIGHTS:
            editor = InSequence(editor)
        editor.name = self.name
        return editor


def entrants(methods: Sequence[str]) -> list[Entrant]:
    """The rows: those of ``methods``, by default all of :data:`ROWS` that are registered.

    Raises:
        UnknownNameError: no such method.
    """
    METHODS.check(*methods)
    chosen = [METHODS.key(m) for m in methods] or [m for m in ROWS if m in METHODS]
    rows = []
    for method in dict.fromkeys(chosen):
        gates = _gates() if method == "dualedit" else [None]
        rows += [Entrant(method, gate) for gate in gates]
    return rows


def _gates() -> list[str]:
    from ..methods.dualedit.config import GateConfig

    known = get_args(get_type_hints(GateConfig)["kind"])
    return [kind for kind in ("prompt-end", "learned", "self") if kind in known]


def run(settings: ExperimentSettings) -> None:
    """Measure all tables into ``settings.out``, draw the picture and print.

    Raises:
        UnknownNameError, DataError, RunError: as :func:`run_grid`. ConfigError: training is asked
            for, or nothing is left to measure.
    """
    if settings.train:
        raise ConfigError("lifelong trains no editors", remedy="name their folder (--editors)")
    rows = entrants(settings.methods)
    specs = {spec.label: spec for spec in settings.backbone_specs(embedded_backbones())}
    records, tasks, notes = _plan(settings, lambda text: CONSOLE.print(text, markup=False))
    with closing(_open(settings, records)) as opened:
        keys = [
            _key(entrant, label, records, task)
            for label in specs
            for entrant in rows
            for task in tasks
            if task.edits <= entrant.most
        ]
        opened.status.ask(key for key in keys if opened.status.states(key) != {DONE})
        work = {label: (settings, spec) for label, spec in specs.items()}
        on_gpu = any(spec.device != "cpu" for spec in specs.values())
        if len(work) == 1 or on_gpu:
            run_here(measure_backbone, work, every=LOG_INTERVAL)
        else:
            run_parallel(measure_backbone, work, every=LOG_INTERVAL)
        write(opened, records, tasks, notes, rows, list(specs))


def _plan(
    settings: ExperimentSettings, tell: Callable[[str], None] = lambda text: None
) -> tuple[Records, list[Task], list[str]]:
    name = "scenes-fgvedit" if settings.data == "scenes" else settings.data
    records = settings.records(None, data=name)
    sizes = sorted(set(settings.edits)) or SIZES
    cases = settings.limit or CASES
    tasks, notes = make_tasks(records, sizes, cases, settings.out / "records", tell)
    return records, tasks, notes


def _open(settings: ExperimentSettings, records: Records, *, joined: bool = False) -> RunFolder:
    protocol = Protocol(settings.protocol or "generated")
    config = {
        "dataset": records_identity(records),
        "cases": settings.limit or CASES,
        "protocol": protocol.settings(),
        "suite": LIFELONG.name,
    }
    return RunFolder.open(
        settings.out,
        config,
        execution=settings.execution,
        overwrite=settings.overwrite and not joined,
        joined=joined,
    )


def _dataset(records: Records, task: Task, part: str = "") -> str:
    return f"{records.name}/{task.name}{part}"


def _key(entrant: Entrant, backbone: str, records: Records, task: Task) -> Key:
    return (entrant.name, backbone, _dataset(records, task))


# Measuring ------------------------------------------------------------------------------------


def measure_backbone(settings: ExperimentSettings, spec: BackboneSpec, reporter: Reporter) -> None:
    """Measure every cell of one backbone that is not done.

    Raises:
        RunError: the run folder cannot be written. What else fails is noted in it.
    """
    reporter.one_thread()
    records, tasks, _ = _plan(settings)
    opened = _open(settings, records, joined=True)
    todo = {
        entrant: cells
        for entrant in entrants(settings.methods)
        if (
            cells := [
                task
                for task in tasks
                if task.edits <= entrant.most
                and opened.status.states(_key(entrant, spec.label, records, task)) != {DONE}
            ]
        )
    }
    if not todo:
        return
    try:
        backbone = spec.load()
    except Exception as error:
        for entrant, cells in todo.items():
            for task in cells:
                opened.status.fail(_key(entrant, spec.label, records, task), error_text(error))
        reporter.note(f"{spec.label}: {error_text(error)}")
        return
    worker = _Worker(settings, records, opened, backbone, reporter)
    worker.total = sum(task.count for cells in todo.values() for task in cells)
    for entrant, cells in todo.items():
        worker.row(entrant, cells)
        release()


class _Worker:
    """Measures rows on one backbone; a cell that fails does not stop the others."""

    def __init__(
        self,
        settings: ExperimentSettings,
        records: Records,
        opened: RunFolder,
        backbone: Backbone,
        reporter: Reporter,
    ) -> None:
        self.settings, self.records, self.run = settings, records, opened
        self.backbone, self.reporter = backbone, reporter
        self.protocol = Protocol(settings.protocol or "generated")
        self.progress = reporter.progress(backbone.name)
        self.total = self.done = 0

    def row(self, entrant: Entrant, tasks: Sequence[Task]) -> None:
        """Measure a method in ``tasks``."""
        keys = {task.name: _key(entrant, self.backbone.name, self.records, task) for task in tasks}
        try:
            editor = entrant.make(self.backbone, self.settings.editors)
        except RunError:
            raise
        except Exception as error:
            for task in tasks:
                self._failed(keys[task.name], task, error)
            self.reporter.note(f"{entrant.name} on {self.backbone.name}: {error_text(error)}")
            return
        for task in tasks:
            self.run.status.start(keys[task.name])
            before = self.done
            try:
                self.cell(editor, task)
            except RunError:
                raise
            except Exception as error:
                self.done = before
                self._failed(keys[task.name], task, error)
                self.reporter.note(f"{entrant.name}, {task.name}: {error_text(error)}")
                continue
            self.run.status.done(keys[task.name], (editor.name, self.backbone.name))
            self.reporter.line(f"{entrant.label} on {self.backbone.name}: {task.name} done")

    def cell(self, editor: Editor, task: Task) -> None:
        """Put the edits of ``task`` in force, ask, and take them back."""
        names = {part: _dataset(self.records, task, part) for part in task.parts}
        row = (editor.name, self.backbone.name)
        finished = {
            part: self.run.finished((*row, name, self.protocol.name))
            for part, name in names.items()
        }
        groups = [task.blocks] if editor.isolates_rows else [[block] for block in task.blocks]
        for group in groups:
            asked = {p: [r for b in group for r in b.asked.get(p, ())] for p in task.parts}
            lacking = [
                part
                for part, mine in asked.items()
                if any(r.case_id not in finished[part] for r in mine)
            ]
            with standing(editor, group) if lacking else nullcontext(editor) as there:
                for part, mine in asked.items():
                    if part in lacking:
                        evaluate(
                            there,
                            mine,
                            self.protocol,
                            run=self.run,
                            dataset=names[part],
                            suite=LIFELONG,
                            progress=self._tick,
                        )
                    self.done += len(mine)
            self.progress(self.done, self.total)

    def _tick(self, done: int, total: int) -> None:
        if self.done + done < self.total:  # the end is told once
            self.progress(self.done + done, self.total)

    def _failed(self, key: Key, task: Task, error: Exception) -> None:
        self.done += task.count
        details = "".join(traceback.format_exception(error))
        self.run.status.fail(key, error_text(error), details)


# Results --------------------------------------------------------------------------------------


def write(
    opened: RunFolder,
    records: Records,
    tasks: Sequence[Task],
    notes: Sequence[str],
    rows: Sequence[Entrant],
    backbones: Sequence[str],
) -> None:
    """``summary.json``, ``table.md``, a picture for each backbone, and the terminal.

    Raises:
        NothingMeasured: no cell could be measured.
    """
    opened.status.load()
    found = summarise(opened, records, tasks)
    if not found:
        raise NothingMeasured(
            "lifelong: no case was measured, so there is no table",
            remedy="mend what the notes above say, and start the same command again",
        )
    missing = {
        (m["method"], m["backbone"], m["dataset"]): m["reason"] for m in opened.status.missing()
    }
    tables = []
    for kind, metrics in METRICS.items():
        blocks = []
        for backbone in backbones:
            for task in (t for t in tasks if t.table == kind):
                by_name = {
                    row["row"]: row
                    for row in found
                    if (row["backbone"], row["task"]) == (backbone, task.name)
                }
                asked = [e for e in rows if task.edits <= e.most]
                lines = [
                    Line.of(
                        e.label,
                        by_name.get(e.name),
                        note=missing.get(_key(e, backbone, records, task), "not measured yet"),
                    )
                    for e in asked
                ]
                blocks.append(Block(f"{with_kind(backbone)}, {title(task)}", lines))
        if blocks:
            tables.append(Table(f"Lifelong editing: {_HEADS[kind]}", metrics, blocks, names=SHORT))
    environment = opened.environment()
    below = [
        f"Percent; {INTERVAL} over cases.",
        protocol_note((opened.config.get("protocol") or {}).get("name", "")),
        "Generality compares the answer with the edited model's own to the edit, of facts edited "
        "again with the new answer. Hard in and hard out: Specificity of the hard questions; "
        "other: the edit's question about another picture; first and last: Reliability of the "
        "first and the last tenth of the edits.",
        *notes,
        run_note(opened.path, environment),
    ]
    text = "\n".join(table.markdown() for table in tables)
    write_text(opened.path / "table.md", text + "\n" + "\n".join(f"- {n}" for n in below) + "\n")
    for table in tables:
        table.show(CONSOLE)
    for note in below:
        CONSOLE.print(note, style="dim", markup=False, soft_wrap=True)
    for backbone in backbones:
        lines = [r for r in found if (r["backbone"], r["table"]) == (backbone, SEQUENCE)]
        if lines:
            labels = {e.name: e.label for e in rows}
            painter = partial(_paint, backbone, lines, labels)
            draw(opened.path / f"lifelong-{backbone}.png", painter, size=(11, 9), rows=3, columns=3)


_HEADS = {
    SEQUENCE: "edits in force",
    PICTURE: "several edits on one picture",
    AGAIN: "facts edited again",
}


def title(task: Task) -> str:
    """A task in the words of a table's heading."""
    if task.table == AGAIN:
        return f"{TITLES[task.name]}: {task.edits:,} in force"
    where = " on each picture" if task.table == PICTURE else " in force"
    return f"{task.edits:,} edit{'s' if task.edits > 1 else ''}{where}"


def summarise(opened: RunFolder, records: Records, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Write ``summary.json``: a row for each cell, its parts' Reliability as retention.

    Beyond an evaluation's rows each has ``edits`` (in force), ``table``, ``task``, ``row`` (its
    name in the run's files), of DualEdit ``gate``, and what it was measured with.
    """
    plain = {(r["method"], r["backbone"], r["dataset"]): r for r in opened.summarise()}
    about = _measured_with(opened.environment(), opened.config)
    rows = []
    for task in tasks:
        own = _dataset(records, task)
        for (name, backbone, dataset), row in plain.items():
            if dataset != own:
                continue
            metrics, intervals = dict(row["metrics"]), dict(row["intervals"])
            for part, metric in ((FIRST, "retention_first"), (LAST, "retention_last")):
                tenth = plain.get((name, backbone, dataset + part))
                if tenth is not None:
                    metrics[metric] = tenth["metrics"]["reliability"]
                    intervals[metric] = tenth["intervals"]["reliability"]
            method, _, gate = name.partition("/")
            rows.append(
                {
                    **row,
                    "method": method,
                    **({"gate": gate} if gate else {}),
                    "edits": task.edits,
                    "table": task.table,
                    "task": task.name,
                    "row": name,
                    "metrics": metrics,
                    "intervals": intervals,
                    **about,
                }
            )
    path = opened.path / "summary.json"
    write_json(
        path,
        {**read_json(path), "rows": rows, "checksums": run_files.checksums(opened.path, rows)},
    )
    return rows


def _measured_with(env: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    names = ("python", "easyedit_mm_plugins", *PACKAGES)
    return {
        "seed": (config.get("protocol") or {}).get("seed", 0),
        "dtype": env.get("dtype"),
        "hardware": f"{env.get('gpu') or env.get('cpu')}, {env.get('cores')} cores",
        "versions": {name: env[name] for name in names if env.get(name)},
    }


def _paint(
    backbone: str,
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
    figure: Any,
    axes: Any,
) -> None:
    """A panel for each metric: percent against the number of edits, a line for each row."""
    for axis, metric in zip(axes, METRICS[SEQUENCE], strict=True):
        for at, name in enumerate(labels):
            points = sorted(
                (r["edits"], r["metrics"][metric])
                for r in rows
                if r["row"] == name and r["metrics"].get(metric) is not None
            )
            if points:
                style = ("-", "--", ":")[at // 10 % 3]
                axis.plot(*zip(*points, strict=True), f"o{style}", color=f"C{at % 10}", ms=3,
                          label=labels[name])  # fmt: skip
        axis.set(title=metric.replace("_", " "), xscale="log", ylim=(-3, 103))
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize="small")
    figure.suptitle(f"{backbone}: percent against edits in force")
