"""DualEdit's tables 1, 2, 3 and figure 5, each in miniature: few records, few steps."""

from __future__ import annotations

import json

import pytest

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods import dualedit
from easyedit_mm_plugins.methods.dualedit import DualEditConfig, DualEditTrainer
from easyedit_mm_plugins.papers import EXPERIMENTS, ExperimentSettings
from easyedit_mm_plugins.papers import dualedit_ablations as ablations
from easyedit_mm_plugins.papers import dualedit_figure5 as figure5
from easyedit_mm_plugins.papers import dualedit_table2 as table2
from easyedit_mm_plugins.papers import dualedit_variants as variants
from easyedit_mm_plugins.papers.dualedit_variants import Layers
from easyedit_mm_plugins.scenes.records import write_scenes

KEYS = {"reliability", "t_gen", "v_gen", "t_loc", "m_loc", "average"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), n_train=8, n_test=8, seed=7)


@pytest.fixture
def brief(monkeypatch):
    """Variants of two steps on few records."""
    few = {"max_iters": 2, "batch_size": 2, "val_interval": 2, "start": "plain"}
    for key, value in few.items():
        monkeypatch.setitem(variants.RECIPE, key, value)
    monkeypatch.setattr(variants, "RECORDS", 5)
    monkeypatch.setattr(variants, "HELD_BACK", 3)
    for module in (ablations, figure5):
        monkeypatch.setattr(module, "SWEEP", {"text": (4, 6), "visual": (1,)})
    monkeypatch.setattr(ablations, "TABLE3", [Layers(30, 30), Layers(16, 19)])


def settings(files, tmp_path, name: str, **changes) -> ExperimentSettings:
    values = {"data": str(files.test), "images": files.images, "limit": 2}
    return ExperimentSettings(name, out=tmp_path / name, **{**values, **changes})


def summary(asked: ExperimentSettings) -> dict:
    return json.loads((asked.out / "summary.json").read_text())


def test_the_papers_layers_lie_at_the_same_depth_of_another_decoder():
    assert Layers(16, 19).scaled(8) == Layers(4, 5) and Layers(16, 19).scaled(32) == Layers(16, 19)
    assert Layers(30, 30).scaled(8) == Layers(7, 6)  # never an image token that nothing reads
    assert Layers(16, None).scaled(8) == Layers(4, None)
    assert [Layers(4, 1).name, Layers(4, None).name, Layers(None, 1).name] == ["t4-v1", "t4", "v1"]
    both = DualEditConfig()
    alone = variants.config_of(Layers(None, 3), both)
    assert [(a.tokens, a.layer) for a in alone.adapters] == [("visual", 3)]
    assert alone.gate.kind == "off"


def test_table_1_trains_each_layer_once_and_goes_on(files, tmp_path, brief, monkeypatch, capsys):
    asked = settings(files, tmp_path, "dualedit-table1")
    run = EXPERIMENTS.get("dualedit-table1")
    run(asked)
    rows = {r["method"]: r for r in summary(asked)["rows"]}
    names = {f"dualedit/{n}" for n in ("t4", "t6", "v1")}
    assert names <= set(rows)
    assert all(r["n"] == 2 and set(r["metrics"]) == KEYS for r in rows.values())
    settings_ = rows["dualedit/t4"]["settings"]
    assert settings_["gate"] == "off" and settings_["adapters"] == ["text@4 (released)"]
    table = (asked.out / "table.md").read_text()
    assert "text 4, visual -, no gate (paper: 16 / -)" in table
    assert "97.79" in table and "2 steps of 2" in table
    folders = sorted(p.name for p in (tmp_path / "dualedit-variants/scenes-llava").iterdir())
    assert [name.rsplit("-", 1)[0] for name in folders] == ["t4", "t6", "v1"]
    capsys.readouterr()
    monkeypatch.setattr(DualEditTrainer, "run", None)  # nothing is trained or asked again
    run(asked)
    assert "text 6, visual -" in capsys.readouterr().out
    asked = settings(files, tmp_path, "dualedit-figure5", limit=1)
    with pytest.raises(TypeError):  # the pair t4-v1 is not there
        EXPERIMENTS.get("dualedit-figure5")(asked)


