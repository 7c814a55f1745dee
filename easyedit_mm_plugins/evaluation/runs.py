"""Run folders: all files behind a run's figures, written so that no finished case is lost.

::

    config.yaml     what was asked for; a later start with another configuration is refused
    env.json        versions, commit, device, hardware
    cases.jsonl     one line per finished case (method, backbone): see ``results.CaseResult``
    before-*.jsonl  the unedited model's answers, shared between methods
    status.jsonl    which rows were asked for, started, done or failed: see ``status.Status``
    summary.json    {"format": 1, "rows": [...], "checksums": {...}}, the checksums being those of
                    the rows and of the files they come from; "failed": [...] lists missing rows
    table.md        the same as a table

A run folder has one owner, the process that opened it first. Only the processes of one launch
(``torchrun``, ``accelerate``) and the workers of a grid write to it together: one of them owns the
folder, the others join it. Reading (``show``, ``report``) needs no owner.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import jsonl
from ..core.environment import model_facts, weights_digest
from ..core.errors import ConfigError, RunError
from ..core.files import disk_error, remove_leftovers, write_json, write_text
from ..core.ownership import own_folder
from . import run_files
from .answers import BaseAnswers
from .metrics import suite_named
from .protocol import Protocol
from .results import CaseResult, check_row, make_row
from .run_files import plain
from .status import Status
from .tables import markdown

if TYPE_CHECKING:
    from ..methods.base import Editor

_OWN_FILES = (
    "config.yaml",
    "env.json",
    "cases.jsonl",
    "status.jsonl",
    "summary.json",
    "table.md",
    "resolved.yaml",
)


class RunFolder:
    """An opened run; use :meth:`open` to start or resume one.

    A run that is opened belongs to this process until it is closed or nothing refers to it.

    Attributes:
        notes: what the user should be told, e.g. that a half-written line was dropped.
        status: the state of every row that was asked for.
        editors: by "method/backbone", the settings and weights that were measured.
        backbones: by name, the class and the number of parameters of the base model.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self.notes: list[str] = []
        self.editors: dict[str, Any] = {}
        self.backbones: dict[str, Any] = {}
        self.status: Status
        self._cases: dict[tuple, CaseResult] = {}
        self._answers: dict[tuple, BaseAnswers] = {}
        self._disown: Callable[[], object] = lambda: None

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        execution: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        joined: bool = False,
    ) -> RunFolder:
        """Start a run in ``path``, or go on with the one that is there.

        Args:
            config: everything that can change a figure; must be the same when a run goes on.
            execution: what cannot change one (batch size, processes), kept in ``config.yaml``;
                its ``device`` and ``dtype`` are noted in ``env.json``.
            overwrite: drop the results that are there.
            joined: another process owns the folder and this one works for it, as another process
                of its launch or as its worker.

        Raises:
            RunError: another process owns the folder; another configuration, a newer format, or a
                file that cannot be read.
        """
        run = cls(Path(path), plain(config))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = disk_error(error, run.path)
            raise RunError(
                problem.message, remedy=problem.remedy or "choose another --out"
            ) from error
        if not joined:
            run._disown = weakref.finalize(run, own_folder(run.path).release)
        try:
            run._start(execution or {}, overwrite, tidy=not joined)
        except BaseException:
            run.close()
            raise
        return run

    def close(self) -> None:
        """Let other processes own the folder. What is read from this object stays readable."""
        self._disown()

    @classmethod
    def read(cls, path: str | Path) -> RunFolder:
        """Open a run for reading, whatever its configuration.

        Run files that changed after ``summary.json`` was written are a note.

        Raises:
            RunError: no run there, one of a newer format, or a damaged file, by name and line.
        """
        run = cls(Path(path), {})
        known = run._read_config()
        if known is None:
            raise RunError(f"{path} is not a run folder (no config.yaml)", remedy="check the path")
        run.config = known.get("config", {})
        run._read_measured(known)
        run._load_cases()
        run._note_changes()
        return run

    def begin(self, editor: Editor, settings: Mapping[str, Any]) -> None:
        """Note which editor on which weights is about to be measured.

        Raises:
            RunError: this run holds results of the same method with other settings or weights.
        """
        name = f"{editor.name}/{editor.backbone.name}"
        parts = [value for key, value in vars(editor).items() if not key.startswith("_")]
        identity = plain(
            {
                "settings": settings,
                "backbone_weights": weights_digest(getattr(editor.backbone, "model", None)),
                "editor_weights": weights_digest(*parts),
            }
        )
        with self._lock():
            known = self._read_config() or {"config": self.config}
            self._read_measured(known)
            if name in self.editors:
                run_files.refuse_mixing(self.path, f"editor {name}", self.editors[name], identity)
            else:
                self.editors[name] = identity
                self.backbones[editor.backbone.name] = model_facts(editor.backbone)
                self._write_config(known.get("execution", {}))

    def finished(self, key: tuple[str, str, str, str]) -> dict[str, CaseResult]:
        """Cases of one row (method, backbone, dataset, protocol) that are done, by case id."""
        return {case.case: case for case in self._cases.values() if case.row_key == key}

    def append(self, case: CaseResult) -> None:
        """Write a finished case; the system has it when this returns.

        Raises:
            RunError: the disk is full; the cases before it are kept.
        """
        jsonl.append(self.path / "cases.jsonl", [case.to_json()])
        self._cases[(*case.row_key, case.case)] = case

    def base_answers(self, editor: Editor, protocol: str | Protocol) -> BaseAnswers:
        """The unedited model's answers, kept in this folder and shared by all methods."""
        from ..methods.base import Unedited

        protocol, backbone = Protocol.of(protocol), editor.backbone
        key = (id(backbone), protocol)
        if key not in self._answers:
            weights = weights_digest(getattr(backbone, "model", None))
            safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in backbone.name)
            length = f"-{protocol.max_new_tokens}" if not protocol.forced else ""
            name = f"before-{safe}-{protocol.name}{length}-{weights}.jsonl"
            answers = BaseAnswers(Unedited(backbone), protocol, self.path / name)
            self.notes += [answers.note] if answers.note else []
            self._answers[key] = answers
        return self._answers[key]

    @property
    def cases(self) -> list[CaseResult]:
        """All finished cases."""
        return list(self._cases.values())

    def summarise(self) -> list[dict[str, Any]]:
        """Write ``summary.json`` and ``table.md`` from the finished cases; returns the rows."""
        self._load_cases()
        self.editors = (self._read_config() or {}).get("editors") or {}
        rows, missing = self.make_rows(), self.status.missing()
        summary = {
            "format": run_files.FORMAT,
            "rows": rows,
            **({"failed": missing} if missing else {}),
            "checksums": run_files.checksums(self.path, rows),
        }
        write_json(self.path / "summary.json", summary)
        write_text(self.path / "table.md", markdown(rows, self.environment(), missing))
        return rows

    def make_rows(self) -> list[dict[str, Any]]:
        """Rows over the cases finished so far."""
        protocol = self.config.get("protocol") or {}
        seed, samples = protocol.get("seed", 0), protocol.get("bootstrap", 1000)
        by_row: dict[tuple, list[CaseResult]] = {}
        for case in self._cases.values():
            by_row.setdefault(case.row_key, []).append(case)
        rows = []
        for key in sorted(by_row, key=self._order):
            noted = self.editors.get(f"{key[0]}/{key[1]}", {})
            row = make_row(
                by_row[key],
                suite_named(by_row[key][0].suite),
                seed=seed,
                samples=samples,
                settings=noted.get("settings"),
            )
            rows.append(row.to_json())
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``summary.json``.

        Raises:
            RunError: there is none yet, or it is of a newer format.
        """
        path = self.path / "summary.json"
        summary = run_files.read_summary(path)
        if summary is None:
            raise RunError(
                f"{self.path} has no summary.json yet",
                remedy="start the same command again to finish the run",
            )
        rows = summary.get("rows")
        try:
            if not isinstance(rows, list):
                raise TypeError("field rows is not a list")
            for row in rows:
                check_row(row)
        except (TypeError, ValueError) as error:
            raise RunError(
                f"{path} is damaged: {error}",
                remedy="start the same command again, which writes it anew",
            ) from None
        return rows

    def environment(self) -> dict[str, Any]:
        """What ``env.json`` says; empty if it is missing.

        Raises:
            RunError: it is damaged.
        """
        return run_files.read_environment(self.path / "env.json")

    def _order(self, key: tuple[str, str, str, str]) -> tuple:
        """Sort key: backbone, data, protocol; then the unedited model, then methods as begun."""
        method, backbone, dataset, protocol = key
        began = [*self.editors, f"{method}/{backbone}"].index(f"{method}/{backbone}")
        return (backbone, dataset, protocol, method != "unedited", began, method)

    def _start(self, execution: Mapping[str, Any], overwrite: bool, *, tidy: bool) -> None:
        with self._lock():
            if tidy:
                for name in _OWN_FILES:
                    remove_leftovers(self.path / name)
            if overwrite:
                self._remove()
            known = self._read_config()
            if known is None:
                if (self.path / "cases.jsonl").exists():
                    raise RunError(
                        f"{self.path} holds cases.jsonl, but no config.yaml that says of what",
                        remedy="choose another name, or start over with --overwrite",
                    )
                self._write_config(execution)
            else:
                run_files.refuse_mixing(
                    self.path, "configuration", known.get("config"), self.config
                )
                self._read_measured(known)
            seed = (self.config.get("protocol") or {}).get("seed", 0)
            run_files.note_environment(self.path / "env.json", execution, seed)
        self._load_cases()
        if tidy:
            try:
                self._note_changes()
            except RunError as error:  # of a summary, which is written anew at the end
                self.notes.append(error.message)

    def _note_changes(self) -> None:
        """Note the run files that changed after the run was summarised."""
        changed = run_files.changed_files(self.path)
        if changed:
            self.notes.append(
                f"{self.path}: run files changed after they were summarised: {', '.join(changed)} "
                "(the run went on and has not ended, or somebody edited them)"
            )

    def _load_cases(self) -> None:
        self.status = Status(self.path)
        self.notes += [self.status.note] if self.status.note else []
        path = self.path / "cases.jsonl"
        lines, note = jsonl.load(path)
        self.notes += [note] if note else []
        for number, line in enumerate(lines, start=1):
            try:
                case = CaseResult.from_json(line)
            except (TypeError, ValueError) as error:
                raise RunError(
                    f"{path}, line {number}: not a case of this format ({error})",
                    remedy="delete that line, or start over with --overwrite",
                ) from None
            self._cases.setdefault((*case.row_key, case.case), case)

    def _read_config(self) -> dict[str, Any] | None:
        return run_files.read_config(self.path / "config.yaml")

    def _write_config(self, execution: Mapping[str, Any]) -> None:
        run_files.write_config(
            self.path / "config.yaml", self.config, plain(execution), self.editors, self.backbones
        )

    def _read_measured(self, known: Mapping[str, Any]) -> None:
        self.editors = known.get("editors") or {}
        self.backbones = known.get("backbones") or {}

    def _remove(self) -> None:
        for path in [*(self.path / n for n in _OWN_FILES), *self.path.glob("before-*.jsonl")]:
            path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.path / ".lock").open("ab") as file, jsonl.locked(file):
            yield


def find_run(name: str | Path, root: str | Path = "runs") -> Path:
    """A run given by the path of its folder, or by its name inside ``root``.

    Raises:
        RunError: there is no such run; the message lists the ones that exist.
    """
    with suppress(OSError, ValueError):  # a name that no file can have
        if (Path(name) / "config.yaml").exists():
            return Path(name)
    with suppress(ConfigError, OSError, ValueError):
        path = run_files.run_path(root, name)
        if (path / "config.yaml").exists():
            return path
    known: list[str] = []
    with suppress(OSError, ValueError):
        known = sorted(p.parent.name for p in Path(root).glob("*/config.yaml"))
    raise RunError(f"no run {str(name)!r}", remedy=f"runs here: {', '.join(known) or 'none yet'}")
