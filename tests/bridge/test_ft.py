"""FT-LLM and FT-Visual through EasyEdit's editor, on its own BLIP-2 and MiniGPT-4."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.host.backbones import blip_pixels
from easyedit_mm_plugins.methods.ft import FTLLMHyperParams, FTVisualHyperParams

pytest_plugins = ["tests.support.bridge_fixtures"]

# Tiny random models: an image says little to their decoders, so the answer's end is left out.
TUNED = {"edit_lr": 1e-2, "num_steps": 100, "loss_limit": 0.1, "with_stop": False}
REQUEST = {
    "prompts": "Question: what color is the circle? Short answer:",
    "targets": "red",
    "image": "scene0.png",
    "locality_inputs": {"text": {"prompt": "who wrote the question", "ground_truth": "human"}},
}
KINDS = {"FT-LLM": FTLLMHyperParams, "FT-VISUAL": FTVisualHyperParams}
NAMES = {
    "blip2": {
        "FT-LLM": [
            "opt_model.model.decoder.layers.1.fc1.weight",
            "opt_model.model.decoder.layers.1.fc2.weight",
        ],
        "FT-VISUAL": ["Qformer", "opt_proj"],
    },
    "minigpt4": {
        "FT-LLM": ["llama_model.model.layers.1.mlp.down_proj.weight"],
        "FT-VISUAL": ["Qformer", "llama_proj"],
    },
}


@pytest.mark.parametrize("alg", list(KINDS))
@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_an_edit_on_easyedits_own_models(registered, blip2_fields, minigpt4_fields, name, alg):
    fields = blip2_fields if name == "blip2" else minigpt4_fields
    hparams = KINDS[alg](**fields, **TUNED, inner_params=NAMES[name][alg])
    editor = registered.editor_class.from_hparams(hparams)
    assert editor.alg_name == alg and editor.apply_algo is registered.edit_algs[alg]
    before = {k: v.clone() for k, v in editor.model.state_dict().items()}
    (metrics,), edited, weights = editor.edit(**REQUEST)
    assert metrics["pre"]["rewrite_acc"].item() < 1
    assert metrics["post"]["rewrite_acc"].item() == 1.0 and weights == {}
    if alg == "FT-VISUAL":
        assert metrics["post"]["locality_acc"].item() == 1.0
    after = editor.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())

    scene = f"{editor.vis_root}/scene0.png"
    assert edited.generate(REQUEST["prompts"], scene)[0].startswith("red")
    samples = {
        "image": blip_pixels(scene)[None],
        "text_input": [f"{REQUEST['prompts']} red"],
        "labels": ["red"],
        "prompts_len": [len(editor.backbone.token_ids(REQUEST["prompts"]))],
    }
    base, ours = editor.model(samples).logits, edited(samples).logits
    ids = editor.backbone.answer_ids("red")
    end = ours.shape[1] - edited._tail
    assert ours[0, end - len(ids) - 1 : end - 1].argmax(-1).tolist() == ids
    assert not torch.equal(ours, base)
    edited.undo()
    with torch.no_grad():
        assert torch.equal(edited(samples).logits, editor.model(samples).logits)


@pytest.mark.parametrize("alg", list(KINDS))
@pytest.mark.parametrize("backbone", ["scenes-blip2", "scenes-llava", "scenes-minigpt4"])
def test_the_shipped_files_edit_the_embedded_models(registered, scenes, backbone, alg):
    folder = f"easyedit_mm_plugins/hparams/{alg}/{backbone}"
    editor = registered.editor_class.from_hparams(KINDS[alg].from_hparams(folder))
    request = {**REQUEST, "prompts": "what color is the circle?", "image": scenes[0]}
    (metrics,), edited, _ = editor.edit(**request)
    assert metrics["post"]["rewrite_acc"].item() == 1.0
    assert edited.generate(request["prompts"], scenes[0]) == ["red"]
    samples = {
        "image": blip_pixels(scenes[0])[None],
        "text_input": ["Question: what color is the circle? Short answer: red"],
        "labels": ["red"],
    }
    ours = edited(samples)
    position = int(ours.attention_mask[0].sum()) - len(editor.backbone.answer_ids("red")) - 1
    said = ours.logits[0, position].argmax().item()
    assert said == editor.backbone.answer_ids("red")[0]
    edited.undo()
    assert not torch.equal(ours.logits, edited(samples).logits)
