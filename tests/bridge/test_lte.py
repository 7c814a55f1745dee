"""LTE on EasyEdit's own models, through its trainer and its editor."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.methods.lte import LTEHyperParams, LTETrainingHyperParams

pytest_plugins = ["tests.support.bridge_fixtures"]


def test_multimodal_trainer_and_editor(registered, blip2_fields, fgvedit, tmp_path):
    common = {**blip2_fields, "text_encoder": "words", "rank": 2}
    config = LTETrainingHyperParams(
        **common, lr=1e-2, batch_size=2, max_iters=2, val_interval=2, model_save_pt=1,
        results_dir=str(tmp_path), silent=True,
    )  # fmt: skip
    trainer = registered.trainer_class(config=config, train_set=fgvedit, val_set=fgvedit)
    base = {k: v.clone() for k, v in trainer.original_model.state_dict().items()}
    final = trainer.run()
    assert trainer.global_iter == 2 and final["loss/total_val"] > 0
    assert all(torch.equal(v, base[k]) for k, v in trainer.original_model.state_dict().items())

    hparams = LTEHyperParams(**common, archive=trainer.save_path)
    editor = registered.editor_class.from_hparams(hparams)
    trained = trainer.editor.reader.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in editor.editor.reader.state_dict().items())
    metrics, edited, _ = editor.edit(
        prompts="Question: what color is the circle? Short answer:",
        targets="red",
        image="scene0.png",
        locality_inputs={"text": {"prompt": "who wrote the question", "ground_truth": "human"}},
        keep_original_weight=True,
    )
    # Every question is asked behind the one edit, as in the paper.
    assert metrics[0]["route"]["edit"] == metrics[0]["route"]["text_loc"] == 0
    assert 0 <= metrics[0]["post"]["rewrite_acc"].item() <= 1
    assert edited is editor.model and not editor.editor.edits
    after = editor.model.state_dict()
    assert all(torch.equal(v, base[k]) for k, v in after.items())
