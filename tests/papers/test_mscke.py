"""MSCKE's tables 2, 3, 4 and figure 4, each in miniature: few records, few steps, real files."""

from __future__ import annotations

import json
import shutil

import pytest

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.core.errors import BridgeError, CheckpointError
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods import factory as editors
from easyedit_mm_plugins.methods.mscke import MSCKETrainer
from easyedit_mm_plugins.methods.mscke.classifier import ScopeClassifier
from easyedit_mm_plugins.papers import EXPERIMENTS, ExperimentSettings, classifiers
from easyedit_mm_plugins.papers import mscke_table3 as table3
from easyedit_mm_plugins.papers import mscke_table4 as table4
from easyedit_mm_plugins.papers.shared_answers import remember
from easyedit_mm_plugins.recipes import classifiers as recipes
from easyedit_mm_plugins.scenes.records import write_scenes

from ..support.mscke_tiny import tiny_records


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), n_train=8, n_test=6, seed=7)


def settings(files, tmp_path, name: str, **changes) -> ExperimentSettings:
    values = {"data": str(files.test), "images": files.images, "limit": 3}
    return ExperimentSettings(name, out=tmp_path / name, **{**values, **changes})


def summary(asked: ExperimentSettings) -> dict:
    return json.loads((asked.out / "summary.json").read_text())


def test_table_2_trains_every_variant_alike_and_goes_on(files, tmp_path, monkeypatch, capsys):
    recipe = {"max_iters": 2, "val_interval": 2, "batch_size": 4, "warmup": 0}
    monkeypatch.setattr(recipes, "SCENES_RECIPE", recipe)
    monkeypatch.setattr(classifiers, "SHIPPED", tmp_path / "nothing")
    monkeypatch.setattr(recipes, "_scenes_encoder", lambda *_: str(ASSETS / "scenes-clip"))
    run = EXPERIMENTS.get("mscke-table2")
    asked = settings(files, tmp_path, "mscke-table2")
    with pytest.raises(CheckpointError, match="no classifier text-small"):
        run(asked)
    asked.train = True
    run(asked)
    found = summary(asked)
    assert len(found["rows"]) == 7 and all(row["n"] == 3 for row in found["rows"])
    assert [s["cases"] for s in found["scope"]] == [6] * 7
    gaps = {(g["first"], g["second"], g["metric"]): g["difference"] for g in found["differences"]}
    by_name = {row["method"]: row["metrics"]["specificity"] for row in found["rows"]}
    expected = by_name["mscke/dot-attention-small"] - by_name["mscke/concat-small"]
    gap = gaps["dot-attention-small", "concat-small", "specificity"]
    assert gap == pytest.approx(expected)
    table = (asked.out / "table.md").read_text()
    assert "64.73" in table and "63.8" in table and "embedded" in table
    trained = [
        ScopeClassifier.from_pretrained(asked.out / "trained" / name / "scope").config.fusion
        for name in ("text-small", "concat-large", "dot-attention-small")
    ]
    assert trained == ["text", "concat", "dot-attention"]
    for cls, name in ((MSCKETrainer, "run"), (ScopeClassifier, "encode")):
        monkeypatch.setattr(cls, name, None)  # all is there: nothing is trained or asked again
    capsys.readouterr()
    run(asked)
    assert "dot-attention" in capsys.readouterr().out


def test_table_2_names_what_is_not_shipped(files, tmp_path, monkeypatch):
    source, shipped = ASSETS / "mscke-scenes-blip2/scope", tmp_path / "shipped"
    monkeypatch.setattr(classifiers, "SHIPPED", shipped)
    for name in ("dot-attention-small", "text-small"):
        shutil.copytree(source, shipped / name)
    asked = settings(files, tmp_path, "mscke-table2")
    EXPERIMENTS.get("mscke-table2")(asked)
    assert [s["classifier"] for s in summary(asked)["scope"]] == [
        "text-small",
        "dot-attention-small",
    ]
    pairs = {(g["first"], g["second"]) for g in summary(asked)["differences"]}
    assert pairs == {("dot-attention-small", "text-small")}
    table = (asked.out / "table.md").read_text()
    assert table.count("no classifier concat-") == 2 and table.count("no classifier cross-") == 2


