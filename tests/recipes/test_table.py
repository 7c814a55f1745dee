"""The table of recipes: what is made first, what is left out, what the command takes."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.core.errors import BridgeError, ConfigError
from easyedit_mm_plugins.core.files import read_json, write_json
from easyedit_mm_plugins.methods.training_run import training_settings
from easyedit_mm_plugins.recipes import editors, serac
from easyedit_mm_plugins.recipes.__main__ import main
from easyedit_mm_plugins.recipes.job import Job
from easyedit_mm_plugins.recipes.table import RECIPES, Recipe

from ..conftest import build_tiny

NAME = "scenes-llava"


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (["unedited", "ike", "ft-llm"], []),
        (["mend"], [["mend"]]),
        (["serac"], [["scope", "serac-classifier"], ["mscke"], ["serac"]]),
        (["dualedit", "visedit"], [["dualedit", "visedit"]]),
        (["MSCKE_MEND"], [["scope", "mend"], ["mscke"], ["mscke-mend"]]),
    ],
)
def test_training_makes_what_the_methods_need_first(tmp_path, monkeypatch, methods, expected):
    made = []

    def run(target, jobs, **_):
        made.append([name for name, *_ in jobs.values()])
        for name, backbone, out in jobs.values():
            write_json(tmp_path / f"{name}-{backbone}/config.json", {"out": out})

    monkeypatch.setattr(editors, "run_parallel", run)
    found = editors.train_editors(tmp_path, methods, [NAME])
    assert made == expected
    wanted = [m.lower().replace("_", "-") for m in methods] if expected else []
    assert found == {NAME: {m: str(tmp_path / f"{m}-{NAME}") for m in wanted}}


def test_training_is_for_embedded_backbones(tmp_path):
    with pytest.raises(ConfigError, match="blip2-hf is not an embedded backbone"):
        editors.train_editors(tmp_path, ["mscke"], ["blip2-hf"])


def test_serac_is_its_classifier_and_the_counterfactual_model_of_mscke(tmp_path):
    class Backbone:
        name = NAME

    write_json(tmp_path / "serac-scenes/config.json", {"method": "serac"})
    job = Job(tmp_path, brief=True, mscke=tmp_path)
    folder = serac.join("serac", Backbone(), job)
    assert folder == tmp_path / f"serac-{NAME}"
    parts = read_json(folder / "config.json")["parts"]
    assert parts == {"counterfactual": f"../mscke-{NAME}"}


def test_serac_is_left_out_without_easyedit_but_not_by_its_own_command(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise BridgeError("EasyEdit is not installed")

    backbone = build_tiny("llava")
    settings = training_settings("mscke", "scenes-llava")
    monkeypatch.setattr(Job, "records", lambda *_, **__: ([], []))
    monkeypatch.setattr(Job, "settings", lambda *_, **changes: settings.replace(**changes))
    monkeypatch.setattr(serac, "SERAC", missing)
    assert serac.join("serac", backbone, Job(tmp_path, brief=True)) is None
    with pytest.raises(BridgeError):
        serac.train_classifier("serac-classifier", backbone, Job(tmp_path))


def test_the_test_records_of_a_training_file_lie_beside_it(tmp_path):
    assert Job(tmp_path).test == "scenes"
    assert Job(tmp_path, data="data/second/train.json").test == "data/second/test.json"


def test_the_command_gives_a_recipe_its_names_and_options(tmp_path, monkeypatch, capsys):
    asked = []
    train = lambda *given: asked.append(given)  # noqa: E731
    recipe = Recipe("a test", train, names=("a", "b"), options=("tower_steps",))
    monkeypatch.setitem(RECIPES, "backbone", recipe)
    main(["backbone", "b", "--out", str(tmp_path), "--steps", "3", "--tower-steps", "5"])
    job = Job(tmp_path, ["b"], steps=3, tower_steps=5)
    assert asked == [("backbone", "b", job)]
    with pytest.raises(SystemExit):
        main(["backbone", "c"])
    assert "unknown: c; there are a, b" in capsys.readouterr().err
