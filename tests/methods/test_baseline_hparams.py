"""The shipped settings of EasyEdit's own algorithms, read by EasyEdit's own classes."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.bridge.hparams import read_hparams
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.ike.model import IKEHyperParams
from easyedit_mm_plugins.methods.settings_text import as_yaml, names

pytest_plugins = ["tests.support.bridge_fixtures"]

NAMES = [name for name in names() if name.alg in ("SERAC_MULTI", "IKE")]


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_easyedits_own_class_reads_it(name, host):
    hparams = read_hparams(str(name), host)
    kind = type(hparams).__name__
    assert kind.startswith("IKE" if name.alg == "IKE" else "SERAC")
    assert ("Training" in kind) == name.training
    assert hparams.model_name == name.backbone
    assert hparams.model_parallel is False  # which the files that EasyEdit ships lack
    assert hparams.exact_match in (True, False)


def test_every_backbone_has_them():
    assert {n.backbone for n in NAMES if n.alg == "IKE"} == {b.name for b in BACKBONES}
    assert {str(n) for n in NAMES if n.alg != "IKE"} == {
        f"{folder}SERAC_MULTI/{m}" for folder in ("", "TRAINING/") for m in ("blip2", "minigpt4")
    }


def test_values_are_the_released_ones(host):
    blip2 = read_hparams("TRAINING/SERAC_MULTI/blip2", host)
    mini = read_hparams("TRAINING/SERAC_MULTI/minigpt4", host)
    assert (blip2.lr, blip2.max_iters, blip2.opt, blip2.batch_size) == (1e-5, 50000, "Adam", 1)
    assert (mini.max_iters, mini.early_stop_patience) == (20000, 30000)
    assert (blip2.cedit, blip2.iedit, blip2.cloc) == (0.1, 0.1, 1.0)
    assert mini.pretrained_ckpt.endswith("pretrained_minigpt4_7b.pth")
    assert read_hparams("IKE/blip2", host).k == 32
    assert read_hparams("SERAC_MULTI/minigpt4", host).archive


def test_easyedit_reads_the_file_that_is_shown(tmp_path, host):
    for name in ("SERAC_MULTI/blip2", "TRAINING/SERAC_MULTI/blip2", "IKE/blip2", "MEND/minigpt4"):
        (tmp_path / "shown.yaml").write_text(as_yaml(name))
        assert vars(read_hparams(tmp_path / "shown", host)) == vars(read_hparams(name, host))


@pytest.mark.parametrize("training", [False, True], ids=["editing", "training"])
def test_files_for_easyedits_own_mend_are_read_too(tmp_path, host, training):
    folder, kind = (
        ("trainer.training_hparams", "TrainingHparams") if training else ("models.mend", "Hparams")
    )
    module = host.module(f"{folder}.mend_multimodal_{'training_' * training}hparams")
    cls = getattr(module, f"MENDMultimodal{kind}")
    values = {field.name: 1 for field in dataclasses.fields(cls)} | {"model_parallel": False}
    for key in ("alg", "alg_name"):
        values.pop(key, None)
    values["alg" if training else "alg_name"] = "MEND"
    (tmp_path / "mend.yaml").write_text(yaml.safe_dump(values))
    hparams = read_hparams(tmp_path / "mend", host)
    assert type(hparams) is cls and hparams.model_parallel is False


def test_mistakes_are_named(tmp_path, host):
    (tmp_path / "a.yaml").write_text("alg_name: SERAC_MULTY\n")
    with pytest.raises(ConfigError, match="did you mean SERAC_MULTI"):
        read_hparams(tmp_path / "a", host)
    (tmp_path / "b.yaml").write_text("alg: SERAC_MULTI\nlr: 1e-5\n")
    with pytest.raises(ConfigError, match=r"b\.yaml.*SERACMultimodalTrainingHparams"):
        read_hparams(tmp_path / "b", host)
    (tmp_path / "c.yaml").write_text("alg_name: IKE\nmodel_name: blip2\nkk: 3\n")
    with pytest.raises(ConfigError, match="did you mean k"):
        IKEHyperParams.from_hparams(tmp_path / "c")
    with pytest.raises(ConfigError, match="k is -1"):
        IKEHyperParams("blip2", k=-1)
