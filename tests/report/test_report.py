"""Reports: what stands side by side, what is refused, and what the three forms say."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.app import app
from easyedit_mm_plugins.core.errors import RunError
from easyedit_mm_plugins.evaluation import Protocol, RunFolder, evaluate
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.report import collect, write_report
from easyedit_mm_plugins.report.layout import cells, compared_share

from ..conftest import build_tiny
from ..support.evaluation_fakes import Remembering
from ..support.report_runs import NASTY, change_config, make_cases, make_run, page_json


@pytest.fixture
def records(tmp_path):
    return make_cases(10, tmp_path / "images")


@pytest.fixture
def run(tmp_path, records):
    return make_run(tmp_path / "runs" / "first", records).path


def rows_of(table):
    """Markdown table rows as lists of cells."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
        if line.startswith("| ")
    ]


def test_boards_are_ordered_as_in_the_papers(tmp_path, records):
    run = make_run(tmp_path / "r", records, backbones=("scenes-llava", "scenes-blip2")).path
    report = collect([run])
    assert [board.backbone for board in report.boards] == ["scenes-blip2", "scenes-llava"]
    board = report.boards[0]
    assert [entry.label for entry in board.entries] == ["Unedited", "FT-LLM", "SERAC", "MSCKE"]
    values = {entry.label: found for entry, found in zip(board.entries, cells(board), strict=True)}
    assert values["MSCKE"]["specificity"].value == 100 and values["MSCKE"]["specificity"].rank == 1
    assert values["SERAC"]["specificity"].rank == 2
    # 8 of 10 edits hold; the unedited model takes no part, however local it is.
    assert values["FT-LLM"]["reliability"].value == 80
    assert values["Unedited"]["locality"].value == 100
    assert values["Unedited"]["locality"].rank is None
    assert {values[name]["reliability"].rank for name in ("SERAC", "MSCKE")} == {1}
    assert values["FT-LLM"]["reliability"].rank is None  # two share the first place


def test_the_three_forms_are_written_and_name_their_run(run):
    written = write_report([run])
    assert written.page == run / "report" / "report.html"
    markdown = written.markdown.read_text()
    rows = rows_of(markdown)
    assert ["first", f"`{run.as_posix()}`"] == rows[1][:2]
    main = {row[0]: row[1:] for row in rows[2:7]}
    assert main["MSCKE"] == ["**100.0**"] * 4
    assert main["FT-LLM"][:3] == ["80.0", "**100.0**", "**100.0**"]
    assert main["SERAC"][3] == "<u>50.0</u>"
    assert main["Unedited"] == ["0.0", "100.0", "100.0", "50.0"]
    assert f"\n\nFrom `{run.as_posix()}`.\n\n" in markdown
    assert "sign-flip permutation test" in markdown and "200 resamples" in markdown
    assert "greedy answers" in markdown
    latex = written.latex.read_text()
    assert f"first: {run.as_posix()}" in latex and "commit" in latex
    assert "\\multicolumn{4}{c}{scenes-blip2}" in latex
    assert "MSCKE & " + " & ".join(["\\textbf{100.0}"] * 4) in latex
    data = page_json(written.page)
    assert data["runs"][0]["path"] == run.as_posix()
    assert {entry["run"] for board in data["boards"] for entry in board["entries"]} == {"first"}


def test_latex_is_balanced_and_escapes(tmp_path):
    records = make_cases(4, tmp_path / "images")
    path = tmp_path / "runs" / "100%_{a}&b"
    make_run(path, records, dataset="set_1 & 2", backbones=("scenes_x#1", "scenes-llava"))
    latex = write_report([path], tmp_path / "out").latex.read_text()
    body = [line for line in latex.splitlines() if not line.startswith("%")]
    joined = "\n".join(body)
    plain = re.sub(r"\\[{}]", "", joined)
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"(?<!\\)[%#_](?!$)", re.sub(r"%$", "", joined, flags=re.M))
    assert joined.count("\\begin{table}") == joined.count("\\end{table}") == 3
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", joined, re.S):
        widths = {
            len(re.findall(r"(?<!\\)&", row))
            for row in table.splitlines()
            if row.startswith("MSCKE")
        }
        head = next(r for r in table.splitlines() if "Rel" in r)
        assert widths == {len(re.findall(r"(?<!\\)&", head))}
    assert (
        "100\\%\\_\\{a\\}\\&b" in latex and "set\\_1 \\& 2" in latex and "scenes\\_x\\#1" in latex
    )


