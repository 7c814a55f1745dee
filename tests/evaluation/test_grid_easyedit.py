"""EasyEdit's own models by name, from an hparams file, in grids and on the command line."""

from __future__ import annotations

import json

import pytest
import yaml

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.cli.evaluate import evaluate
from easyedit_mm_plugins.core.errors import BackboneError, ConfigError
from easyedit_mm_plugins.evaluation import Protocol
from easyedit_mm_plugins.evaluation.grid import BackboneSpec, DataSpec, Grid
from easyedit_mm_plugins.evaluation.runner import run_grid

from ..support import easyedit_tiny

pytest_plugins = ["tests.support.bridge_fixtures"]


@pytest.fixture
def hparams(tmp_path, blip2_fields):
    """An EasyEdit hparams file that says where tiny weights lie."""
    path = tmp_path / "blip2.yaml"
    path.write_text(yaml.safe_dump({**blip2_fields, "alg_name": "MSCKE", "device": 0}))
    return path


def test_blip2_by_name_in_a_grid(host, hparams, tiny, fgvedit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = BackboneSpec.parse(f"blip2={hparams}")
    data = DataSpec(f"fgvedit:{fgvedit.path}", images=tiny.images)
    grid = Grid(["unedited", "mscke"], [spec], [data], Protocol("released"), processes=0)
    with easyedit_tiny.small_vit():
        run = run_grid(grid, "run")
    assert [(r["method"], r["backbone"], r["n"]) for r in run.rows()] == [("unedited", "blip2", 5)]
    assert run.rows()[0]["metrics"]["locality"] == 100
    # the shipped MSCKE/blip2.yaml names a trained editor that is not here
    assert "results/MSCKE/blip2/best" in run.status.missing()[0]["reason"]


def test_files_and_options_that_do_not_fit_are_named(host, hparams, tmp_path):
    with pytest.raises(ConfigError, match="is for model_name 'blip2', not for minigpt4"):
        load_backbone("minigpt4", hparams)
    with pytest.raises(BackboneError, match="lies on one device"):
        load_backbone("blip2", hparams, device_map="auto")
    with pytest.raises(ConfigError, match="does not exist"):
        load_backbone("blip2", tmp_path / "nothing.yaml")
    values = yaml.safe_load(hparams.read_text())
    hparams.write_text(yaml.safe_dump({**values, "qformer_checkpoint": "gone.pth"}))
    with pytest.raises(ConfigError, match=r"gone\.pth"):
        load_backbone("blip2", hparams)


def test_the_command_line_takes_name_and_file(host, hparams, tiny, fgvedit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with easyedit_tiny.small_vit():
        evaluate(
            ["unedited"],
            [f"blip2={hparams}"],
            f"fgvedit:{fgvedit.path}",
            images=tiny.images,
            limit=2,
            runs=tmp_path / "runs",
            name="own",
        )
    rows = json.loads((tmp_path / "runs/own/summary.json").read_text())["rows"]
    assert [(r["backbone"], r["n"]) for r in rows] == [("blip2", 2)]
