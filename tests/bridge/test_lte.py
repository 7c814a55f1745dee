"""LTE on EasyEdit's own models, through its trainer and its editor."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.methods.lte import LTEHyperParams, LTETrainingHyperParams

from ..support.bridge_helpers import REQUEST, train_two_steps

pytest_plugins = ["tests.support.bridge_fixtures"]


def test_multimodal_trainer_and_editor(registered, blip2_fields, fgvedit, tmp_path):
    common = {**blip2_fields, "text_encoder": "words", "rank": 2}
    trainer, final, base = train_two_steps(
        registered, LTETrainingHyperParams, common | {"lr": 1e-2}, fgvedit, tmp_path
    )
    assert final["loss/total_val"] > 0
    assert all(torch.equal(v, base[k]) for k, v in trainer.original_model.state_dict().items())

    hparams = LTEHyperParams(**common, archive=trainer.save_path)
    editor = registered.editor_class.from_hparams(hparams)
    trained = trainer.editor.reader.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in editor.editor.reader.state_dict().items())
    metrics, edited, _ = editor.edit(**REQUEST, keep_original_weight=True)
    # Every question is asked behind the one edit, as in the paper.
    assert metrics[0]["route"]["edit"] == metrics[0]["route"]["text_loc"] == 0
    assert 0 <= metrics[0]["post"]["rewrite_acc"].item() <= 1
    assert edited is editor.model and not editor.editor.edits
    after = editor.model.state_dict()
    assert all(torch.equal(v, base[k]) for k, v in after.items())
