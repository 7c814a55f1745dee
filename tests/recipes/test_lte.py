"""LTE's recipes: taught once, kept when finished; LTE-Self refers to its parts where they lie."""

from __future__ import annotations

from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.methods import load_editor
from easyedit_mm_plugins.methods.training_run import training_settings
from easyedit_mm_plugins.recipes.job import Job
from easyedit_mm_plugins.recipes.table import RECIPES

from ..conftest import build_tiny
from ..support.mscke_self_tiny import tiny_self
from ..support.mscke_tiny import tiny_records


def test_lte_is_taught_once_and_lte_self_is_made_of_it(tmp_path, monkeypatch):
    backbone = build_tiny("llava")
    backbone.name = "scenes-llava"
    settings = training_settings("lte", "scenes-llava").replace(rank=2, batch_size=2)
    monkeypatch.setattr(Job, "records", lambda *_, **__: (tiny_records(4), tiny_records(2)))
    monkeypatch.setattr(Job, "settings", lambda *_, **__: settings.replace(max_iters=2))
    job = Job(tmp_path)
    folder = RECIPES["lte"].train("lte", backbone, job)
    assert folder == tmp_path / "lte-scenes-llava"
    assert RECIPES["lte"].train("lte", backbone, Job(tmp_path)) == folder
    tiny_self(backbone).save_pretrained(tmp_path / "mscke-self-scenes-llava")
    joined = RECIPES["lte-self"].train("lte-self", backbone, job)
    assert read_json(joined / "config.json")["parts"] == {
        "adapter": "../lte-scenes-llava/adapter", "scope": "../mscke-self-scenes-llava/scope",
    }  # fmt: skip
    editor = load_editor("lte-self", backbone, joined)
    assert editor.retrieval.kind == "self" and editor.k == settings.k
