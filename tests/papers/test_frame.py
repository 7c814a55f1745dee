"""``easyedit-mm reproduce``: experiments by name, tables with the paper's numbers beside ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyedit_mm_plugins.core.errors import UnknownNameError
from easyedit_mm_plugins.papers import EXPERIMENTS, ExperimentSettings, mscke_table1, tables
from easyedit_mm_plugins.papers.published import find
from easyedit_mm_plugins.papers.tables import Block, Line, Table, block_title

from ..cli.test_cli import run
from ..support.grid_tools import here

assert here and run  # fixtures


def test_experiments_are_listed_and_misspelt_names_answered(run):
    code, out, _ = run("list", "experiments")
    assert code == 0 and "mscke-table1" in out.split()
    code, _, err = run("reproduce", "mscke_tabel1")
    assert code == 2 and "did you mean mscke-table1" in err


def test_the_command_hands_its_options_to_the_experiment(run, tmp_path):
    taken = []
    EXPERIMENTS.register("test-table", taken.append)
    try:
        assert run("reproduce", "test_table")[0] == 0
        options = ["--backbone", "scenes-llava", "--backbone", "full-size", "--data", "x.json"]
        options += ["--images", "i", "--limit", 7, "--train", "--out", tmp_path, "--overwrite"]
        options += ["--device", "meta", "--dtype", "float16", "--protocol", "released"]
        assert run("reproduce", "test-table", *options)[0] == 0
    finally:
        EXPERIMENTS.unregister("test-table")
    assert taken[0] == ExperimentSettings("test-table", out=Path("runs/test-table"))
    assert taken[1] == ExperimentSettings(
        "test-table",
        backbones=["scenes-llava", "full-size"],
        data="x.json",
        images=Path("i"),
        limit=7,
        train=True,
        out=tmp_path,
        overwrite=True,
        device="meta",
        dtype="float16",
        protocol="released",
    )


def test_a_table_has_the_papers_numbers_beside_and_says_what_is_embedded():
    lines = [
        Line("MSCKE", {"specificity": 90.04}, {"specificity": [88, 92.5]}, {"specificity": 61.6}),
        Line("MEND", paper={"specificity": 65.85}, note="no trained editor"),
    ]
    blocks = [Block(block_title("scenes-blip2"), lines)]
    text = Table("Table", ["specificity"], blocks, ["Note."]).markdown()
    assert "### scenes-blip2 (embedded; the paper's is BLIP-2 OPT, another model" in text
    assert "| method | Specificity | paper |" in text
    assert "| MSCKE | 90.0 (88.0 to 92.5) | 61.6 |" in text
    assert "| MEND | - | 65.85 |" in text and "- MEND: no trained editor" in text
    assert "- Note." in text
    assert block_title("blip2") == "blip2 (the paper's BLIP-2 OPT)"
    assert "no such base model" in block_title("scenes-llava", printed=False)
    assert block_title("my-own-model") == "my-own-model (the paper has no such base model)"
    plain = Table("T", ["specificity"], [Block("b", [Line("x", {"specificity": 1.0})])])
    assert "| method | Specificity |\n" in plain.markdown()


def test_table_1_is_what_the_paper_prints():
    assert set(mscke_table1.METHODS) - {"unedited"} == {
        number.method for number in find("mscke-table1")
    }
    assert set(mscke_table1.METRICS) == {number.metric for number in find("mscke-table1")}
    default = mscke_table1.grid(ExperimentSettings("mscke-table1"))
    assert [b.name for b in default.backbones] == [
        "scenes-blip2",
        "scenes-minigpt4",
        "scenes-llava",
    ]
    assert default.data[0].limit == 500 and default.protocol.name == "generated"
    own = mscke_table1.grid(
        ExperimentSettings("t", backbones=["blip2=a.yaml", "minigpt4"], data="fgvedit:x.json")
    )
    assert own.protocol.name == "released" and own.data[0].limit is None
    assert own.backbones[0].source == "a.yaml"


def test_table_1_is_written_from_a_run_whatever_failed_in_it(here, capsys):
    settings = ExperimentSettings("mscke-table1", backbones=["one"], data="cases.json")
    mscke_table1.run(settings)
    text = Path("runs/mscke-table1/table.md").read_text()
    assert "| unedited | 0.0 (0.0 to 0.0) | 100.0" in text
    for label in ("FT-LLM", "MEND", "MSCKE-MEND"):
        assert f"| {label} | - |" in text and f"- {label}: " in text
    assert "no trained mscke editor is shipped for one" in text
    assert "Run: runs/mscke-table1" in text
    assert "specific" in capsys.readouterr().out


def test_names_of_papers_models():
    assert tables.papers_name("scenes-minigpt4") == tables.papers_name("minigpt4") == "minigpt4"
    assert tables.is_papers_own("blip2-hf") and not tables.is_papers_own("scenes-blip2")
    assert not tables.is_papers_own("my-own-model")
    with pytest.raises(UnknownNameError):
        EXPERIMENTS.get("nothing")