def test_markdown_cells_cannot_break_the_table(tmp_path):
    records = make_cases(3, tmp_path / "images")
    path = make_run(tmp_path / "r", records, dataset="a|b `c` <d>").path
    markdown = write_report([path], tmp_path / "out").markdown.read_text()
    assert "## a\\|b \\`c\\` \\<d\\>" in markdown
    assert rows_of(markdown)[1][3] == "3 of a\\|b \\`c\\` \\<d\\>"


def test_other_protocols_are_refused_by_name(tmp_path, records, run):
    other = make_run(
        tmp_path / "runs" / "forced",
        records,
        ["unedited"],
        protocol=Protocol(max_new_tokens=12, bootstrap=200),
    ).path
    with pytest.raises(RunError) as caught:
        collect([run, other])
    text = str(caught.value)
    assert "max_new_tokens: 8 in first, 12 in forced" in text and "bootstrap" not in text
    assert "remedy" in text


def test_other_records_under_the_same_name_are_refused(tmp_path, records, run):
    other = make_run(tmp_path / "runs" / "short", records[:4], ["unedited"]).path
    with pytest.raises(RunError, match=r"different records.*'scenes'(.|\n)*n: 10 in first, 4 in"):
        collect([run, other])
    apart = make_run(tmp_path / "runs" / "apart", records[:4], ["unedited"], dataset="more").path
    assert {board.dataset for board in collect([run, apart]).boards} == {"scenes", "more"}


def test_newer_runs_and_other_folders_are_refused(tmp_path, run):
    change_config(run, lambda value: value.update(format=99))
    with pytest.raises(RunError, match=r"config\.yaml has format 99, this version knows"):
        collect([run])
    with pytest.raises(RunError, match="no run"):
        collect([tmp_path / "nothing"])
    with pytest.raises(RunError, match="no run was given"):
        collect([])


def test_a_run_without_a_finished_case_is_refused(tmp_path, records, run):
    (run / "cases.jsonl").unlink()
    with pytest.raises(RunError, match=r"no case is finished in .*first"):
        collect([run])


def test_a_half_written_line_is_repaired_and_said(run):
    path = run / "cases.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    written = write_report([run])
    notes = written.report.notes
    assert any("cut short" in note for note in notes)
    assert any(re.search(r"on scenes-blip2, scenes: 9 of 10 cases", note) for note in notes)
    assert path.read_bytes().endswith(b"\n")
    assert "cut short" in written.markdown.read_text()
    assert any("cut short" in note for note in page_json(written.page)["notes"])


def test_rows_that_failed_are_shown_with_their_reason(run):
    folder = RunFolder.read(run)
    key = ("visedit", "scenes-blip2", "scenes")
    folder.status.ask([key])
    folder.status.fail(key, f"no editor | for it {NASTY}")
    written = write_report([run])
    markdown = written.markdown.read_text()
    assert "Not completely measured" in markdown
    row = next(row for row in rows_of(markdown) if row[0] == "visedit")
    assert row[3] == "failed" and row[4].startswith("no editor \\| for it") and row[5] == "first"
    missing = page_json(written.page)["missing"]
    assert missing[0]["reason"].endswith(NASTY) and missing[0]["status"] == "failed"


def test_a_run_in_which_everything_failed_still_says_so(tmp_path, run):
    (run / "cases.jsonl").unlink()
    folder = RunFolder.read(run)
    folder.status.fail(("mscke", "scenes-blip2", "scenes"), "out of memory")
    written = write_report([run], tmp_path / "out")
    assert "out of memory" in written.markdown.read_text()
    assert page_json(written.page)["boards"] == []


