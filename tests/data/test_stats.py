"""Statistics, data cards, datasets and the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, FGVEditDataset, Question, open_image
from easyedit_mm_plugins.data.tools.card import card
from easyedit_mm_plugins.data.tools.interop import from_datasets, to_datasets
from easyedit_mm_plugins.data.tools.stats import describe, markdown, plots

from ..conftest import picture
from ..support.file_server import Hub

ROOT = Path(__file__).parents[2]
RECORD = {
    "src": "what color is the circle?",
    "alt": "green",
    "rephrase": "which color does the circle have?",
    "image": "0.png",
    "fg_gen_q": "is the thing in the top left green?",
    "fg_gen_a": "yes",
    "fg_gen_hard": True,
    "fg_loc_q": "what color is the square?",
    "fg_loc_a": "red",
    "fg_loc_hard": False,
    "fg_extra": {"in": [{"q": "what color?", "a": "green", "hard": True}], "out": []},
    "loc": "nq question: what is the capital of france",
    "loc_ans": "paris",
    "image_rephrase": "1.png",
    "m_loc": "1.png",
    "m_loc_q": "how many?",
    "m_loc_a": "two",
}


@pytest.fixture
def folder(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    train = [RECORD, RECORD | {"image": "1.png", "alt": "3", "src": "how many stars?"}]
    test = [RECORD | {"image": "2.png", "src": "is it <b>?", "alt": "no"}]
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "test.json").write_text(json.dumps(test))
    return tmp_path


def test_statistics_by_hand(folder):
    found = describe(folder)
    train = found["train"]
    assert list(found) == ["test", "train"] and train["records"] == train["images"] == 2
    assert train["answer types"] == {"other": 1, "number": 1}
    assert train["questions"]["in scope"] == 4 and train["questions"]["out of scope"] == 2
    assert train["scopes"] == {"hard in + easy out": 2}
    assert train["question words"]["edit"] == {"mean": 4.0, "median": 4.0, "longest": 5}
    assert train["new answers"] == {"green": 1, "3": 1}
    # In scope: "yes" and "green" in both records; the edits' answers are green and 3.
    assert train["in-scope answers equal to the edit's"] == 0.25


def test_tables_and_plots(folder, tmp_path):
    text = markdown(describe(folder))
    assert "| records | 1 | 2 |" in text and "is it" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") and line.count("|") == 4 for line in rows)
    made = plots(describe(folder), tmp_path / "plots")
    assert len(made) == 5 and all(open_image(p).size[0] > 500 for p in made)


def test_the_commands(folder, tmp_path):
    run = CliRunner()
    shown = run.invoke(app, ["stats", str(folder), "--json"])
    assert json.loads(shown.stdout)["train"]["records"] == 2
    made = run.invoke(app, ["card", str(folder), "--name", "My edits", "--license", "cc-by-4.0"])
    assert made.exit_code == 0
    text = (folder / "README.md").read_text()
    assert "pretty_name: My edits" in text and "license: cc-by-4.0" in text
    again = run.invoke(app, ["card", str(folder)])
    assert isinstance(again.exception, ConfigError)


def test_a_card_knows_how_the_records_were_made(folder):
    agreement = {"in": {"precision": 0.98765, "recall": None}, "out": {"precision": 1.0}}
    (folder / "build.json").write_text(
        json.dumps({"judge": {"model": "m1"}, "config": {"seed": 3}, "agreement": agreement})
    )
    text = card(folder)
    assert "model m1" in text and "seed 3" in text and "precision 0.9877" in text
    import yaml

    assert yaml.safe_load(text.split("---")[1])["size_categories"] == ["n<1K"]


def same(a: EditRecord, b: EditRecord) -> bool:
    def flat(record):
        return [
            (kind, q.text, q.answer, q.image and open_image(q.image).tobytes())
            for kind, questions in record.questions().items()
            for q in questions
        ]

    return a.case_id == b.case_id and flat(a) == flat(b)


def test_to_datasets_and_back_through_parquet(folder, tmp_path):
    import datasets

    records = FGVEditDataset(folder / "train.json", extra=True)
    made = to_datasets(records)
    made.to_parquet(str(tmp_path / "x.parquet"))
    read = datasets.Dataset.from_parquet(
        str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache")
    )
    back = from_datasets(read)
    assert len(back) == 2 and all(same(a, b) for a, b in zip(records, back, strict=True))
    assert back[0].in_scope[1].text == "what color?" and back[0].text_loc[0].image is None
    assert len(back[:1]) == 1
    paths = from_datasets(to_datasets(records, embed=False))
    assert paths[0].edit.image == str(folder / "0.png")
    with pytest.raises(DataError, match="columns are missing: rephrase"):
        from_datasets(read.remove_columns(["rephrase"]))
    older = from_datasets(read.remove_columns(["image_far", "image_near"]))
    assert all(same(a, b) for a, b in zip(records, older, strict=True))


def test_a_missing_picture_is_named(tmp_path):
    record = EditRecord("c7", Question("q", tmp_path / "gone.png", "a"))
    with pytest.raises(DataError, match="image not found"):
        to_datasets([record])


def test_push_to_a_hub(folder, tmp_path):
    code = """
import sys
from easyedit_mm_plugins.cli.data import app
app(sys.argv[1:], standalone_mode=False)
"""
    (folder / "CARD.md").write_text(card(folder, name="Pushed"))
    with Hub() as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": "hf_test",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",
        }
        arguments = ["push", str(folder), "--repo", "me/edits", "--images", str(folder)]
        arguments += ["--card", str(folder / "CARD.md")]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        files = hub.repos["me/edits"]
    assert done.stdout.strip().endswith("/datasets/me/edits")
    shards = {Path(p).name.split("-")[0]: data for p, data in files.items() if "parquet" in p}
    assert set(shards) == {"train", "test"}
    readme = files["README.md"].decode()
    assert "pretty_name: Pushed" in readme and "dataset_info:" in readme and "## Fields" in readme
    import datasets

    (tmp_path / "train.parquet").write_bytes(shards["train"])
    read = datasets.Dataset.from_parquet(
        str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    records = FGVEditDataset(folder / "train.json")
    assert all(same(a, b) for a, b in zip(records, from_datasets(read), strict=True))
