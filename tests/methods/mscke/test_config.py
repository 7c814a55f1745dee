"""Hyperparameter files in EasyEdit's form."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import easyedit_mm_plugins
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.factory import editor_from_settings
from easyedit_mm_plugins.methods.mscke import (
    MSCKEHyperParams,
    MSCKETrainingHyperParams,
    ScopeConfig,
)

from ...conftest import build_tiny
from ...support.mscke_tiny import TINY_OPT, tiny_mscke, tiny_scope

HPARAMS = Path(easyedit_mm_plugins.__file__).parent / "hparams"
NAMES = (
    "scenes-blip2",
    "scenes-llava",
    "scenes-minigpt4",
    "blip2",
    "minigpt4",
    "blip2-hf",
    "llava",
)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_settings_by_name_and_by_path(name):
    for cls, folder in (
        (MSCKEHyperParams, "MSCKE"),
        (MSCKETrainingHyperParams, "TRAINING/MSCKE"),
    ):
        hparams = cls.from_hparams(f"{folder}/{name}")
        assert hparams == cls.from_hparams(HPARAMS / folder / name)
        assert hparams == cls.from_hparams(str(HPARAMS / folder / f"{name}.yaml"))
        assert hparams == cls.from_hparams(f"MSCKE/{name}")
        assert hparams.model_name == name and hparams.threshold == 0.5
        assert isinstance(hparams.scope, ScopeConfig) and hparams.to_dict()["scope"]["fusion"]


def test_the_released_values_are_in_the_files_of_the_released_backbones():
    blip2 = MSCKETrainingHyperParams.from_hparams("TRAINING/MSCKE/blip2")
    assert (blip2.lr, blip2.opt, blip2.batch_size, blip2.max_iters) == (1e-5, "Adam", 1, 50000)
    assert (blip2.cls_loss, blip2.igen_loss, blip2.iloc_loss, blip2.cedit) == (1, 1, 1, 0.1)
    assert (blip2.scope.encoder, blip2.scope.similarity) == ("ViT-L-14", "exp-squared-distance")
    minigpt4 = MSCKETrainingHyperParams.from_hparams("MSCKE/minigpt4")
    assert minigpt4.max_iters == 20000


def _write(tmp_path, text: str) -> Path:
    (tmp_path / "x.yaml").write_text(text)
    return tmp_path / "x"


def test_unknown_and_missing_keys_are_errors_with_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match=r"x\.yaml: unknown key 'treshold'; did you mean thresh"):
        MSCKEHyperParams.from_hparams(
            _write(tmp_path, "alg_name: MSCKE\nmodel_name: a\ntreshold: 0.4")
        )
    with pytest.raises(ConfigError, match="scope: unknown key 'fushion'; did you mean fusion"):
        MSCKEHyperParams(model_name="a", scope={"fushion": "concat"})
    with pytest.raises(ConfigError, match="missing key model_name"):
        MSCKEHyperParams.from_hparams(_write(tmp_path, "alg_name: MSCKE"))
    with pytest.raises(ConfigError, match="missing key alg_name"):
        MSCKEHyperParams.from_hparams(_write(tmp_path, "model_name: a"))
    with pytest.raises(ConfigError, match="is for MEND"):
        MSCKEHyperParams.from_hparams(_write(tmp_path, "alg_name: MEND\nmodel_name: a"))
    with pytest.raises(ConfigError, match="does not exist"):
        MSCKEHyperParams.from_hparams(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot be read"):
        MSCKEHyperParams.from_hparams(_write(tmp_path, "a: [1"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 1.5}, "at most 1"),
        ({"opt": "Adm"}, "Adam"),
        ({"train": "scop"}, "scope"),
        ({"batch_size": 0}, "at least 1"),
        ({"max_iters": None}, "one of max_iters and max_epochs"),
        ({"cls_loss": -1}, "at least 0"),
        ({"scope": {"resize": "stretch"}}, "squash"),
        ({"scope": {"dim": 0}}, "dim"),
        ({"counterfactual": {"drop_image": 2}}, "drop_image"),
    ],
)
def test_values_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        MSCKETrainingHyperParams(**{"model_name": "a", "max_iters": 5, **changes})


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    path = _write(tmp_path, "alg: MSCKE\nmodel_name: a\nmax_iters: 3\nlr: 1e-5\nname: 1e")
    hparams = MSCKETrainingHyperParams.from_hparams(path)
    assert hparams.lr == 1e-5 and hparams.name == "1e"


def test_an_editor_from_hyperparameters(tmp_path, caplog):
    tiny_scope().save_pretrained(tmp_path / "scope")
    values = {
        "alg_name": "MSCKE",
        "model_name": "tiny",
        "threshold": 0.25,
        "scope": {"encoder": "ViT-S-32-alt", "pretrained": None, "dim": 8},
        "counterfactual": {"lm": TINY_OPT},
    }
    hparams = MSCKEHyperParams.from_hparams(_write(tmp_path, yaml.safe_dump(values)))
    backbone = build_tiny("llava")
    entry = METHODS.get("mscke")
    editor = editor_from_settings(entry, hparams, backbone, untrained="warn")
    assert editor.threshold == 0.25 and "untrained" in caplog.text
    tiny_mscke().save_pretrained(tmp_path / "trained")
    hparams = hparams.replace(archive=str(tmp_path / "trained"))
    trained = editor_from_settings(entry, hparams, backbone)
    assert trained.threshold == 0.25 and trained.scope.config.encoder == "tiny"
