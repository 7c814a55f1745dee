"""``--train`` of the papers' tables in miniature: what is made, what is asked of it, going on."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from easyedit_mm_plugins import FGVEditDataset, load_backbone
from easyedit_mm_plugins.core.processes import run_here
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.mscke.classifier import ScopeClassifier
from easyedit_mm_plugins.methods.training import Trainer
from easyedit_mm_plugins.papers import EXPERIMENTS, ExperimentSettings, classifiers
from easyedit_mm_plugins.papers import mscke_table1 as table1
from easyedit_mm_plugins.recipes import __main__ as command
from easyedit_mm_plugins.recipes import classifiers as recipes
from easyedit_mm_plugins.recipes import editors as training
from easyedit_mm_plugins.recipes import job as jobs
from easyedit_mm_plugins.recipes.classifiers import RETRAINED, VARIANTS, Variant
from easyedit_mm_plugins.scenes.records import write_scenes

NAME = "scenes-llava"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), n_train=8, n_test=4, seed=7)


@pytest.fixture
def one_step(files, monkeypatch):
    """Every training makes one step on a few records, in this process."""
    found = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    run, started = Trainer.run, []

    def short(self):
        self.total = 1
        started.append(self.out_dir.name)
        return run(self)

    monkeypatch.setattr(Trainer, "run", short)
    monkeypatch.setattr(jobs, "split_records", lambda *_, **__: (found[:5], found[5:]))
    monkeypatch.setattr(training, "run_parallel", lambda target, jobs, **_: run_here(target, jobs))
    return started


def test_table_1_trains_its_editors_measures_them_and_goes_on(
    files, tmp_path, monkeypatch, one_step
):
    methods = ("unedited", "mscke", "mend", "mscke-mend")
    monkeypatch.setattr(table1, "METHODS", methods)
    asked = ExperimentSettings("mscke-table1", [NAME], str(files.test), limit=2, train=True)
    asked.out, asked.images = tmp_path / "run", files.images
    trained = asked.out / "trained"
    shutil.copytree(ASSETS / "scenes-clip", trained / "scenes-clip")
    run = EXPERIMENTS.get("mscke-table1")
    run(asked)
    assert one_step == [
        "run-scope",
        f"run-begun-{NAME}",
        f"run-mend-{NAME}",
        f"run-mscke-{NAME}-1",
        f"run-in-scope-{NAME}",
    ]
    rows = json.loads((asked.out / "summary.json").read_text())["rows"]
    assert [(row["method"], row["n"]) for row in rows] == [(m, 2) for m in methods]
    joined = json.loads((trained / f"mscke-mend-{NAME}/config.json").read_text())
    assert joined["parts"]["scope"] == f"../mscke-{NAME}/scope"  # the one made here
    for last in ("in-scope", "mscke-mend"):  # as if stopped before the last of them
        shutil.rmtree(trained / f"{last}-{NAME}")
    one_step.clear()
    run(asked)
    assert one_step == [f"run-in-scope-{NAME}"]


def test_the_classifiers_of_tables_2_and_3_are_made_and_shipped(tmp_path, monkeypatch, one_step):
    shipped, out = tmp_path / "shipped", tmp_path / "out"
    monkeypatch.setattr(classifiers, "SHIPPED", shipped / "scopes-scenes")
    monkeypatch.setattr(command, "ASSETS", shipped)
    short = {"pictures": 6, "vision_steps": 2, "text_steps": 2, "batch_size": 4}
    monkeypatch.setattr(recipes, "pretrain", partial(recipes.pretrain, **short))
    names = ["dot-attention-small", "retrained"]
    command.main(["classifiers", *names, "--out", str(out), "--ship"])
    assert one_step == ["run", "run"]
    made = [
        ScopeClassifier.from_pretrained(shipped / "scopes-scenes" / name).fingerprint()
        for name in names
    ]
    assert made[0] != made[1]
    backbone = load_backbone(NAME)
    asked = ExperimentSettings("mscke-table2", out=tmp_path / "nothing")
    found = classifiers.find_classifier(Variant("dot-attention"), backbone, asked)
    assert found.fingerprint() == made[0]
    one_step.clear()
    command.main(["classifiers", *names, "--out", str(out)])
    assert one_step == []
    with pytest.raises(SystemExit):
        command.main(["classifiers", "dot-attention"])


def test_what_is_shipped_is_what_its_folder_says():
    backbone = load_backbone(NAME)
    asked = ExperimentSettings("mscke-table2", out=Path("nothing"))
    prints = set()
    for variant in VARIANTS:
        if not (classifiers.SHIPPED / variant.name).is_dir():
            assert variant.size == "large"  # table 2 names what is not there
            continue
        scope = classifiers.find_classifier(variant, backbone, asked)
        assert scope.config.fusion == variant.fusion
        assert scope.config.encoder == variant.encoder(embedded=True)[0]
        prints.add(scope.fingerprint())
    retrained = classifiers.load_classifier(classifiers.SHIPPED / RETRAINED, backbone)
    assert retrained.config.fusion == "dot-attention"
    assert retrained.fingerprint() not in prints and len(prints) >= 5
