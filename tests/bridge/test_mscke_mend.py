"""MSCKE-MEND through EasyEdit's `MultimodalEditor` and `MultimodalTrainer`, on its real models."""

import pytest
import torch

from easyedit_mm_plugins.methods.mend import (
    MSCKEMEND,
    Mend,
    MendConfig,
    MSCKEMENDHyperParams,
    MSCKEMENDTrainingHyperParams,
)

pytest_plugins = ["tests.support.bridge_fixtures"]

INNER = {
    "blip2": ["opt_model.model.decoder.layers.1.fc2.weight", "opt_proj.weight"],
    "minigpt4": ["llama_model.model.layers.1.mlp.down_proj.weight", "llama_proj.weight"],
}
ASKED = "Question: what color is the circle? Short answer:"


def settings(cls, fields, clip_folder, **changes):
    network = {"inner_params": INNER[fields["model_name"]], "rank": 4, "edit_lr": -0.2}
    method = {
        "scope": {"encoder": clip_folder, "pretrained": None, "dim": 8},
        "counterfactual": {"kind": "mend", "mend": network},
    }
    return cls(**{**fields, **method, **changes})


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_editing(registered, blip2_fields, minigpt4_fields, clip_folder, name):
    fields = blip2_fields if name == "blip2" else minigpt4_fields
    hparams = settings(MSCKEMENDHyperParams, fields, clip_folder, threshold=0.0)
    editor = registered.editor_class.from_hparams(hparams)
    assert type(editor.editor) is MSCKEMEND and editor.alg_name == "MSCKE-MEND"
    before = {k: v.clone() for k, v in editor.model.state_dict().items()}
    metrics, edited, weights = editor.edit(
        prompts=ASKED, targets="red", image="scene0.png", rephrase_prompts=ASKED
    )
    assert metrics[0]["route"]["edit"] == 0 and weights == {}  # everything is in scope at 0
    after = editor.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    mend = editor.editor.counterfactual.editor
    assert list(mend.modules) == [
        "layers.1.fc2" if name == "blip2" else "layers.1.mlp.down_proj",
        "connector.projection",
    ]
    assert [e.answer for e in edited.edits.values()] == ["red"]
    assert list(mend.edits.values()) == list(edited.edits.values())


def test_gradients_reach_the_visual_side_of_easyedits_models(easyedit_backbone, scenes):
    from easyedit_mm_plugins.data import Question

    config = MendConfig(inner_params=["connector.*output_query.dense", "connector.projection"])
    editor = Mend(easyedit_backbone, config)
    edits = [Question("what color is the circle?", p, "red") for p in scenes]
    together = editor.gradients(edits)
    for edit, factors in zip(edits, together, strict=True):
        (alone,) = editor.gradients([edit])
        assert set(alone) == set(factors) == set(editor.modules)
        for name, part in factors.items():
            own = alone[name]
            torch.testing.assert_close(
                part.delta.T @ part.x, own.delta.T @ own.x, atol=1e-5, rtol=1e-3
            )


def test_training(registered, blip2_fields, clip_folder, fgvedit, tmp_path):
    hparams = settings(
        MSCKEMENDTrainingHyperParams,
        blip2_fields,
        clip_folder,
        max_iters=2,
        batch_size=2,
        val_interval=2,
        log_interval=1,
        results_dir=str(tmp_path),
        silent=True,
    )
    trainer = registered.trainer_class(hparams, fgvedit, fgvedit)
    network = trainer.editor.counterfactual.editor.network
    start = network.edit_lrs.detach().clone()
    final = trainer.run()
    assert final["loss/cls_val"] > 0 and final["loss/cfr_val"] > 0
    assert not torch.equal(start, network.edit_lrs)
    editing = settings(MSCKEMENDHyperParams, blip2_fields, clip_folder, archive=trainer.save_path)
    again = registered.editor_class.from_hparams(editing).editor
    assert torch.equal(again.counterfactual.editor.network.edit_lrs, network.edit_lrs)
