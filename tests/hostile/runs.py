"""Run folders, as ``report`` and ``show`` read them and as a resumed evaluation does.

Oracle: what is read or measured on is what was measured: the same rows, and in the report the same
answers. Where it is not, because somebody edited or damaged a file, a note says so. A folder
without a summary and its checksums is that of a run that has not ended, or of an earlier version:
its files hold what was measured.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from easyedit_mm_plugins.evaluation import Protocol, RunFolder, evaluate
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.report.sources import Report
from easyedit_mm_plugins.report.write import write_report

from ..support.evaluation_fakes import FakeBackbone
from ..support.report_runs import METHODS, make_cases, make_run
from .attack import Attack, Different, Draw, Kind
from .mutations import changed, damaged, places, to_json, values

_METHODS = ("unedited", "mscke", "serac")
_PROTOCOL = Protocol(bootstrap=10)
_IDLE = ("seconds", "memory_mb")


def start(folder: Path) -> Attack:
    records = make_cases(4, folder / "images")
    other = make_cases(2, folder / "others")
    valid, foreign = folder / "valid", folder / "foreign"
    make_run(foreign, other, ("unedited", "mscke"), protocol=_PROTOCOL).close()
    run = make_run(valid, records, _METHODS, protocol=_PROTOCOL)
    config, rows = run.config, _rows(run.rows())
    run.close()
    first = write_report([valid], folder / "report").report
    answers, notes = _answers(first), set(first.notes)
    files = sorted(p.name for p in valid.iterdir() if p.suffix and p.stat().st_size)
    place = folder / "place"

    def attack(draw: Draw) -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(valid, place)
        reader = draw(st.sampled_from(("report", "show", "resume")))
        for name in draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
            _change(draw, place / name, foreign)
        ended = _has_checksums(place / "summary.json")
        if reader == "report":
            report = write_report([place], folder / "report").report
            said = {n.replace(str(place), str(valid)) for n in report.notes} - notes
            if ended and not said and _answers(report) != answers:
                raise Different(f"report: {_first(answers, _answers(report))}")
        elif reader == "show":
            from easyedit_mm_plugins.cli.options import show_run

            opened = RunFolder.read(place)
            has = (place / "summary.json").exists()
            found = opened.rows() if has else opened.make_rows()
            show_run(opened, found)
            if ended and not opened.notes and _rows(found) != rows:
                raise Different(f"show: {_first(rows, _rows(found))}")
        else:
            found, said = _resume(place, config, records)
            if ended and not said and found != rows:
                raise Different(f"resume: {_first(rows, found)}")

    return attack


def _has_checksums(file: Path) -> bool:
    try:
        return "checksums" in json.loads(file.read_text())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _resume(place: Path, config: dict[str, Any], records: list) -> tuple[list, list[str]]:
    run = RunFolder.open(place, config)
    try:
        for method in _METHODS:
            backbone = FakeBackbone()
            backbone.name = "scenes-blip2"
            made = METHODS[method]
            editor = made(backbone, records) if made else Unedited(backbone)
            evaluate(editor, records, _PROTOCOL, run=run, dataset="scenes", batch_size=4)
        return _rows(run.summarise()), run.notes
    finally:
        run.close()


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in _IDLE} for row in rows]


def _answers(report: Report) -> list:
    entries = [entry for board in report.boards for entry in board.entries]
    found: list = _rows([entry.row for entry in entries])
    for entry in entries:
        for name, case in entry.cases.items():
            asked = [(q.kind, q.text, q.target, q.before, q.after, q.image) for q in case.questions]
            found.append([entry.method, name, case.edit["text"], case.edit["target"], asked])
    return [*found, report.missing]


def _first(one: list, other: list) -> str:
    if len(one) != len(other):
        return f"{len(other)} rows and cases instead of {len(one)}"
    return next(f"{b} instead of {a}"[:300] for a, b in zip(one, other, strict=True) if a != b)


def _change(draw: Draw, file: Path, foreign: Path) -> None:
    how = draw(st.sampled_from(_WAYS))
    data = file.read_bytes()
    if how == "bytes":
        file.write_bytes(damaged(draw, data))
    elif how == "gone":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "loop":
        file.unlink()
        file.symlink_to(file.name)
    elif how == "foreign":
        source = foreign / file.name
        shutil.copyfile(source if source.is_file() else foreign / "cases.jsonl", file)
    elif file.suffix == ".jsonl":
        lines = data.decode().splitlines()
        place = draw(st.integers(0, max(len(lines) - 1, 0)))
        if how == "lines":
            what = draw(st.sampled_from(("drop", "double", "swap", "cut", "empty", "word")))
            at = lines[place]
            lines[place : place + 1] = {
                "drop": [], "double": [at, at], "swap": [lines[-1]], "cut": [at[: len(at) // 2]],
                "empty": ["", at], "word": ["null"],
            }[what]  # fmt: skip
        elif how == "edit":
            lines[place] = json.dumps(_edited(draw, json.loads(lines[place])))
        else:
            lines[place] = to_json(changed(draw, json.loads(lines[place]), values))
        file.write_text("\n".join(lines) + draw(st.sampled_from(("\n", "\n", ""))))
    elif file.suffix == ".json" and how == "edit":
        file.write_text(json.dumps(_edited(draw, json.loads(data))))
    elif file.suffix == ".json":
        file.write_text(to_json(changed(draw, json.loads(data), values)))
    elif file.suffix == ".yaml":
        made = changed(draw, yaml.safe_load(data), values)
        file.write_bytes(yaml.dump(made, sort_keys=False).encode("utf-8", "surrogatepass"))


def _edited(draw: Draw, value: Any) -> Any:
    """``value`` with one number or text replaced by another that could stand there."""
    leaves = [p for p in places(value) if p and not isinstance(_at(value, p), (dict, list))]
    path = draw(st.sampled_from(leaves))
    old, node = _at(value, path), _at(value, path[:-1])
    if isinstance(old, (int, float)):
        node[path[-1]] = type(old)(draw(st.sampled_from((0, 1, 50, 100))))
    elif isinstance(old, str):
        node[path[-1]] = draw(st.sampled_from(("yes", "red", "c1", "in_scope", "base", "mscke")))
    return value


def _at(value: Any, path: tuple) -> Any:
    for key in path:
        value = value[key]
    return value


_WAYS = tuple(
    "edit edit edit bytes bytes value value value value lines gone folder loop foreign".split()
)
KIND = Kind("run folders", (2000, 80), start)