def test_several_runs_make_one_report_and_keep_apart_what_is_called_alike(tmp_path, records, run):
    second = make_run(tmp_path / "runs" / "second", records, ["mscke", "serac"]).path
    report = collect([run, second, run])
    assert [source.name for source in report.sources] == ["first", "second"]
    (board,) = report.boards
    assert [entry.label for entry in board.entries] == [
        "Unedited",
        "FT-LLM",
        "SERAC (first)",
        "SERAC (second)",
        "MSCKE (first)",
        "MSCKE (second)",
    ]
    assert [s.name for s in collect([tmp_path / "runs"]).sources] == ["first", "second"]
    assert collect(["second"], tmp_path / "runs").sources[0].path == second
    written = write_report([run, second], root=tmp_path / "runs")
    assert written.page == tmp_path / "runs" / "report" / "report.html"


def test_suites_stand_in_tables_of_their_own(tmp_path, records, run):
    other = make_run(tmp_path / "runs" / "evqa", records, dataset="scenes-evqa", suite="evqa").path
    markdown = write_report([other, run], tmp_path / "out").markdown.read_text()
    assert markdown.index("## scenes (") < markdown.index("## scenes-evqa (")
    assert "scenes-blip2 V-Gen." in markdown and "| SERAC |" in markdown


def published_run(tmp_path, backbone, dataset, parameters, n=4):
    records = make_cases(n, tmp_path / "images")
    path = tmp_path / f"{backbone}-{dataset}-{parameters}"
    make_run(path, records, backbones=(backbone,), dataset=dataset)
    change_config(path, lambda v: v["backbones"][backbone].update(parameters=parameters))
    return path


def test_the_papers_numbers_stand_beside_ours_where_model_and_data_are_theirs(tmp_path):
    path = published_run(tmp_path, "blip2-hf", "test_data", 3_744_679_936)
    written = write_report([path], tmp_path / "out")
    rows = rows_of(written.markdown.read_text())
    assert ["MSCKE", "Specificity", "100.0", "61.60", "+38.4", "mscke, table1"] in rows
    assert ["FT-LLM", "Locality", "100.0", "76.93", "+23.1", "mscke, table1"] in rows
    assert not [row for row in rows if row[0] == "Unedited" and "table1" in row[-1]]
    (board,) = written.report.boards
    assert compared_share(board.entries[0]) == "4 of 2,778 cases of FGVEdit"
    assert "4 of 2,778" in written.latex.read_text()
    assert "(61.60, +38.4)" in written.latex.read_text()
    entry = page_json(written.page)["boards"][0]["entries"][-1]
    assert entry["published"]["specificity"] == [61.6, "mscke-table1"]


@pytest.mark.parametrize(
    ("backbone", "dataset", "parameters"),
    [
        ("scenes-blip2", "test_data", 3_744_679_936),  # embedded, whatever its size
        ("blip2-hf", "test_data", 3_200_000),  # a small model under the paper's name
        ("blip2-hf", "test_data", None),
        ("blip2-hf", "scenes", 3_744_679_936),  # other data
        ("llava", "test_data", 7_063_427_072),  # the paper has no such row
    ],
)
def test_the_papers_numbers_stand_nowhere_else(tmp_path, backbone, dataset, parameters):
    path = published_run(tmp_path, backbone, dataset, parameters)
    written = write_report([path], tmp_path / "out")
    assert "table1" not in written.markdown.read_text() and "61.60" not in written.latex.read_text()
    entries = page_json(written.page)["boards"][0]["entries"]
    assert not any(entry["published"] for entry in entries)


def test_more_cases_than_the_published_set_are_not_its_cases(tmp_path):
    path = published_run(tmp_path, "blip2-hf", "test_data", 3_744_679_936)
    change_config(path, lambda v: v["config"]["dataset"].update(n=2779))
    assert "61.60" not in write_report([path], tmp_path / "out").markdown.read_text()


