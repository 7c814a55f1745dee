"""Run folders: everything that a number came from, written so that nothing finished is lost.

::

    config.yaml     what was asked for; a later start with another configuration is refused
    env.json        versions, commit, device, hardware
    cases.jsonl     one line per finished case (method, backbone): see ``results.CaseResult``
    before-*.jsonl  the unedited model's answers, shared between methods
    summary.json    {"format": 1, "rows": [...]}, made from cases.jsonl
    table.md        the same as a table

Several processes may write to one folder, each its own methods or backbones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import DataError, RunError
from ..files import disk_error, read_json, write_json, write_text
from . import jsonl
from .answers import BaseAnswers
from .environment import environment, weights_digest
from .metrics import suite_named
from .protocol import Protocol
from .results import CaseResult, make_row
from .tables import markdown

if TYPE_CHECKING:
    from ..methods.base import Editor

FORMAT = 1
_OWN_FILES = ("config.yaml", "env.json", "cases.jsonl", "summary.json", "table.md", ".lock")


class RunFolder:
    """An opened run; use :meth:`open` to start or resume one.

    Attributes:
        notes: what a person should know, e.g. a half-written line that was dropped.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        self.notes: list[str] = []
        self.editors: dict[str, Any] = {}
        self._cases: dict[tuple, CaseResult] = {}
        self._answers: dict[tuple, BaseAnswers] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        execution: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RunFolder:
        """Start a run in ``path``, or go on with the one that is there.

        Args:
            config: everything that can change a number; must be the same when a run goes on.
            execution: what cannot (batch size, processes), kept for the record; ``device``,
                ``dtype`` and ``seed`` in it go into ``env.json``.
            overwrite: drop the results that are there.

        Raises:
            RunError: another configuration, a newer format, or a file that cannot be read.
        """
        run = cls(Path(path), plain(config))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = disk_error(error, run.path)
            raise RunError(
                problem.message, remedy=problem.remedy or "choose another --out"
            ) from error
        with run._lock():
            if overwrite:
                run._remove()
            known = run._read_config()
            if known is None:
                if (run.path / "cases.jsonl").exists():
                    raise RunError(
                        f"{run.path} holds cases.jsonl, but no config.yaml that says of what",
                        remedy="choose another name, or start over with --overwrite",
                    )
                run._write_config(execution or {})
            else:
                run._same(run.config, known.get("config", {}), "configuration")
                run.editors = known.get("editors") or {}
            run._write_environment(execution or {})
        run._load_cases()
        return run

    @classmethod
    def read(cls, path: str | Path) -> RunFolder:
        """Open a run for reading, whatever its configuration.

        Raises:
            RunError: no run there, or one of a newer format.
        """
        run = cls(Path(path), {})
        known = run._read_config()
        if known is None:
            raise RunError(f"{path} is not a run folder (no config.yaml)", remedy="check the path")
        run.config, run.editors = known.get("config", {}), known.get("editors") or {}
        run._load_cases()
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
            self.editors = known.get("editors") or {}
            if name in self.editors:
                self._same(identity, self.editors[name], f"editor {name}")
            else:
                self.editors[name] = identity
                self._write_config(known.get("execution", {}))

    def finished(self, key: tuple[str, str, str, str]) -> dict[str, CaseResult]:
        """Cases of one row (method, backbone, dataset, protocol) that are done, by case id."""
        return {case.case: case for case in self._cases.values() if case.row_key == key}

    def append(self, case: CaseResult) -> None:
        """Write a finished case; it is on its way to the disk when this returns.

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
        rows = self.make_rows()
        write_json(self.path / "summary.json", {"format": FORMAT, "rows": rows})
        write_text(self.path / "table.md", markdown(rows, self.environment()))
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
        try:
            summary = read_json(self.path / "summary.json")
        except DataError as error:
            raise RunError(
                f"{self.path} has no readable summary.json yet",
                remedy="start the same command again to finish the run",
            ) from error
        self._check_format(summary, "summary.json")
        return summary["rows"]

    def environment(self) -> dict[str, Any]:
        """What ``env.json`` says; empty if it is missing."""
        path = self.path / "env.json"
        return read_json(path) if path.exists() else {}

    def _order(self, key: tuple[str, str, str, str]) -> tuple:
        """Backbones by name, and for each the methods as they came, the unedited model first."""
        method, backbone, dataset, protocol = key
        began = [*self.editors, f"{method}/{backbone}"].index(f"{method}/{backbone}")
        return (backbone, dataset, protocol, method != "unedited", began, method)

    def _load_cases(self) -> None:
        path = self.path / "cases.jsonl"
        lines, note = jsonl.load(path)
        self.notes += [note] if note else []
        for number, line in enumerate(lines, start=1):
            try:
                case = CaseResult.from_json(line)
            except (TypeError, KeyError) as error:
                raise RunError(
                    f"{path}, line {number}: not a case of this format ({error})",
                    remedy="delete that line, or start over with --overwrite",
                ) from error
            self._cases.setdefault((*case.row_key, case.case), case)

    def _read_config(self) -> dict[str, Any] | None:
        path = self.path / "config.yaml"
        if not path.exists():
            return None
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error
        self._check_format(value, "config.yaml")
        return value

    def _check_format(self, value: Any, name: str) -> None:
        version = value.get("format") if isinstance(value, dict) else None
        if not isinstance(version, int):
            raise RunError(f"{self.path / name} is not a file of a run folder (no format number)")
        if version > FORMAT:
            raise RunError(
                f"{self.path / name} has format {version}, this version knows {FORMAT}",
                remedy="update easyedit-mm-plugins, or choose another run name",
            )

    def _write_config(self, execution: Mapping[str, Any]) -> None:
        value = {
            "format": FORMAT,
            "config": self.config,
            "execution": plain(execution),
            "editors": self.editors,
        }
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        write_text(self.path / "config.yaml", text)

    def _write_environment(self, execution: Mapping[str, Any]) -> None:
        given = {k: str(execution[k]) for k in ("device", "dtype") if execution.get(k)}
        seed = (self.config.get("protocol") or {}).get("seed", 0)
        now, path = environment(**given, seed=seed), self.path / "env.json"
        if path.exists():
            first = read_json(path)
            last = dict(first)
            for earlier in first.get("resumed", []):
                last |= earlier
            changed = {k: v for k, v in now.items() if last.get(k) != v and k != "started"}
            if not changed:
                return
            changed["at"] = now["started"]
            now = {**first, "resumed": [*first.get("resumed", []), changed]}
        write_json(path, now)

    def _same(self, wanted: Any, known: Any, what: str) -> None:
        differences = [
            f"{name}: {old!r} there, {new!r} now" for name, old, new in _differences(known, wanted)
        ]
        if differences:
            listed = "\n    ".join(differences)
            raise RunError(
                f"{self.path} was made with another {what}:\n    {listed}",
                remedy="choose another name (--name), or drop what is there (--overwrite)",
            )

    def _remove(self) -> None:
        for path in [*(self.path / n for n in _OWN_FILES[:-1]), *self.path.glob("before-*.jsonl")]:
            path.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.path / ".lock").open("ab") as file, jsonl.locked(file):
            yield


def plain(value: Any) -> Any:
    """``value`` as JSON would hold it, so that it compares equal after a round trip."""
    return json.loads(json.dumps(value, default=str))


def _differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def find_run(name: str | Path, root: str | Path = "runs") -> Path:
    """A run given by path or by its name below ``root``.

    Raises:
        RunError: there is no such run; the message lists the ones that exist.
    """
    for path in (Path(name), Path(root) / name):
        if (path / "config.yaml").exists():
            return path
    known: Sequence[str] = sorted(p.parent.name for p in Path(root).glob("*/config.yaml"))
    raise RunError(f"no run {str(name)!r}", remedy=f"runs here: {', '.join(known) or 'none yet'}")
