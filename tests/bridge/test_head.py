"""What only EasyEdit's HEAD has; every other test of the bridge runs on both generations."""

import pytest
import torch

from easyedit_mm_plugins.host.backbones import blip_pixels

from ..support.bridge_helpers import hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]
pytestmark = pytest.mark.head


@pytest.fixture(autouse=True)
def head(host):
    if host.generation != "head":
        pytest.skip("needs a checkout of EasyEdit HEAD: set EASYEDIT_ROOT to it")


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_samples_in_a_list(registered, blip2_fields, minigpt4_fields, name):
    fields = blip2_fields if name == "blip2" else minigpt4_fields
    editor = registered.editor_class.from_hparams(hparams_for(fields))
    question = "what color is the circle?"
    _, edited, _ = editor.edit(question, "red", "scene0.png")
    pixels = blip_pixels(f"{editor.vis_root}/scene0.png")[None]
    samples = [
        {
            "image": image,
            "text_input": [f"Question: {text} Short answer: red"],
            "labels": ["red"],
            "prompts_len": [3],
        }
        for text, image in ((question, pixels), ("how many stars?", pixels), ("who?", None))
    ]
    with torch.no_grad():
        base, ours = editor.model(samples), edited(samples)
    ids = editor.backbone.answer_ids("red")
    end = int(ours.attention_mask[0].sum())
    assert ours.logits[0, end - len(ids) - 1 : end - 1].argmax(-1).tolist() == ids
    assert torch.equal(ours.logits[1:], base.logits[1:])


def test_its_sets_of_names_and_its_order_of_arguments(registered, blip2_fields):
    assert len(registered.name_sets()) == 2
    assert all("PARROT" in names for _, names in registered.name_sets())
    editor = registered.editor_class.from_hparams(hparams_for(blip2_fields))
    # Fourth is file_type here, and the rephrased prompt in the PyPI release.
    metrics, _, _ = editor.edit("who?", "red", "scene0.png", "image", "please who?")
    assert metrics[0]["post"]["rephrase_acc"].item() == 1.0
    metrics, _, _ = editor.edit("who?", "red", "scene0.png", sequential_edit=True)
    assert metrics[0]["case_nums"] == 0