def test_real_models_can_be_reported(tmp_path):
    """Random weights, but the whole way: forward passes, run folder, report."""
    records = make_cases(3, tmp_path / "images")
    backbone = build_tiny("llava")
    protocol = Protocol("teacher-forced", bootstrap=50)
    config = {"dataset": {"name": "tiny", "n": 3}, "protocol": protocol.settings()}
    run = RunFolder.open(tmp_path / "r", config)
    for editor in (Unedited(backbone), Remembering(backbone, records)):
        evaluate(editor, records, protocol, run=run, dataset="tiny")
    written = write_report([run.path], tmp_path / "out")
    rows = {row[0]: row for row in rows_of(written.markdown.read_text())[2:5]}
    assert rows["remembering"][1] == "100.0"
    data = page_json(written.page)
    assert data["boards"][0]["entries"][1]["seconds"] > 0
    assert written.report.sources[0].run.backbones["tiny-llava"]["parameters"] > 1000
    # Teacher-forced answers may be right in part; each is within 0 and 100.
    flat = data["answers"][0][1][0]
    assert all(0 <= right <= 100 for right in flat[1::4])


def test_the_command_writes_and_says_where(tmp_path, run):
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "o")])
    assert result.exit_code == 0, result.output
    for name in ("report.md", "report.tex", "report.html"):
        assert (tmp_path / "o" / name).is_file() and name in result.output
    result = CliRunner().invoke(app, ["report", str(tmp_path / "none")])
    assert isinstance(result.exception, RunError)


def test_only_so_many_cases_go_into_the_page(run, tmp_path):
    few = page_json(write_report([run], tmp_path / "few", cases=3).page)
    assert [case["id"] for case in few["cases"][0]["shown"]] == ["c0", "c1", "c2"]
    assert few["cases"][0]["all"] == 10 and few["boards"][0]["entries"][0]["n"] == 10
    every = page_json(write_report([run], tmp_path / "all", cases=None).page)
    assert len(every["cases"][0]["shown"]) == 10
    assert len(every["answers"][0][0]) == 10 and len(every["pictures"]) == 10


def test_pictures_are_found_where_they_moved_and_bounded(tmp_path, records, run, monkeypatch):
    data = page_json(write_report([run]).page)
    assert all(url.startswith("data:image/jpeg;base64,") for url in data["pictures"])
    (tmp_path / "images").rename(tmp_path / "moved")
    gone = page_json(write_report([run]).page)
    assert gone["pictures"] == [] and any("10 pictures were not" in n for n in gone["notes"])
    found = page_json(write_report([run], images=tmp_path / "moved").page)
    assert found["pictures"] == data["pictures"] and found["notes"] == []
    monkeypatch.setattr("easyedit_mm_plugins.report.browse.PICTURE_BYTES", 2500)
    small = page_json(write_report([run], images=tmp_path / "moved").page)
    assert 0 < sum(map(len, small["pictures"])) <= 2500
    assert any("left out" in note for note in small["notes"])


def test_scores_are_counted_by_side(run):
    entries = page_json(write_report([run]).page)["boards"][0]["entries"]
    scores = entries[3]["scores"]
    assert scores["threshold"] == 0.5 and scores["edges"] == [0.0, 1.0]
    assert scores["in"]["n"] == 30 and scores["in"]["at"] == 100
    assert scores["out"]["n"] == 20 and scores["out"]["at"] == 0
    assert sum(scores["in"]["counts"]) == scores["in"]["counts"][-1] == 30
    assert entries[0]["scores"] is None  # the unedited model has none
    assert entries[1]["scores"]["threshold"] is None and entries[1]["scores"]["in"]["at"] is None


def test_settings_and_answers_come_along(run):
    data = page_json(write_report([run]).page)
    mscke = data["boards"][0]["entries"][3]
    assert ["counterfactual kind", "oracle"] in mscke["settings"]
    case = data["cases"][0]["shown"][0]
    kinds = [data["strings"][question[0]] for question in case["questions"]]
    assert kinds == ["edit", "rephrase", "text_loc", "in_scope", "out_scope"]
    flat = data["answers"][0][3][0]
    answers = [data["strings"][i] for i in flat[0::4]]
    assert answers == ["red", "red", "Paris.", "yes", "blue"]
    assert flat[1::4] == [100] * 5 and flat[3::4] == [1, 1, 0, 1, 0] and flat[2] == 1000
    assert [data["strings"][i] for i in data["before"][0][0]] == [
        "blue",
        "blue",
        "Paris.",
        "blue",
        "blue",
    ]
    assert json.dumps(data)  # no NaN
