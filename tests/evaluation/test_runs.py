"""Run folders: nothing finished is lost, nothing is mixed, what was half done is finished."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core import jsonl
from easyedit_mm_plugins.core.errors import ConfigError, RunError
from easyedit_mm_plugins.evaluation import RunFolder, evaluate, records_digest
from easyedit_mm_plugins.evaluation.run_files import run_path
from easyedit_mm_plugins.evaluation.runs import find_run
from easyedit_mm_plugins.methods.base import Unedited

from ..conftest import picture
from ..support.evaluation_fakes import Failing, FakeBackbone, Remembering, make_records

IMAGES = [picture(i) for i in range(4)]
ROOT = Path(__file__).parents[2]
CONFIG = {"dataset": "fake", "limit": 8, "protocol": {"name": "generated", "seed": 3}}


@pytest.fixture
def records():
    return make_records(8, IMAGES)


def cases_of(path):
    return [json.loads(line) for line in (path / "cases.jsonl").read_text().splitlines()]


def stable(row):
    return {name: value for name, value in row.items() if name not in ("seconds", "memory_mb")}


def whole(path, records, editor=None, batch_size=3):
    """One uninterrupted run."""
    run = RunFolder.open(path, CONFIG)
    editor = editor or Remembering(FakeBackbone(), records)
    evaluate(editor, records, run=run, batch_size=batch_size, dataset="fake")
    return run


def test_a_run_folder_holds_what_the_numbers_came_from(tmp_path, records):
    run = whole(tmp_path / "r", records)
    evaluate(Unedited(FakeBackbone()), records, run=run, dataset="fake")
    rows = run.summarise()
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary.pop("checksums").keys() == {
        "config.yaml",
        "cases.jsonl",
        "before-fake-generated-8-none.jsonl",
        "rows",
    }
    assert summary == {"format": 1, "rows": rows}
    assert [r["method"] for r in rows] == ["unedited", "remembering"]
    needed = {"method", "backbone", "dataset", "protocol", "n", "metrics", "intervals", "seconds"}
    assert needed <= set(rows[0])
    names = ("reliability", "generality", "locality", "specificity", "specificity_in")
    assert all(rows[1]["metrics"][name] == 100.0 for name in names)
    assert rows[0]["metrics"]["specificity_out"] == 100.0
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["config"] == CONFIG and set(config["editors"]) == {
        "remembering/fake",
        "unedited/fake",
    }
    assert RunFolder.read(run.path).backbones == {"fake": {"class": "NoneType", "parameters": None}}
    env = json.loads((run.path / "env.json").read_text())
    wanted = {"python", "torch", "transformers", "open_clip", "easyeditor", "git_commit", "device"}
    assert wanted <= set(env) and env["seed"] == 3 and env["cpu"]
    if Path("/proc/self/clear_refs").exists():
        assert all(case["memory_mb"] > 1 for case in cases_of(run.path))
        assert rows[1]["memory_mb"] == max(
            case["memory_mb"] for case in cases_of(run.path) if case["method"] == "remembering"
        )
    question = cases_of(run.path)[0]["questions"][0]
    shown = ("kind", "text", "image", "target", "before", "after", "score", "route", "correct")
    assert set(shown) <= set(question)
    table = (run.path / "table.md").read_text()
    assert "| remembering | 100.0 (100.0 to 100.0)" in table and "| unedited |" in table
    assert "Protocol generated" in table and env["cpu"] in table


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_methods_peak_memory_is_its_own(tmp_path, records):
    """Also after a hungry one, whose memory the C library would keep."""

    crumbs = []  # between the freed pieces

    class Hungry(Remembering):
        name = "hungry"

        def generate(self, questions, **kwargs):
            eaten = [bytearray(20_000) for _ in range(8_000)]  # 160 MB in small pieces
            crumbs.extend(eaten[499::500])
            del eaten
            return super().generate(questions, **kwargs)

    run = RunFolder.open(tmp_path / "r", CONFIG)
    hungry = evaluate(Hungry(FakeBackbone(), records), records, run=run, dataset="fake")
    modest = evaluate(Unedited(FakeBackbone()), records, run=run, dataset="fake")
    assert hungry.row.memory_mb > modest.row.memory_mb + 100


def test_a_stopped_run_goes_on_where_it_was_and_gives_the_same_numbers(tmp_path, records):
    expected = whole(tmp_path / "whole", records).summarise()
    run = RunFolder.open(tmp_path / "stopped", CONFIG)
    with pytest.raises(RuntimeError):
        evaluate(
            Failing(FakeBackbone(), records, after=9),
            records,
            run=run,
            batch_size=3,
            dataset="fake",
        )
    done = cases_of(run.path)
    assert 0 < len(done) < 8
    backbone = FakeBackbone()
    run = RunFolder.open(run.path, CONFIG)
    seen = []
    evaluate(
        Remembering(backbone, records),
        records,
        run=run,
        batch_size=3,
        dataset="fake",
        progress=lambda done, total: seen.append(done),
    )
    assert seen[0] == len(done)
    assert [stable(r) for r in run.summarise()] == [stable(r) for r in expected]
    ids = [case["case"] for case in cases_of(run.path)]
    assert sorted(ids) == sorted({r.case_id for r in records})
    calls = backbone.calls
    evaluate(Remembering(backbone, records), records, run=run, dataset="fake")
    assert backbone.calls == calls  # nothing left to do: the model is not asked at all


def test_unedited_answers_survive_in_the_run_folder(tmp_path, records):
    run = whole(tmp_path / "r", records)
    backbone = FakeBackbone()
    run = RunFolder.open(run.path, CONFIG)
    answers = run.base_answers(Unedited(backbone), "generated")
    assert answers is run.base_answers(Remembering(backbone, records), "generated")
    assert len(answers) > 0
    assert answers.get([records[0].edit])[0].text == "blue" and backbone.calls == 0


def test_a_half_written_last_line_is_dropped_and_said(tmp_path, records):
    run = whole(tmp_path / "r", records)
    expected = run.summarise()
    path = run.path / "cases.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    run = RunFolder.open(run.path, CONFIG)
    assert len(run.cases) == 7 and any("cut short" in note for note in run.notes)
    evaluate(Remembering(FakeBackbone(), records), records, run=run, dataset="fake")
    assert len(cases_of(run.path)) == 8
    assert [stable(r) for r in run.summarise()] == [stable(r) for r in expected]


VALUES = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(), max_size=3),
    min_size=1,
    max_size=5,
)


@given(VALUES, st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_json_lines_cut_anywhere_keep_every_whole_line(tmp_path, values, data):
    """However many bytes of a file arrive, the whole lines are read and appending goes on."""
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    jsonl.append(path, values)
    written = path.read_bytes()
    cut = data.draw(st.integers(0, len(written)))
    path.write_bytes(written[:cut])
    kept, note = jsonl.load(path)
    assert kept == values[: written[:cut].count(b"\n")]
    assert (note is None) == (written[:cut] in (b"", written) or written[:cut].endswith(b"\n"))
    jsonl.append(path, [{"next": 1}])
    assert jsonl.load(path) == ([*kept, {"next": 1}], None)


def test_a_run_that_may_only_be_read_is_read(tmp_path, records, monkeypatch):
    run = whole(tmp_path / "r", records)
    path = run.path / "cases.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    before = path.read_bytes()
    really = type(path).open

    def read_only(self, mode="r", *args, **kwargs):
        if "+" in mode or "a" in mode or "w" in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return really(self, mode, *args, **kwargs)

    monkeypatch.setattr(type(path), "open", read_only)
    run = RunFolder.read(run.path)
    assert len(run.cases) == 7 and "cut short" in run.notes[0]
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_broken_line_in_the_middle_is_named(tmp_path, records):
    run = whole(tmp_path / "r", records)
    path = run.path / "cases.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{oops", *lines[1:]]) + "\n")
    with pytest.raises(RunError, match=r"cases\.jsonl, line 2: not JSON"):
        RunFolder.open(run.path, CONFIG)
    path.write_text('{"case": "c0"}\n')
    with pytest.raises(RunError, match="line 1: not a case of this format"):
        RunFolder.open(run.path, CONFIG)


def test_another_configuration_is_refused_with_the_differing_keys(tmp_path, records):
    run = whole(tmp_path / "r", records)
    before = (run.path / "cases.jsonl").read_bytes()
    changed = {**CONFIG, "limit": 9, "protocol": {"name": "generated", "seed": 4}}
    with pytest.raises(RunError) as error:
        RunFolder.open(run.path, changed)
    assert "limit: 8 there, 9 now" in str(error.value)
    assert "protocol.seed: 3 there, 4 now" in str(error.value)
    assert "--overwrite" in str(error.value) and "--name" in str(error.value)
    assert (run.path / "cases.jsonl").read_bytes() == before
    (run.path / "mine.txt").write_text("kept")
    run = RunFolder.open(run.path, changed, overwrite=True)
    assert run.cases == [] and not (run.path / "cases.jsonl").exists()
    assert (run.path / "mine.txt").exists()


def test_the_same_method_with_other_settings_or_weights_is_refused(
    tmp_path, records, tiny_backbone
):
    class Tuned(Remembering):
        threshold = 0.5

        def describe(self):
            return {"threshold": self.threshold}

    run = RunFolder.open(tmp_path / "r", CONFIG)
    editor = Tuned(tiny_backbone, records)
    evaluate(editor, records[:1], run=run)
    editor.threshold = 0.6
    with pytest.raises(RunError, match=r"settings\.threshold: 0\.5 there, 0\.6 now"):
        evaluate(editor, records, run=RunFolder.open(run.path, CONFIG))
    editor.threshold = 0.5
    next(tiny_backbone.model.parameters()).data += 1
    with pytest.raises(RunError, match="backbone_weights"):
        evaluate(editor, records, run=RunFolder.open(run.path, CONFIG))


def test_folders_of_a_newer_version_and_other_folders_are_refused(tmp_path, records):
    run = whole(tmp_path / "r", records)
    run.summarise()
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    summary = run.path / "summary.json"
    summary.write_text(json.dumps({"format": 2, "rows": []}))
    with pytest.raises(RunError, match=r"summary\.json has format 2, this version knows 1"):
        run.rows()
    (run.path / "config.yaml").write_text(yaml.safe_dump({**config, "format": 7}))
    for opening in (lambda: RunFolder.open(run.path, CONFIG), lambda: RunFolder.read(run.path)):
        with pytest.raises(RunError, match="format 7"):
            opening()
    (run.path / "config.yaml").unlink()
    with pytest.raises(RunError, match=r"no config\.yaml"):
        RunFolder.open(run.path, CONFIG)
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.read(tmp_path)


def test_a_full_disk_is_said_and_finished_cases_stay(tmp_path, records, monkeypatch):
    run = whole(tmp_path / "r", records[:4])
    before = (run.path / "cases.jsonl").read_bytes()

    class Full:
        """A file that takes ten more bytes."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *args):
            return self.file.__exit__(*args)

        def write(self, data):
            self.file.write(data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, name):
            return getattr(self.file, name)

    opened = type(run.path).open

    def full(path, mode="r", *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        return Full(file) if mode == "ab" and path.suffix == ".jsonl" else file

    monkeypatch.setattr(type(run.path), "open", full)
    with pytest.raises(RunError, match="no room left on the disk"):
        evaluate(Remembering(FakeBackbone(), records), records, run=run, dataset="fake")
    monkeypatch.undo()
    assert (run.path / "cases.jsonl").read_bytes() == before
    run = RunFolder.open(run.path, CONFIG)
    evaluate(Remembering(FakeBackbone(), records), records, run=run, dataset="fake")
    assert len(cases_of(run.path)) == 8


def _write_part(path, name, count):
    run = RunFolder.open(path, CONFIG, joined=True)
    records = make_records(count, [picture(0)] * 64)
    backbone = FakeBackbone()
    backbone.name = name
    evaluate(Remembering(backbone, records), records, run=run, batch_size=1, dataset="fake")


def test_two_processes_of_one_launch_write_one_folder(tmp_path):
    run = RunFolder.open(tmp_path / "r", CONFIG)
    context = multiprocessing.get_context("fork")
    parts = [context.Process(target=_write_part, args=(run.path, name, 40)) for name in ("a", "b")]
    for part in parts:
        part.start()
    for part in parts:
        part.join(60)
        assert part.exitcode == 0
    assert [(r["backbone"], r["n"]) for r in run.summarise()] in (
        [("a", 40), ("b", 40)],
        [("b", 40), ("a", 40)],
    )
    assert set(run.editors) == {"remembering/a", "remembering/b"}


OWN = """
import sys, time
from easyedit_mm_plugins.evaluation import RunFolder
run = RunFolder.open(sys.argv[1], {"n": 1})
print("mine", flush=True)
time.sleep(60)
"""


@contextmanager
def stranger(path):
    """Another process that measures into the run folder ``path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_of_another_process_is_refused_and_can_still_be_read(tmp_path):
    path = tmp_path / "r"
    with stranger(path) as process:
        before = {p.name: p.read_bytes() for p in path.iterdir()}
        for overwrite in (False, True):
            with pytest.raises(RunError, match=f"r is in use by process {process.pid} on .* since"):
                RunFolder.open(path, {"n": 1}, overwrite=overwrite)
        assert {p.name: p.read_bytes() for p in path.iterdir()} == before
        assert RunFolder.read(path).config == {"n": 1}
        process.kill()
        process.wait()
        RunFolder.open(path, {"n": 2}, overwrite=True)


def test_a_run_is_free_when_it_is_closed_dropped_or_refused(tmp_path):
    path = tmp_path / "r"
    run = RunFolder.open(path, CONFIG)
    again = RunFolder.open(path, CONFIG)  # one owner, twice
    run.close()
    run.close()
    del again
    gc.collect()
    with pytest.raises(RunError, match="another configuration"):
        RunFolder.open(path, {"n": 1})
    (path / "config.yaml").unlink()
    with stranger(path):
        pass


def test_what_a_killed_run_left_half_written_is_cleared_by_its_next_owner(tmp_path, records):
    run = whole(tmp_path / "r", records)
    for name in ("config.yaml", "summary.json", "table.md", "env.json", "resolved.yaml"):
        (run.path / f".{name}.x1_yz9ab").write_text("half")
    (run.path / ".mine.txt").touch()
    RunFolder.read(run.path)
    RunFolder.open(run.path, CONFIG, joined=True)
    assert len(list(run.path.glob(".*.x1_yz9ab"))) == 5
    RunFolder.open(run.path, CONFIG)
    assert not list(run.path.glob(".*.x1_yz9ab")) and (run.path / ".mine.txt").exists()


def test_a_resumed_run_notes_what_changed_around_it(tmp_path, monkeypatch):
    path = tmp_path / "r"
    RunFolder.open(path, CONFIG, execution={"device": "cpu", "dtype": "float32"})
    RunFolder.open(path, CONFIG, execution={"device": "cpu", "dtype": "float32"})
    assert "resumed" not in json.loads((path / "env.json").read_text())
    monkeypatch.setattr("easyedit_mm_plugins.core.environment.cores", lambda: 999)
    RunFolder.open(path, CONFIG, execution={"device": "cpu", "dtype": "float32"})
    RunFolder.open(path, CONFIG, execution={"device": "cpu", "dtype": "float32"})
    env = json.loads((path / "env.json").read_text())
    assert [change["cores"] for change in env["resumed"]] == [999] and env["cores"] != 999


@pytest.mark.parametrize("name", ["cases.jsonl", "config.yaml", "before-", "summary.json"])
def test_run_files_that_were_edited_are_said_until_the_run_is_summarised_again(
    tmp_path, records, name
):
    run = whole(tmp_path / "r", records)
    run.summarise()
    assert RunFolder.read(run.path).notes == []
    (path,) = run.path.glob(f"{name}*")
    old = {"summary.json": '"n": 8', "config.yaml": "settings: {}"}.get(name, '"text": "')
    new = {"summary.json": '"n": 7', "config.yaml": "settings: {a: 1}"}.get(name, '"text": "X')
    path.write_text(path.read_text().replace(old, new, 1))
    (note,) = RunFolder.read(run.path).notes
    changed = "rows" if name == "summary.json" else path.name
    assert f"run files changed after they were summarised: {changed} (" in note
    if name != "config.yaml":  # whose settings are compared with the editor's
        again = whole(run.path, records)
        again.summarise()
        assert RunFolder.read(run.path).notes == []


def test_a_run_that_went_on_is_said_and_runs_without_checksums_are_not(tmp_path, records):
    run = whole(tmp_path / "r", records[:4])
    run.summarise()
    whole(run.path, records)
    (note,) = RunFolder.read(run.path).notes
    assert "changed after they were summarised" in note and "cases.jsonl" in note
    path = run.path / "summary.json"
    summary = json.loads(path.read_text())
    del summary["checksums"]
    path.write_text(json.dumps(summary))
    assert RunFolder.read(run.path).notes == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "format: 1\nconfig: !!int 'abc'\n", r"config\.yaml cannot be read"),
        ("config.yaml", "format: 1\nconfig: {day: 2001-99-99}\n", r"config\.yaml cannot be read"),
        ("config.yaml", "[" * 5000, r"config\.yaml is nested too deeply"),
        ("config.yaml", "format: 1\nconfig: &a {b: *a}\n", "aliases"),
        ("config.yaml", "format: 1\nconfig: [1]\n", "field config is .*not dict"),
        ("config.yaml", "format: 1\nconfig: {protocol: {seed: text}}\n", "field seed is 'text'"),
        ("config.yaml", "format: 1\nconfig: {protocol: {bootstrap: 0}}\n", "out of range"),
        ("config.yaml", "format: 1\nconfig: {}\neditors: {a: 1}\n", "field editors"),
        ("config.yaml", "format: 1\nconfig: {dataset: {name: x, n: y}}\n", "field n is 'y'"),
        ("status.jsonl", '{"method": "m"}\n', r"status\.jsonl, line 1: .*backbone is missing"),
        ("status.jsonl", "[]\n", r"status\.jsonl, line 1: .*not a mapping"),
        ("cases.jsonl", "[" * 5000 + "\n{}\n", r"cases\.jsonl, line 1"),
        ("cases.jsonl", '{"n": ' + "9" * 5000 + "}\n{}\n", r"cases\.jsonl, line 1: not JSON"),
        ("summary.json", "[]", r"summary\.json is not a file of a run folder"),
        ("summary.json", '{"format": 1, "checksums": 3}', r"summary\.json is damaged: checksums"),
        ("env.json", "{", r"env\.json: is not valid JSON"),
        ("env.json", '{"resumed": 3}', r"env\.json is damaged: field resumed is 3"),
        ("env.json", '{"git_commit": true}', r"env\.json is damaged: field git_commit is True"),
    ],
)
def test_damaged_files_are_named(tmp_path, records, name, content, message):
    run = whole(tmp_path / "r", records[:2])
    run.summarise()
    (run.path / name).write_text(content)
    with pytest.raises(RunError, match=message) as caught:
        RunFolder.read(run.path).environment()
    assert "remedy" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("case", None, "field case is None, not str"),
        ("suite", "none", "unknown metric suite"),
        ("metrics", {"reliability": float("nan")}, "field metrics"),
        ("metrics", {"reliability": 101}, "not between 0 and 100"),
        ("edit", {"text": "x"}, "field target is missing"),
        ("seconds", "3", "field seconds"),
        ("questions", [{}], "question 1: field kind is missing"),
        ("more", 1, "unknown field 'more'"),
    ],
)
def test_a_case_of_other_types_is_named_by_line_and_field(tmp_path, records, field, value, message):
    run = whole(tmp_path / "r", records[:2])
    first, second = cases_of(run.path)
    text = f"{json.dumps(first)}\n{json.dumps({**second, field: value})}\n"
    (run.path / "cases.jsonl").write_text(text)
    with pytest.raises(RunError, match=rf"cases\.jsonl, line 2: not a case .*{message}"):
        RunFolder.read(run.path)


def test_damaged_rows_and_answers_are_named(tmp_path, records):
    run = whole(tmp_path / "r", records[:2])
    summary = {"format": 1, "rows": [{"method": "m"}]}
    (run.path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RunError, match=r"summary\.json is damaged: field backbone is missing"):
        RunFolder.read(run.path).rows()
    (answers,) = run.path.glob("before-*.jsonl")
    answers.write_text('{"key": "k", "reply": {"text": 3}}\n')
    with pytest.raises(RunError, match=r"before-.*, line 1: .*field text is 3, not str"):
        RunFolder.open(run.path, CONFIG).base_answers(Unedited(FakeBackbone()), "generated")


def test_half_a_surrogate_pair_in_ids_and_answers_is_written_and_read_back(tmp_path, records):
    half = "\ud83d"
    odd = [replace(records[0], case_id=f"c{half}")]
    run = RunFolder.open(tmp_path / "r", CONFIG)
    evaluate(Unedited(FakeBackbone(f"blue {half}")), odd, run=run, dataset=half)
    run.summarise()
    (case,) = RunFolder.read(run.path).cases
    assert case.case == f"c{half}" and case.questions[0].after == f"blue {half}"
    assert RunFolder.read(run.path).notes == [] and len(records_digest(odd)) == 16
    assert RunFolder.read(run.path).rows()[0]["dataset"] == half


def test_runs_are_found_by_path_or_name(tmp_path):
    RunFolder.open(tmp_path / "runs" / "one", CONFIG)
    assert find_run("one", tmp_path / "runs") == tmp_path / "runs" / "one"
    assert find_run(tmp_path / "runs" / "one") == tmp_path / "runs" / "one"
    with pytest.raises(RunError, match="runs here: one"):
        find_run("two", tmp_path / "runs")
    for name in ("n" * 300, "nul\0", "", "../runs/one/../two"):
        with pytest.raises(RunError, match="no run"):
            find_run(name, tmp_path / "runs")


def test_the_name_of_a_run_does_not_lead_out_of_the_folder_of_runs(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    assert run_path(runs, "one") == runs / "one" and run_path(runs, "a/b") == runs / "a" / "b"
    for name in ("../x", "../../x", "a/../../x", "..", "", ".", "/etc", "nul\0"):
        with pytest.raises(ConfigError, match="must lie inside"):
            run_path(runs, name)
    with pytest.raises(ConfigError, match="too long"):
        run_path(runs, "é" * 200)
    RunFolder.open(tmp_path / "outside", CONFIG)
    runs.mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no run"):
        find_run("../outside", runs)


def test_the_digest_of_records_sees_texts_answers_and_pixels(tmp_path):
    path = tmp_path / "i.png"
    picture(1).save(path)
    first = records_digest(make_records(2, [path] * 3))
    assert records_digest(make_records(2, [str(path)] * 3)) == first
    assert records_digest(make_records(3, [path] * 4)) != first
    picture(2).save(path)
    os.utime(path, ns=(1, 1))
    assert records_digest(make_records(2, [path] * 3)) != first