def test_answers_are_asked_once_and_are_those_of_the_model():
    backbone = load_backbone("scenes-llava")
    editor = editors.make_editor("mscke", backbone)
    records = tiny_records(2)
    questions = [q for r in records for q in (*r.rephrase, *r.in_scope, *r.text_loc)]
    edits = [records[0].edit] * len(questions)
    models = (backbone, editor.counterfactual)
    wanted = [backbone.generate(questions), editor.counterfactual.generate(edits, questions)]
    remember(*models)
    remember(*models)  # once is enough
    for _ in range(2):
        assert backbone.generate(questions) == wanted[0]
        assert editor.counterfactual.generate(edits, questions) == wanted[1]
    distinct = len({(q.text, id(q.image)) for q in questions})
    assert [model.generate.asked for model in models] == [distinct, distinct]
    other = [records[0].edit.with_answer("another")] * len(questions)
    editor.counterfactual.generate(other, [q.with_answer("x") for q in questions])
    backbone.generate([q.with_answer("x") for q in questions])
    assert [model.generate.asked for model in models] == [distinct, 2 * distinct]


def test_table_3_moves_a_classifier_and_says_what_is_missing(files, tmp_path, monkeypatch):
    asked = settings(files, tmp_path, "mscke-table3")
    source = ASSETS / "mscke-scenes-blip2/scope"
    monkeypatch.setattr(classifiers, "SHIPPED", tmp_path / "nothing")
    run = EXPERIMENTS.get("mscke-table3")
    shutil.copytree(source, asked.out / "trained/dot-attention-small/scope")
    with pytest.raises(CheckpointError, match="no classifier retrained"):
        run(asked)
    shutil.copytree(source, asked.out / "trained/retrained/scope")
    make = editors.make_editor

    def without_mend(name, backbone):
        if name == "mscke-mend" and backbone.name == "scenes-minigpt4":
            raise CheckpointError("no trained mscke-mend editor is here")
        return make("mscke" if name == "mscke-mend" else name, backbone)

    monkeypatch.setattr(editors, "make_editor", without_mend)
    run(asked)
    rows = {(r["method"], r["backbone"]): r["metrics"] for r in summary(asked)["rows"]}
    moved = ("scenes-blip2", "scenes-minigpt4")
    assert set(rows) == {
        ("mscke/own", moved[0]),
        *((f"mscke-mend/{kind}", moved[0]) for kind in table3.KINDS),
        *((f"mscke/{kind}", moved[1]) for kind in table3.KINDS),
    }
    gaps = summary(asked)["differences"]
    assert [(g["method"], g["cases"], g["difference"]) for g in gaps] == [
        ("mscke-mend", 3, 0.0),  # the "retrained" one is a copy here
        ("mscke", 3, 0.0),
    ]
    table = (asked.out / "table.md").read_text()
    assert "no trained mscke-mend editor is here" in table
    assert "57.09" in table and "71.98" in table and "the paper's MiniGPT-4" in table


