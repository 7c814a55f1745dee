"""Run folders that were damaged, or made to do harm: an error of ours, or a report."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import EasyEditMMError, RunError
from easyedit_mm_plugins.evaluation import RunFolder
from easyedit_mm_plugins.report import collect, write_report

from ..support.report_runs import make_cases, make_run, page_json

FILES = ("config.yaml", "cases.jsonl", "status.jsonl", "summary.json", "env.json")
INPUTS = int(os.environ.get("DAMAGED_RUNS", "120"))  # more of them for a thorough search

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(
        [-1, 0, 1, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 2**63, 10**4000]
    ),
    st.sampled_from(["", "²", "٣", "\ud83d", "nul\0", "n" * 5000, "</script>", "a\nb", "../../x"]),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [None], {"a": {}}, {"": []}, [1, 2, 3]]),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A finished run with a failed row."""
    folder = tmp_path_factory.mktemp("source")
    run = make_run(folder / "run", make_cases(4, folder / "images"), ["unedited", "mscke", "serac"])
    run.status.done(("mscke", "scenes-blip2", "scenes"), ("mscke", "scenes-blip2"))
    run.status.fail(("visedit", "scenes-blip2", "scenes"), "no editor", "traceback")
    run.summarise()
    run.close()
    return run.path


def places(value, here=()):
    """The path of every value inside nested lists and mappings."""
    yield here
    if not isinstance(value, (dict, list)):
        return
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(inner, (*here, key))


def changed(data, value):
    """``value`` with one part replaced, removed or added."""
    path = data.draw(st.sampled_from(list(places(value))))
    kind = data.draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    new = data.draw(HOSTILE)
    if not path:
        return new
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    if kind == "remove":
        del holder[path[-1]]
    elif kind == "add" and isinstance(holder, dict):
        holder[data.draw(st.text(max_size=4))] = new
    else:
        holder[path[-1]] = new
    return value


def damage(data, path):
    """Change ``path`` as a person, a program or a broken disk would."""
    raw = path.read_bytes()
    how = data.draw(st.sampled_from(["value", "value", "value", "bytes", "cut", "folder", "gone"]))
    if how == "gone":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "cut":
        path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    elif how == "bytes":
        at = data.draw(st.integers(0, len(raw)))
        new = data.draw(st.binary(max_size=3) | st.sampled_from([b"[" * 3000, b"9" * 5000]))
        path.write_bytes(raw[:at] + new + raw[at + data.draw(st.integers(0, 3)) :])
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in raw.splitlines()]
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at] = changed(data, lines[at])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    elif path.suffix == ".yaml":
        value = changed(data, yaml.safe_load(raw))
        path.write_text(yaml.safe_dump(value), errors="backslashreplace")
    else:
        path.write_text(json.dumps(changed(data, json.loads(raw))))


def read(path):
    """What ``show``, ``report`` and a resumed run read."""
    run = RunFolder.read(path)
    run.make_rows()
    run.rows()
    run.environment()


def resume(path):
    config = RunFolder.read(path).config
    run = RunFolder.open(path, config)
    run.summarise()
    run.close()


@given(st.data())
@seed(15)
@settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_damaged_run_is_an_error_of_ours_or_a_report(source, tmp_path, data):
    path = tmp_path / "run"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(source, path)
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
        damage(data, path / name)
    for use in (lambda: write_report([path], cases=2), lambda: read(path), lambda: resume(path)):
        try:
            use()
        except EasyEditMMError as error:
            assert str(path) in str(error) or "run" in str(error)


def test_case_ids_of_any_characters_are_sorted(tmp_path):
    records = make_cases(6, tmp_path / "images")
    ids = ["c10", "c9", "²", "٣", "9" * 5000, "\ud83d"]
    for record, name in zip(records, ids, strict=True):
        object.__setattr__(record, "case_id", name)
    run = make_run(tmp_path / "run", records, ["unedited", "mscke"])
    page = page_json(write_report([run.path]).page)
    found = [case["id"] for case in page["cases"][0]["shown"]]
    assert sorted(found) == sorted(ids) and found.index("c9") < found.index("c10")


def test_pictures_whose_names_no_file_has_are_missing(tmp_path):
    run = make_run(tmp_path / "run", make_cases(2, tmp_path / "images"), ["unedited"])
    path = run.path / "cases.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line, name in zip(lines, ("n" * 5000, "nul\0"), strict=True):
        line["edit"]["image"] = name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    notes = page_json(write_report([run.path], images=tmp_path).page)["notes"]
    assert any("2 pictures were not found" in note for note in notes)


def test_edited_run_files_are_a_note_in_the_report(source, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(source, path)
    assert not any("changed" in note for note in collect([path]).notes)
    cases = path / "cases.jsonl"
    cases.write_text(cases.read_text().replace('"correct": 0.0', '"correct": 1.0', 1))
    written = write_report([path])
    text = "run files changed after they were summarised: cases.jsonl"
    assert any(text in note for note in written.report.notes)
    assert text in written.markdown.read_text() and "MSCKE" in written.markdown.read_text()


def test_what_env_json_says_is_no_markup(source, tmp_path):
    path = tmp_path / "run"
    shutil.copytree(source, path)
    env = json.loads((path / "env.json").read_text())
    env |= {"cpu": "a | b <script>\n\\input{x}", "gpu": None, "git_commit": "`x` | y"}
    (path / "env.json").write_text(json.dumps(env))
    written = write_report([path])
    markdown, latex = written.markdown.read_text(), written.latex.read_text()
    assert "<script>" not in markdown and "a \\| b" in markdown
    assert not any(line.startswith("\\input") for line in latex.splitlines())


def test_a_folder_in_place_of_a_file_is_named(source, tmp_path):
    for name in ("config.yaml", "cases.jsonl", "status.jsonl", "summary.json"):
        path = tmp_path / name
        shutil.copytree(source, path)
        (path / name).unlink()
        (path / name).mkdir()
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            collect([path])