def test_table_3_has_every_depth_each_path_and_the_gate(files, tmp_path, brief):
    asked = settings(files, tmp_path, "dualedit-table3", backbones=["scenes-llava"])
    EXPERIMENTS.get("dualedit-table3")(asked)
    rows = {r["method"]: r for r in summary(asked)["rows"]}
    own = ablations.shipped_layers(load_backbone("scenes-llava"))
    depths = {f"dualedit/{n}" for n in ("t7-v6", "t4-v5", own.name)}
    gated = {f"dualedit/{n}-gated" for n in ("t4", "v5", "t4-v5", f"t{own.text}", own.name)}
    assert depths | gated <= set(rows)
    assert rows["dualedit/t4-v5-gated"]["settings"]["gate"] == "prompt-end"
    assert rows["dualedit/t4-v5"]["settings"]["gate"] == "off"
    table = (asked.out / "table.md").read_text()
    assert "text 4, visual 5, gate (paper: 16 / 19)" in table
    assert "98.82" in table and "60.97" in table and "97.17" in table  # the paper's


def test_figure_5_leaves_a_picture_its_data_and_a_table(files, tmp_path, brief):
    asked = settings(files, tmp_path, "dualedit-figure5", limit=1)
    EXPERIMENTS.get("dualedit-figure5")(asked)
    lines = (asked.out / "figure5-scenes-llava.csv").read_text().splitlines()
    assert lines[0] == "text_layer,visual_layer,reliability" and len(lines) == 3
    assert (asked.out / "figure5-scenes-llava.png").read_bytes()[:4] == b"\x89PNG"
    assert "text 16, visual 19: 98.29" in (asked.out / "table.md").read_text()


def test_a_variant_of_a_model_that_is_not_embedded_must_be_given(tmp_path, files):
    class Other:
        name = "llava"

    made = variants.Variants(settings(files, tmp_path, "t"), Other(), "e-vqa:x.json")
    with pytest.raises(CheckpointError, match="no trained variant t16-v19 of llava"):
        made.editor(Layers(16, 19))
    assert made.hparams.max_iters == 50000


def test_table_2_is_what_the_paper_prints_and_each_task_has_its_protocol():
    from easyedit_mm_plugins.papers.published import find

    printed = {n.method for n in find("dualedit-table2")}
    assert printed == set(table2.METHODS) - {"unedited"}
    assert set(table2.METRICS) == {n.metric for n in find("dualedit-table2")} == KEYS
    plans = table2.grids(ExperimentSettings("dualedit-table2"))
    assert list(plans) == ["scenes-evqa", "scenes-eic"]
    assert [p.protocol.name for p in plans.values()] == ["generated", "teacher-forced"]
    assert all(p.data[0].limit == 500 for p in plans.values())
    own = ExperimentSettings("t", backbones=["llava"], data="e-ic:files/test.json")
    (plan,) = table2.grids(own).values()
    assert plan.protocol.name == "released" and plan.data[0].limit is None
    assert table2.protocol_for("scenes-eic", ["scenes-llava"], "generated").max_new_tokens == 40
    names = ("scenes-evqa", "scenes-eic", "e-ic:x.json", "eic:x.json", "e-vqa:x.json")
    assert [table2.papers_data(n) for n in names] == ["e-vqa", "e-ic", "e-ic", "e-ic", "e-vqa"]


def test_table_2_in_miniature_with_an_editor_that_is_given(files, tmp_path, monkeypatch):
    config = dualedit.DualEditConfig([dualedit.AdapterConfig(4, "text", "released", 16, 2)])
    editor = dualedit.DualEdit(load_backbone("scenes-llava"), config)
    editor.save_pretrained(tmp_path / "editors/dualedit-scenes-llava")
    monkeypatch.setattr(table2, "METHODS", ("unedited", "dualedit", "visedit"))
    asked = settings(
        files, tmp_path, "dualedit-table2", backbones=["scenes-llava"], editors=tmp_path / "editors"
    )
    EXPERIMENTS.get("dualedit-table2")(asked)
    found = summary(asked)
    rows = {r["method"]: r for r in found["rows"]}
    assert rows["dualedit"]["settings"]["adapters"] == ["text@4 (released)"]
    assert set(rows["unedited"]["metrics"]) == KEYS
    table = (asked.out / "table.md").read_text()
    assert "| DualEdit |" in table and "97.84" in table and "95.78" in table
    assert "gate prompt-end, threshold 0.6" in table
    if not (ASSETS / "visedit-scenes-llava").is_dir():
        assert [f["method"] for f in found["failed"]] == ["visedit"]
        assert "- VisEdit: " in table
