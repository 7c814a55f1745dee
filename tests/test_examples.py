"""Every example runs as it stands, with the shipped models."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.host import easyedit as host
from easyedit_mm_plugins.methods.settings_text import as_yaml
from easyedit_mm_plugins.scenes.records import write_scenes

from .support.bridge_helpers import tiny_clip
from .support.easyedit_tiny import small_vit

pytest_plugins = ["tests.support.bridge_fixtures"]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a few scenes where ``ensure_scenes`` looks for them."""
    folder = tmp_path_factory.mktemp("examples")
    write_scenes(folder / "data/scenes", n_train=2, n_test=4)
    return folder


@pytest.mark.parametrize(
    ("name", "says"), [("scenes", ["->", "base"]), ("easyedit_project", ["pre", "post"])]
)
def test_example(folder, name, says):
    if name.startswith("easyedit"):
        try:
            host.locate()
        except BridgeError as error:
            pytest.skip(f"EasyEdit: {error.message}")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = (
        (ROOT / "examples" / f"{name}.py")
        .read_text()
        .replace("ensure_scenes()", "ensure_scenes(n_train=2, n_test=4)")
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(word in done.stdout for word in says)


SMALL = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def small(name, out, fields, clip, **changes):
    """The settings called ``name`` for a tiny model: same keys, tiny parts, untrained."""
    values = yaml.safe_load(as_yaml(name)) | fields | changes
    values["scope"] |= {"encoder": str(clip), "pretrained": None, "dim": 8}
    if values.get("counterfactual", {}).get("kind") == "small-lm":
        values["counterfactual"]["lm"] = SMALL
    elif values.get("counterfactual", {}).get("mend"):
        few = {"inner_params": ["layers.-1.mlp.down_proj"], "rank": 4}
        values["counterfactual"]["mend"] |= few
    if "archive" in values:
        values["archive"] = None
    out.write_text(yaml.safe_dump(values))
    return str(out)


@pytest.fixture
def example(monkeypatch, capsys):
    """Run an example in this process and give back what it printed."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with small_vit():
            runpy.run_path(str(ROOT / f"examples/{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_easyedits_own_models(host, request, folder, tmp_path, example, name):
    clip = tiny_clip(tmp_path / "clip")
    fields = request.getfixturevalue(f"{name}_fields")
    method = "MSCKE" if name == "blip2" else "MSCKE-MEND"
    hparams = small(f"{method}/{name}", tmp_path / "hparams.yaml", fields, clip)
    data = folder / "data/scenes"
    words = ["--hparams", hparams, "--data", data / "test.json", "--images", data / "images"]
    printed = example(name, *words, "--cases", 2)
    assert ("specificity" if name == "blip2" else "post") in printed


def test_llava_on_the_embedded_model(folder, example):
    image = sorted((folder / "data/scenes/images").rglob("*.png"))[0]
    words = ["--backbone", "scenes-llava", "--method", "mscke", image]
    printed = example("llava", *words, "what color is the circle?", "red", "is the circle red?")
    assert "what color is the circle?" in printed and "-> red" in printed


def test_training(folder, tmp_path, example):
    out = tmp_path / "run"
    data = folder / "data/scenes"
    words = ["--data", data / "train.json", "--images", data / "images"]
    printed = example("train_mscke", "--out", out, "--steps", 2, *words)
    assert (out / "best/config.json").is_file() and str(out / "best") in printed


def test_training_through_easyedit(host, blip2_fields, folder, tmp_path, example):
    clip, data = tiny_clip(tmp_path / "clip"), folder / "data/scenes"
    changes = {"results_dir": str(tmp_path / "results"), "val_steps": 1}
    file = tmp_path / "hparams.yaml"
    hparams = small("TRAINING/MSCKE/blip2", file, blip2_fields, clip, **changes)
    words = ["--hparams", hparams, "--train", data / "train.json", "--val", data / "test.json"]
    printed = example("train_easyedit", *words, "--images", data / "images", "--steps", 2)
    saved = printed.split("archive in an hparams file: ")[1].strip()
    assert (Path(saved) / "config.json").is_file()
