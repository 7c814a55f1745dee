"""The commands as a person types them: results, and one clear message for every mistake."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.backbones.families import FAMILIES
from easyedit_mm_plugins.cli import app as cli
from easyedit_mm_plugins.cli import doctor
from easyedit_mm_plugins.core.console import CONSOLE, ERRORS
from easyedit_mm_plugins.core.errors import BackboneError, EasyEditMMError
from easyedit_mm_plugins.data import load_records
from easyedit_mm_plugins.evaluation.results import records_identity
from easyedit_mm_plugins.host import requirements
from easyedit_mm_plugins.host.requirements import HostInfo
from easyedit_mm_plugins.methods import training
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.papers import EXPERIMENTS

from ..conftest import build_tiny, picture
from ..support.evaluation_fakes import Remembering, make_records


def record(i: int, **changes) -> dict:
    return {
        "case_id": f"c{i}",
        "src": "what color is the circle?",
        "alt": "green",
        "rephrase": "the circle is what color?",
        "image": f"{i}.png",
        "fg_gen_q": "is the circle green?",
        "fg_gen_a": "yes",
        "fg_loc_q": "what color is the square?",
        "fg_loc_a": "red",
        "loc": "what is the capital of france?",
        "loc_ans": "paris",
        **changes,
    }


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data file with five records in a fresh working folder."""
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        picture(i).save(tmp_path / f"{i}.png")
    path = tmp_path / "cases.json"
    path.write_text(json.dumps([record(i) for i in range(5)]))
    return path


