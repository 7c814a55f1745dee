"""Grids: one run folder for methods x backbones x data, resumable, past whatever fails."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

from easyedit_mm_plugins.core.errors import ConfigError, RunError, UnknownNameError
from easyedit_mm_plugins.evaluation import Protocol, RunFolder
from easyedit_mm_plugins.evaluation.grid import BackboneSpec, DataSpec, MethodSpec
from easyedit_mm_plugins.evaluation.runner import run_grid
from easyedit_mm_plugins.evaluation.status import Status
from easyedit_mm_plugins.methods.entries import METHODS

from ..support.grid_tools import Halfway, Hungry, grid, here, install_plugin, save_tiny

assert here  # a fixture


def rows_of(run):
    kept = ("method", "backbone", "dataset", "suite", "n", "metrics", "intervals")
    return [{name: row[name] for name in kept} for row in run.rows()]


def names(run):
    return [(row["method"], row["backbone"], row["dataset"]) for row in run.rows()]


def test_methods_backbones_and_data_sets_meet_in_one_folder(here, tmp_path):
    (tmp_path / "other.json").write_text((tmp_path / "cases.json").read_text())
    data = ["cases.json", DataSpec("other.json", suite="evqa", limit=3)]
    run = run_grid(grid("unedited", "oracle", backbones=("one", "two=red"), data=data), "r")
    assert names(run) == [
        (method, backbone, name)
        for backbone in ("one", "two")
        for name in ("cases", "other")
        for method in ("unedited", "oracle")
    ]
    row = {(r["method"], r["backbone"], r["dataset"]): r for r in run.rows()}
    assert row["oracle", "one", "cases"]["metrics"]["specificity"] == 100
    assert row["oracle", "two", "cases"]["n"] == 5 and row["oracle", "two", "other"]["n"] == 3
    assert row["unedited", "one", "other"]["suite"] == "evqa"
    assert row["unedited", "one", "other"]["metrics"]["m_loc"] == 100
    assert set(run.config["datasets"]) == {"cases", "other"}
    assert "failed" not in json.loads((run.path / "summary.json").read_text())
    # every distinct question once before editing, for both data sets and methods together
    assert len(list(run.path.glob("before-*.jsonl"))) == 2
    for path in run.path.glob("before-one*.jsonl"):
        keys = [json.loads(line)["key"] for line in path.open()]
        assert len(keys) == len(set(keys))


def test_a_failing_method_is_a_row_with_its_reason_and_the_others_go_on(here, capsys):
    run = run_grid(grid("broken", "unedited", "halfway", "oracle"), "r")
    assert names(run) == [
        ("unedited", "one", "cases"),
        ("halfway", "one", "cases"),
        ("oracle", "one", "cases"),
    ]
    assert {row["method"]: row["n"] for row in run.rows()} == {
        "unedited": 5,
        "halfway": 3,
        "oracle": 5,
    }
    failed = json.loads((run.path / "summary.json").read_text())["failed"]
    assert [(f["method"], f["backbone"], f["dataset"], f["status"]) for f in failed] == [
        ("broken", "one", "cases", "failed"),
        ("halfway", "one", "cases", "failed"),
    ]
    assert failed[0]["reason"] == "ValueError: does not fit this | backbone"
    assert "lost its way" in failed[1]["reason"]
    table = (run.path / "table.md").read_text()
    assert "| broken | one | cases | failed | ValueError: does not fit this \\| backbone |" in table
    assert "broken on one failed" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run.path / "status.jsonl").open()]
    assert any("Traceback" in (line.get("details") or "") for line in lines)


def test_a_mended_method_is_measured_when_the_run_goes_on(here, monkeypatch):
    first = run_grid(grid("unedited", "halfway"), "r")
    assert first.status.missing()
    loaded = len(here)
    monkeypatch.setattr(Halfway, "mended", True)
    run = run_grid(grid("unedited", "halfway"), "r")
    assert not run.status.missing() and [row["n"] for row in run.rows()] == [5, 5]
    cases = [json.loads(line) for line in (run.path / "cases.jsonl").open()]
    assert len({(c["method"], c["case"]) for c in cases}) == len(cases) == 10
    assert rows_of(run) == rows_of(run_grid(grid("unedited", "halfway"), "whole"))
    assert len(here) == loaded + 2
    run_grid(grid("unedited", "halfway"), "r")  # all is there: nothing is loaded
    assert len(here) == loaded + 2


@pytest.mark.parametrize("after", range(1, 10, 2))
def test_killed_anywhere_it_goes_on_to_the_same_numbers(here, after, tmp_path, monkeypatch):
    plan = dict(batch_size=2)
    wanted = rows_of(run_grid(grid("unedited", "oracle", **plan), "whole"))
    calls = [0]
    append = RunFolder.append

    def killed(self, case):
        append(self, case)
        calls[0] += 1
        if calls[0] == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            run_grid(grid("unedited", "oracle", **plan), "r")
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert summary["failed"] and {row["status"] for row in summary["failed"]} == {"unfinished"}
    with (tmp_path / "r/cases.jsonl").open("ab") as file:
        file.write(b'{"case": "c')  # the disk kept half a line
    run = run_grid(grid("unedited", "oracle", **plan), "r")
    assert rows_of(run) == wanted and not run.status.missing()
    assert any("cut short" in note for note in run.notes)
    cases = [json.loads(line) for line in (tmp_path / "r/cases.jsonl").open()]
    assert len({(c["method"], c["case"]) for c in cases}) == len(cases) == 10


def test_out_of_memory_halves_the_batch_and_says_so(here, capsys):
    run = run_grid(grid("hungry", batch_size=40), "r")
    assert [row["n"] for row in run.rows()] == [5]
    out = capsys.readouterr().out
    assert "batch size of 20" in out and "batch size of 10" in out and "of 5" not in out
    Hungry.most, most = 0, Hungry.most
    try:
        failed = run_grid(grid("hungry"), "none").status.missing()
    finally:
        Hungry.most = most
    assert "out of memory" in failed[0]["reason"]


def test_memory_is_released_between_methods(here, monkeypatch):
    alive: list[weakref.ref] = []
    seen = []

    class Heavy(METHODS.get("unedited").editor_class):
        def __init__(self, backbone):
            seen.append(sum(ref() is not None for ref in alive))
            super().__init__(backbone)
            self.cycle = self
            alive.append(weakref.ref(self))

    for name in ("first", "second", "third"):
        METHODS.add(name=name, editor=type(name, (Heavy,), {"name": name}))
    try:
        gc.disable()
        run_grid(grid("first", "second", "third"), "r")
    finally:
        gc.enable()
        for name in ("first", "second", "third"):
            METHODS.unregister(name)
    assert seen == [0, 0, 0]


def test_a_backbone_that_does_not_load_is_rows_with_the_reason(here, tmp_path):
    (tmp_path / "empty").mkdir()
    plan = grid("unedited", "oracle", backbones=("empty", "one"))
    run = run_grid(plan, "r")
    assert names(run) == [("unedited", "one", "cases"), ("oracle", "one", "cases")]
    failed = run.status.missing()
    assert [(f["method"], f["backbone"]) for f in failed] == [
        ("unedited", "empty"),
        ("oracle", "empty"),
    ]
    assert "not a model folder" in failed[0]["reason"]


def test_settings_that_a_method_does_not_have_are_its_failure(here):
    specs = {"one": {"oracle": MethodSpec("oracle", {"treshold": 1})}}
    run = run_grid(grid("oracle", "unedited", specs=specs), "r")
    assert names(run) == [("unedited", "one", "cases")]
    assert "no setting treshold" in run.status.missing()[0]["reason"]


def test_another_version_of_a_method_is_refused(here):
    run_grid(grid("oracle"), "r")
    real = MethodSpec.make

    def other(spec, backbone, task):
        editor = real(spec, backbone, task)
        editor.describe = lambda: {"threshold": 0.7}
        return editor

    path = RunFolder.read("r").path / "cases.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethodSpec, "make", other)
        with pytest.raises(RunError, match=r"threshold: None there, 0\.7 now"):
            run_grid(grid("oracle"), "r")
    changed = grid("oracle", protocol=Protocol(max_new_tokens=4))
    with pytest.raises(RunError, match="another configuration"):
        run_grid(changed, "r")
    assert [row["n"] for row in run_grid(changed, "r", overwrite=True).rows()] == [5]


def test_a_run_of_a_newer_version_is_refused(here):
    run = run_grid(grid("unedited"), "r")
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("format: 1", "format: 2"))
    with pytest.raises(RunError, match="has format 2, this version knows 1"):
        run_grid(grid("unedited"), "r")


def test_wrong_plans_are_refused_before_anything_loads(here):
    with pytest.raises(UnknownNameError, match="did you mean oracle"):
        grid("orcle")
    with pytest.raises(UnknownNameError, match="unknown backbone 'three'"):
        grid("oracle", backbones=("three",))
    with pytest.raises(ConfigError, match="method oracle is there twice"):
        grid("oracle", "Oracle")
    with pytest.raises(ConfigError, match="no method"):
        grid()
    with pytest.raises(ConfigError, match="two data sets are called cases"):
        run_grid(grid("oracle", data=("cases.json", "./cases.json")), "r")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        grid("oracle", batch_size=0)
    assert not here


def test_names_may_have_underscores():
    assert METHODS.key("MSCKE_mend") == "mscke-mend"
    assert BackboneSpec("scenes_llava").label == "scenes-llava"


def test_processes_of_their_own_give_the_same_and_one_that_dies_does_not_stop_the_rest(
    here, tmp_path, monkeypatch
):
    """Two model folders in two processes; a method that kills its process."""
    install_plugin(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from deadly_plugin import Deadly

    METHODS.add(name="deadly", editor=Deadly)
    folders = [str(save_tiny(tmp_path / name)) for name in ("left", "right")]
    try:
        plan = grid("unedited", "deadly", "mscke", backbones=folders, processes=2)
        run = run_grid(plan, "r")
    finally:
        METHODS.unregister("deadly")
    assert names(run) == [("unedited", "left", "cases"), ("unedited", "right", "cases")]
    failed = {(f["method"], f["backbone"]): f["reason"] for f in run.status.missing()}
    assert set(failed) == {(m, b) for m in ("deadly", "mscke") for b in ("left", "right")}
    assert "ended with code -9" in failed["deadly", "left"]
    assert "no trained mscke editor" in failed["mscke", "right"]
    alone = run_grid(grid("unedited", backbones=folders), "alone")
    assert rows_of(run) == rows_of(alone)


def test_the_state_of_a_row_is_that_of_its_worst_process(tmp_path):
    status, key = Status(tmp_path), ("mend", "llava", "cases")
    status.ask([key])
    assert status.missing()[0]["reason"] == "not measured yet"
    status.start(key, 0)
    status.done(key, ("mend", "llava"), 0)
    status.start(key, 1)
    assert "begun and not finished" in Status(tmp_path).missing()[0]["reason"]
    status.fail(key, "no", rank=1)
    assert Status(tmp_path).missing()[0]["status"] == "failed"
    status.ask([key])
    status.done(key, ("mend", "llava"), 0)
    assert Status(tmp_path).missing() == [] and status.measured_as(key) == ("mend", "llava")