def test_table_4_compares_the_parts_on_the_same_questions(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table4, "BATCHES", (1, 2))
    monkeypatch.setattr(table4, "ROUNDS", {1: 2, 2: 2})
    asked = settings(files, tmp_path, "mscke-table4", backbones=["scenes-blip2"])
    run = EXPERIMENTS.get("mscke-table4")
    run(asked)
    costs = summary(asked)["costs"]
    assert [(c["batch"], c["situation"]) for c in costs] == [
        (batch, situation) for batch in (1, 2) for situation in table4.SITUATIONS
    ]
    for cost in costs:
        parts = cost["parts"]
        assert parts["base"]["share_of_base"] == 100.0
        assert parts["classifier"]["operations"] < parts["base"]["operations"]
        assert parts["classifier"]["weights_mb"] < parts["base"]["weights_mb"]
        assert all(part["peak_mb"] > 0 for part in parts.values())
    by_case = {(c["batch"], c["situation"]): c["parts"]["classifier"]["operations"] for c in costs}
    # A known picture costs the classifier no vision; in the benchmark the edit has brought it.
    assert by_case[1, "known pictures"] < by_case[1, "new pictures"] / 1.2
    assert by_case[1, "benchmark"] < by_case[1, "new pictures"] / 1.2
    assert "29.8" in (asked.out / "table.md").read_text()
    monkeypatch.setattr(table4, "measure", None)  # all is there
    capsys.readouterr()
    run(asked)
    assert "classifier" in capsys.readouterr().out


def test_table_4_at_full_size_asks_what_can_be_waited_for(files, tmp_path, monkeypatch, capsys):
    def stand_in(dtype, device):
        return editors.make_editor("mscke", load_backbone("scenes-llava"))

    monkeypatch.setattr(table4.full_size, "build_editor", stand_in)
    monkeypatch.setattr(table4, "FULL_ROUNDS", {1: 1, 32: 1})
    asked = settings(files, tmp_path, "mscke-table4", backbones=["full-size"], limit=2)
    EXPERIMENTS.get("mscke-table4")(asked)
    found = [(c["batch"], c["situation"], [*c["parts"]]) for c in summary(asked)["costs"]]
    alone = ["classifier", "base", "counterfactual"]
    assert sorted(found) == [
        (1, "benchmark", alone),
        (1, "known pictures", alone),
        (1, "new pictures", alone),
        (32, "benchmark", ["classifier", "base"]),
    ]
    assert "greedy answer" not in (asked.out / "table.md").read_text()


def test_the_workload_is_the_benchmarks_own():
    records = tiny_records(4)
    one = table4.workload(records, 1, "benchmark")
    assert [len(g.questions) for g in one] == [6] * 4 and one[2].edits == [records[2].edit]
    many = table4.workload(records, 8, "benchmark")
    assert [len(g.questions) for g in many] == [8] * 3
    assert many[0].edits == [records[0].edit, records[1].edit]
    new = table4.workload(records, 2, "new pictures")
    for group in new:
        pictures = {id(q.image) for q in group.questions}
        assert len(pictures) == 2 and id(group.edits[0].image) not in pictures


def test_figure_4_draws_both_classifiers(files, tmp_path, monkeypatch):
    asked = settings(files, tmp_path, "mscke-figure4")
    run = EXPERIMENTS.get("mscke-figure4")
    make = editors.make_editor

    def without_easyedit(name, backbone):
        if name == "serac":
            raise BridgeError("EasyEdit is not installed")
        return make(name, backbone)

    with monkeypatch.context() as patch:
        patch.setattr(editors, "make_editor", without_easyedit)
        run(asked)
    assert "EasyEdit is not installed" in (asked.out / "table.md").read_text()
    pytest.importorskip("easyeditor")
    run(asked)  # now with SERAC; MSCKE's scores are there
    rows = {(r["method"], r["task"]): r for r in summary(asked)["figure"]}
    assert len(rows) == 6 and all(row["cases"] == 3 for row in rows.values())
    hard = rows["mscke", "text and image, hard pairs alone"]["confusion"]
    assert [sum(side) for side in hard] == [3, 3]
    assert rows["mscke", "text"]["confusion"] == [[3, 0], [0, 3]]
    counts = rows["serac", "text and image"]["confusion"]
    assert (asked.out / "figure4.png").read_bytes()[:4] == b"\x89PNG"
    lines = (asked.out / "figure4.csv").read_text().splitlines()
    assert lines[0] == "classifier,task,truth,decided,count,share_of_truth" and len(lines) == 17
    cell = next(line for line in lines if line.startswith("serac,text and image,in,out,"))
    assert int(cell.split(",")[4]) == counts[0][1]