@pytest.fixture
def loaded(monkeypatch):
    """Registers a tiny backbone "tiny" and an editor "oracle"; lists what was loaded."""
    names: list[str] = []

    def tiny(source=None, **kwargs):
        names.append("tiny")
        backbone = build_tiny("llava")
        backbone.name = "tiny"
        return backbone

    class Oracle(Remembering):
        name = "oracle"

        def __init__(self, backbone):
            records = load_records("cases.json").records
            super().__init__(backbone, records)

    BACKBONES.add(name="tiny", loader=tiny)
    METHODS.add(name="oracle", editor=Oracle)
    yield names
    BACKBONES.unregister("tiny")
    METHODS.unregister("oracle")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line; returns exit code, output and error output, lines unfolded."""
    for console in (CONSOLE, ERRORS):
        monkeypatch.setattr(console, "width", 200)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["easyedit-mm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


def fresh(code: str) -> subprocess.CompletedProcess:
    """Run ``code`` in a new Python that has imported nothing yet."""
    here = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=here)


def test_help_comes_without_loading_torch():
    code = (
        "import sys; sys.argv = ['easyedit-mm', '--help']\n"
        "from easyedit_mm_plugins.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = fresh(code)
    assert done.returncode == 0, done.stderr
    assert all(c in done.stdout for c in ("doctor", "demo", "evaluate", "train", "ask", "show"))


def test_a_fresh_process_knows_the_names(data):
    """Nothing but the command line has been imported there."""
    words = ["evaluate", "--method", "unedite", "--backbone", "scenes-llava", "--data", str(data)]
    code = f"import sys; sys.argv = ['x', *{words!r}]\n"
    code += "from easyedit_mm_plugins.cli.app import main; main()"
    done = fresh(code)
    assert done.returncode == 2 and "did you mean unedited" in done.stderr


def test_evaluate_writes_a_run_that_show_prints_and_a_second_call_only_repeats(data, loaded, run):
    command = ("evaluate", "--method", "unedited", "--method", "oracle", "--backbone", "tiny")
    command = (*command, "--data", data, "--name", "mine", "--limit", 4)
    code, out, _ = run(*command)
    assert code == 0 and "oracle" in out and "written to runs/mine" in out
    rows = json.loads((data.parent / "runs/mine/summary.json").read_text())["rows"]
    assert [(r["method"], r["n"]) for r in rows] == [("unedited", 4), ("oracle", 4)]
    assert rows[1]["metrics"]["reliability"] == rows[1]["metrics"]["specificity_in"] == 100
    written = (data.parent / "runs/mine/cases.jsonl").read_bytes()
    assert run(*command)[0] == 0
    assert (data.parent / "runs/mine/cases.jsonl").read_bytes() == written
    code, shown, _ = run("show", "mine")
    assert code == 0 and "oracle" in shown and "exact match after normalisation" in shown


def test_evaluate_refuses_another_configuration_and_says_which(data, loaded, run):
    base = ("evaluate", "--method", "unedited", "--backbone", "tiny", "--data", data, "--name", "x")
    assert run(*base, "--limit", 3)[0] == 0
    loaded.clear()
    code, _, err = run(*base, "--limit", 4)
    assert code == 2 and "dataset.n: 3 there, 4 now" in err and "remedy" in err
    assert loaded == []  # refused before a model was loaded
    assert run(*base, "--limit", 4, "--overwrite")[0] == 0
    code, _, err = run(*base, "--limit", 4, "--protocol", "teacher-forced")
    assert code == 2 and "protocol.name" in err


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../b", ".", "", "a\nb"])
def test_a_run_stays_below_the_folder_of_all_runs(data, loaded, run, name):
    before = sorted(data.parent.rglob("*"))
    command = ("evaluate", "--method", "unedited", "--backbone", "tiny", "--data", data)
    code, _, err = run(*command, "--name", name)
    assert code == 2 and "--name" in err and "--runs" in err and loaded == []
    assert sorted(data.parent.rglob("*")) == before
    assert run(*command, "--limit", 1, "--name", "a/b")[0] == 0
    assert (data.parent / "runs/a/b/cases.jsonl").is_file()


def test_images_outside_their_folder_need_an_option(data, loaded, run, monkeypatch):
    inside = data.parent / "inside"
    inside.mkdir()
    data.write_text(json.dumps([record(i, image=f"../{i}.png") for i in range(4)]))
    where = ("--data", data, "--images", inside)
    measure = ("evaluate", "--method", "unedited", "--backbone", "tiny", *where)
    seen = []
    monkeypatch.setitem(EXPERIMENTS._items, "fake", lambda s: seen.append(s.allow_outside))
    from easyedit_mm_plugins.methods import training_run

    class Read(Exception):
        pass

    def stop(*args, **kwargs):
        raise Read

    monkeypatch.setattr(training_run, "training_settings", lambda *a: None)
    monkeypatch.setattr(training_run, "editor_from_settings", stop)
    train = ("train", "--method", "mscke", "--backbone", "tiny", "--out", "o", *where)
    for command in (measure, train):
        code, _, err = run(*command)
        assert code == 2 and loaded == []
        assert "record 0" in err and "field image" in err and "--allow-outside" in err
    assert run(*measure, "--allow-outside")[0] == 0
    with pytest.raises(Read):
        run("--debug", *train, "--allow-outside")
    for words, value in (((), False), (("--allow-outside",), True)):
        assert run("reproduce", "fake", *words)[0] == 0
        assert seen[-1] is value


@pytest.mark.parametrize("name", ["mscke-table1", "dualedit-table2"])
def test_a_paper_of_which_nothing_can_be_measured_gives_the_reason_once_and_no_table(
    data, run, monkeypatch, name
):
    def unloadable(source=None, **kwargs):
        raise BackboneError("its weights are not here", remedy="fetch them")

    entry = dataclasses.replace(BACKBONES.get("blip2"), loader=unloadable)
    monkeypatch.setitem(BACKBONES._items, "blip2", entry)
    command = ("reproduce", name, "--backbone", "blip2", "--data", f"fgvedit:{data}", "--out", "o")
    for _ in range(2):  # a second call tries again
        code, out, err = run(*command)
        assert code == 1 and "no case was measured, so there is no table" in err
        assert out.count("its weights are not here") == 1 and "weights" not in err
        assert "99.13" not in out and "┃" not in out


BROKEN = [
    ({"image": "nowhere.png"}, "image not found"),
    ({"alt": " "}, "is empty"),
    ({"rephrase": None}, "is missing"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_bad_records_stop_before_models_load_or_are_left_out_and_counted(
    data, loaded, run, change, message
):
    data.write_text(json.dumps([record(0), record(1, **change), record(2)]))
    base = ("evaluate", "--method", "unedited", "--backbone", "tiny", "--data", data, "--name", "b")
    code, _, err = run(*base)
    field = next(iter(change))
    assert code == 2 and loaded == []
    assert all(part in err for part in (str(data), "record 1", f"field {field}", message))
    assert "Traceback" not in err and "remedy" in err
    code, out, _ = run(*base, "--skip-bad")
    assert code == 0 and "1 bad records left out" in out
    rows = json.loads((data.parent / "runs/b/summary.json").read_text())["rows"]
    assert rows[0]["n"] == 2


def test_a_json_file_cut_short_and_wrong_names_are_said(data, loaded, run):
    text = data.read_text()
    data.write_text(text[: len(text) // 2])
    code, _, err = run("evaluate", "--method", "unedited", "--backbone", "tiny", "--data", data)
    assert code == 2 and "not valid JSON" in err and str(data) in err
    data.write_text(text)
    wrong = {
        ("--method", "mske", "--backbone", "tiny"): "did you mean mscke",
        ("--method", "unedited", "--backbone", "tinyy"): "did you mean tiny",
        ("--method", "unedited", "--protocol", "generate"): "did you mean generated",
        ("--method", "unedited", "--suite", "evq"): "did you mean evqa",
        ("--method", "unedited", "--data", "scene"): "did you mean scenes",
        ("--method", "unedited", "--editor", "mscke=x"): "not among the methods",
    }
    for arguments, message in wrong.items():
        given = arguments if "--data" in arguments else (*arguments, "--data", data)
        code, _, err = run("evaluate", *given)
        assert code == 2 and message in err, (arguments, err)
    assert loaded == []
    code, _, err = run("evaluate", "--method", "unedited", "--data", data, "--editor", "nowhere")
    assert code == 2 and "does not exist" in err


EARLY = {
    ("evaluate", "--method", "unedited", "--device", "gpu"): "unknown device 'gpu'",
    ("evaluate", "--method", "unedited", "--device", "cuda:99"): "cuda:99 is not available",
    ("evaluate", "--method", "unedited", "--dtype", "float99"): "unknown dtype 'float99'",
    ("calibrate", "--backbone", "scenes-llava", "--editor", "nowhere"): "nowhere is not a folder",
    ("calibrate", "--backbone", "scenes-llava", "--gate", "learnd"): "did you mean learned",
    ("calibrate", "--backbone", "scenes-llava", "--gate", "off"): "has no threshold",
    ("calibrate", "--backbone", "tiny"): "no trained DualEdit editor is shipped for tiny",
    ("ask", "0.png", "q", "a", "--editor", "nowhere"): "nowhere is not a folder",
    ("reproduce", "mscke-table2", "--backbone", "scenes-lava"): "did you mean scenes-llava",
    ("reproduce", "mscke-table2", "--editors", "nowhere"): "--editors nowhere",
    ("suggest-layers", "--backbone", "tiny", "--data", "x.json"): "x.json: does not exist",
    ("import-release", "x.pt", "--backbone", "tiny", "--out", "o"): "x.pt does not exist",
    ("train", "--method", "unedited", "--out", "o"): "has no trainer",
}


@pytest.mark.parametrize("command", EARLY, ids=" ".join)
def test_wrong_paths_and_names_are_said_before_anything_loads(data, loaded, run, command):
    code, _, err = run(*command)
    assert code == 2 and EARLY[command] in err and loaded == []


def test_usage_mistakes_and_our_errors_both_end_with_2_and_debug_shows_the_traceback(data, run):
    assert run("evaluate", "--method", "unedited", "--limit", "0")[0] == 2
    assert run("no-such-command")[0] == 2
    code, _, err = run("show", "nothing")
    assert code == 2 and "no run 'nothing'" in err and "Traceback" not in err
    with pytest.raises(EasyEditMMError, match="no run 'nothing'"):
        run("--debug", "show", "nothing")


def test_an_unforeseen_exception_is_one_line_and_code_70_and_debug_raises_it(
    run, monkeypatch, tmp_path
):
    from easyedit_mm_plugins.evaluation import runs

    def broken(*args):
        raise LookupError("first line\nwith key sk-0123456789abcdef0123")

    monkeypatch.setattr(runs, "find_run", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("EASYEDIT_MM_DEBUG", raising=False)
    code, out, err = run("show", "x")
    assert code == 70 and not out
    assert err.count("\n") == 1 and "LookupError: first line with key ***" in err
    written = next(tmp_path.glob("easyedit-mm-*.log"))
    assert str(written) in err
    trace = written.read_text()
    assert "show x" in trace and "in broken" in trace and "sk-0123" not in trace
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    code, _, err = run("show", "x")
    assert code == 70 and "could not be written" in err and err.count("\n") == 1
    for words, value in ((("--debug",), "0"), ((), "1")):
        monkeypatch.setenv("EASYEDIT_MM_DEBUG", value)
        with pytest.raises(LookupError, match="first line"):
            run(*words, "show", "x")


def test_the_version_is_the_packages(run):
    from easyedit_mm_plugins import __version__

    assert run("--version")[:2] == (0, f"easyedit-mm {__version__}\n")


def test_ask_shows_answers_before_and_after_with_route_and_score(data, loaded, run):
    asked = ("is the circle green?", "what color is the square?")
    code, out, _ = run(
        "ask", "0.png", "what color is the circle?", "green", *asked,
        "--text", "what is the capital of france?", "--method", "oracle", "--backbone", "tiny",
    )  # fmt: skip
    assert code == 0 and "edit: what color is the circle? -> green" in out
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert "edit e1" in lines["is the circle green?"] and "yes" in lines["is the circle green?"]
    assert "base" in lines["what color is the square?"]
    assert "0.000" in lines["what is the capital of france? (no picture)"]
    loaded.clear()
    code, _, err = run("ask", "9.png", "q", "a", "--method", "oracle", "--backbone", "tiny")
    assert code == 2 and "9.png" in err and "image not found" in err and loaded == []
    code, _, err = run("ask", "0.png", "q", " ", "--method", "oracle", "--backbone", "tiny")
    assert code == 2 and "target" in err


def test_ask_says_when_the_edit_did_not_take_and_which_words_are_unknown(data, loaded, run):
    ask = ("ask", "0.png", "what color is the circle?")
    code, out, _ = run(*ask, "purple elephant", "--method", "unedited", "--backbone", "tiny")
    assert code == 3 and "did not take: target 'purple elephant', answer '" in out
    assert "tokenizer lacks 'purple', 'elephant':" in out
    code, out, _ = run(*ask, "green", "--method", "oracle", "--backbone", "tiny")
    assert code == 0 and "did not take" not in out and "lacks" not in out


def test_an_editor_that_does_not_undo_is_caught(tiny_backbone):
    from easyedit_mm_plugins.cli.before_after import ask_around

    class Leaking(Unedited):
        def generate(self, questions, **kwargs):
            self.leaks = getattr(self, "leaks", False) or bool(self.edits)
            answers = super().generate(questions, **kwargs)
            return [type(a)("stuck") for a in answers] if self.leaks else answers

    edit = make_records(1, [picture(0)])[0].edit
    with pytest.raises(EasyEditMMError, match="did not undo"):
        ask_around(Leaking(tiny_backbone), edit, [edit])


def test_training_says_what_it_can_train_and_gives_a_line_a_minute_without_a_terminal(
    data, loaded, run, monkeypatch
):
    code, out, _ = run("train", "--help")
    words = " ".join(out.replace("│", " ").split())
    assert all(f" {n}," in words for n in ("mscke", "mscke-mend", "dualedit", "visedit", "mend"))
    assert " unedited" not in words
    monkeypatch.setattr(training, "MINUTE", 0.0)
    folder = clip_folder_for_training(data.parent)
    code, out, _ = run("train", "--backbone", "tiny", "--data", data, "--hparams", folder, "--out",
                       "o", "--set", "max_iters=3", "--set", "silent=false")  # fmt: skip
    lines = [line for line in out.splitlines() if "MSCKE: step " in line]
    assert code == 0 and len(lines) == 3
    assert re.match(r"\d\d:\d\d:\d\d MSCKE: step 2/3, loss \d+\.\d{4}, 0 min left", lines[1])


def clip_folder_for_training(folder: Path) -> Path:
    """Training settings of MSCKE for the backbone "tiny", with a tiny encoder beside them."""
    from easyedit_mm_plugins.recipes.scenes_clip import save_encoder

    from ..support.mscke_tiny import TINY_OPT, tiny_encoder

    save_encoder(tiny_encoder(), folder / "clip")
    settings = {
        "model_name": "tiny", "alg": "MSCKE", "opt": "AdamW", "lr": 1e-3, "batch_size": 2,
        "max_iters": 9, "val_interval": 1, "log_interval": 1, "model_save_pt": 1,
        "scope": {"encoder": str(folder / "clip"), "pretrained": None, "dim": 8},
        "counterfactual": {"lm": TINY_OPT},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return folder / "tiny.yaml"


def test_an_editor_is_trained_resumed_evaluated_and_refused_for_another_backbone(data, loaded, run):
    clip_folder_for_training(data.parent)
    train = ("train", "--backbone", "tiny", "--data", data, "--val", 2, "--hparams", "tiny.yaml")
    code, out, _ = run(*train, "--out", "o", "--set", "max_iters=2")
    assert code == 0 and "3 records, 2 kept for validation" in out and "editor: o/best" in out
    history = (data.parent / "o/history.json").read_text()
    assert run(*train, "--out", "o", "--set", "max_iters=2")[0] == 0  # nothing left to train
    assert (data.parent / "o/history.json").read_text() == history
    measure = ("evaluate", "--method", "mscke", "--data", data, "--editor", "o/best")
    assert run(*measure, "--backbone", "tiny")[0] == 0
    # The folder of the training stands for its best editor, whatever way the method is written.
    whole = (*measure[:-1], "MSCKE=o", "--method", "unedited", "--name", "whole")
    assert run(*whole, "--backbone", "tiny")[0] == 0
    edit = ("ask", "0.png", "what color is the circle?", "green", "--backbone", "tiny")
    tables = [run(*edit, "--editor", folder)[1] for folder in ("o", "o/best")]
    assert tables[0] == tables[1] and "edit:" in tables[0]
    loaded.append("other")
    BACKBONES.add(name="other", loader=lambda source=None, **kwargs: build_tiny("blip2"))
    try:
        code, _, err = run(*measure, "--backbone", "other")
    finally:
        BACKBONES.unregister("other")
    assert code == 2 and "was trained for backbone tiny" in err
    loaded.clear()
    for change, message in (("max_itres=2", "max_iters"), ("lr", "not KEY=VALUE")):
        code, _, err = run(*train, "--out", "p", "--set", change)
        assert code == 2 and message in err and loaded == []
    code, _, err = run(*train[:5], "--out", "p")
    assert code == 2 and "no training settings are shipped for mscke on tiny" in err


def test_list_prints_names_and_helps_with_wrong_ones(run):
    assert {"mscke", "serac", "unedited"} <= set(run("list", "methods")[1].split())
    assert {"scenes-blip2", "scenes-llava"} <= set(run("list", "backbones")[1].split())
    assert "scenes" in run("list", "datasets")[1].split()
    code, _, err = run("list", "method")
    assert code == 2 and "did you mean methods" in err


def test_scenes_are_written_and_read_back(tmp_path, run):
    out = tmp_path / "s"
    code, printed, _ = run("scenes", out, "--train", 2, "--test", 3)
    assert code == 0 and str(out / "test.json") in printed
    assert len(load_records(str(out / "test.json")).records) == 3
    code, _, err = run("scenes", out, "--train", 2, "--test", 4)
    assert code == 2 and "other settings" in err


def test_a_registered_data_set_class_is_read_by_name_and_path(data):
    records = load_records(f"fgvedit:{data}", limit=2)
    assert [r.case_id for r in records.records] == ["c0", "c1"]
    assert (
        records_identity(records)["digest"]
        == records_identity(load_records(str(data), limit=2))["digest"]
    )


@pytest.fixture
def easyedit_imports(monkeypatch):
    """EasyEdit is found and imports, without the seconds that it takes."""
    found = HostInfo("head", Path("/checkout/easyeditor"), "a test", {})
    monkeypatch.setattr(requirements, "inspect_host", lambda try_import: found)


def test_doctor_says_a_line_a_base_model_and_what_to_do_next(run, easyedit_imports):
    code, out, _ = run("doctor")
    assert code == 0 and "all well" not in out
    lines = out.splitlines()
    assert "EasyEdit" in next(line for line in lines if "/checkout/easyeditor" in line)
    for name in BACKBONES.names():
        entry = BACKBONES.get(name)
        assert sum(line.split()[1:2] == [entry.name] for line in lines) == 1, entry.name
    (llava,) = (line for line in lines if line.split()[1:2] == ["scenes-llava"])
    assert llava.startswith("runs") and all(m in llava for m in ("mscke", "dualedit", "ike"))
    (blip2,) = (line for line in lines if line.split()[1:2] == ["blip2"])
    assert blip2.startswith("lacks") and "state_dict_file=" in blip2
    assert lines[lines.index("What to do next") + 1].startswith("1. ")
    for family in FAMILIES.values():
        (line,) = (line for line in lines if line[8:].startswith(f"{family.title} "))
        assert line.startswith(("loads", "lacks")) and all(hub in line for hub in family.weights)
    assert "Qwen/Qwen2.5-VL-7B-Instruct 16.6 GB" in out
    assert len(lines) < 55


def test_doctor_speaks_for_programs_and_ends_with_1_where_what_was_asked_for_lacks(
    run, easyedit_imports
):
    code, printed, _ = run("doctor", "--json", "--backbone", "blip2", "--method", "mscke")
    report = json.loads(printed)
    assert code == 1 and report["broken"]
    (blip2,) = report["backbones"]
    assert any("eva_vit_g" in thing["where"] for thing in blip2["lacks"])
    assert all(thing["remedy"] for thing in blip2["lacks"])
    assert [m["method"] for m in blip2["methods"]] == ["mscke"]
    assert any("state_dict_file" in step for step in report["next"])
    code, out, _ = run("doctor", "--method", "mscke", "--backbone", "scenes-llava")
    assert code == 0 and "dualedit" not in out
    code, _, err = run("doctor", "--method", "mske")
    assert code == 2 and "did you mean mscke" in err


def test_doctor_names_methods_that_need_an_easyedit_that_does_not_import(run, monkeypatch):
    found = HostInfo("head", Path("/e"), "a test", {}, "does not import: x", "pip install y")
    monkeypatch.setattr(requirements, "inspect_host", lambda try_import: found)
    code, out, _ = run("doctor", "--backbone", "scenes-llava")
    assert code == 1 and "does not import: x" in out and "1. EasyEdit: pip install y" in out
    assert "ike needs EasyEdit" in out and "mscke needs" not in out


def test_doctor_reports_what_is_too_old_or_absent(monkeypatch):
    versions = {"torch": "1.13", "torchvision": None, "transformers": "4.49.0"}
    monkeypatch.setattr(doctor, "package_version", lambda name: versions.get(name, "99"))
    monkeypatch.setenv("EASYEDIT_ROOT", "/nowhere")
    report = doctor.examine()
    assert report.broken
    found = {f.topic: f for f in report.findings}
    assert found["torch"].level == "broken" and "2.1 or newer" in found["torch"].text
    assert found["torchvision"].text == "not installed"
    assert found["transformers"].level == "ok"
    assert found["EasyEdit"].level == "broken" and found["EasyEdit"].remedy
    assert any("EASYEDIT_ROOT" in step for step in doctor.next_steps(report))
