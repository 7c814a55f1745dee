"""EasyEdit's own datasets take the settings of the plugin's methods, on any base model."""

from __future__ import annotations

import types

import pytest

from easyedit_mm_plugins.bridge.requests import RecordView
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.mscke import MSCKEHyperParams

from ..support.bridge_helpers import evqa

pytest_plugins = ["tests.support.bridge_fixtures"]


@pytest.fixture
def build(registered, tiny, tmp_path):
    """VQADataset of EasyEdit on a file in E-VQA's form, with MSCKE's settings."""

    def make(**changes):
        roots = {"coco_image": tiny.images, "rephrase_image": tiny.images}
        settings = MSCKEHyperParams(**{"model_name": "scenes-llava", **roots, **changes})
        dataset = registered.module("dataset").VQADataset(evqa(tiny, tmp_path), config=settings)
        assert dataset.config is settings
        return dataset

    return make


@pytest.mark.parametrize("name", ["scenes-llava", "scenes-blip2"])
def test_an_embedded_base_model_brings_its_tokenizer(build, name):
    dataset = build(model_name=name)
    assert dataset.tok("red")["input_ids"] != dataset.tok("blue")["input_ids"]
    records = RecordView(dataset)
    assert [r.edit.answer for r in records] == ["red"] * 3
    assert dataset[0]["image"].shape == (3, 364, 364)


def test_easyedits_own_models_keep_their_tokenizer(build, tiny):
    given = {"tokenizer_class": "GPT2Tokenizer", "tokenizer_name": tiny.opt}
    dataset = build(model_name="blip2", name=tiny.opt, **given)
    assert type(dataset.tok).__name__ == "GPT2Tokenizer"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coco_image": None}, "hparams.coco_image is not set"),
        ({"rephrase_image": None}, "hparams.rephrase_image is not set"),
        ({"model_name": "blip2"}, "hparams.tokenizer_name is not set"),
    ],
)
def test_what_it_lacks_is_named(build, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_settings_of_other_methods_reach_the_original(registered, host, tiny, tmp_path):
    config = types.SimpleNamespace(alg_name="IKE", model_name="blip2", coco_image=None,
                                   rephrase_image=None, tokenizer_name=tiny.opt,
                                   tokenizer_class="GPT2Tokenizer")  # fmt: skip
    with pytest.raises(TypeError):
        registered.module("dataset").VQADataset(evqa(tiny, tmp_path), config=config)
