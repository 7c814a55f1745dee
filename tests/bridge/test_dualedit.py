"""DualEdit on EasyEdit's own BLIP-2 and MiniGPT-4, through its editor and its trainer."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.dualedit import DualEditHyperParams, DualEditTrainingHyperParams

from ..support.bridge_helpers import REQUEST, train_two_steps
from ..support.dualedit_tiny import tiny_dualedit

pytest_plugins = ["tests.support.bridge_fixtures"]

SMALL = {"form": "released", "width": 8, "heads": 2}
ADAPTERS = [{"layer": 1, "tokens": "text", **SMALL}, {"layer": 0, "tokens": "visual", **SMALL}]


def test_adapters_hooks_and_gate_work_on_easyedits_models(easyedit_backbone, scenes):
    editor = tiny_dualedit(easyedit_backbone)
    edit = Question("what color is the circle?", scenes[0], "red")
    away = Question("who wrote the question", None, "human")
    before = easyedit_backbone.answer_logits([edit, away])
    with editor.edited([edit]) as ids:
        assert [a.route for a in editor.generate([edit, away])] == [ids[0], None]
        batch = easyedit_backbone.batch([edit, away], with_answers=True)
        with torch.no_grad(), editor._edited(batch, None):
            moved = answer_logits(easyedit_backbone.language_model, batch)
        assert not torch.allclose(moved[0], before[0], atol=1e-2)
        assert torch.allclose(moved[1], before[1], atol=1e-5)
        # What teacher forcing puts first is what generation says first.
        (forced,) = editor.force([edit])
        said = editor.generate([edit], max_new_tokens=1)[0].text
        assert said == easyedit_backbone.decode([forced.top_ids[0].tolist()])[0]
    after = easyedit_backbone.answer_logits([edit, away])
    assert all(map(torch.equal, before, after))


def test_multimodal_trainer_and_editor(registered, blip2_fields, fgvedit, tmp_path):
    common = {**blip2_fields, "adapters": ADAPTERS, "gate": {"threshold": 0.99}}
    trainer, final, base = train_two_steps(
        registered, DualEditTrainingHyperParams, common | {"lr": 1e-2}, fgvedit, tmp_path
    )
    assert final["loss/total_val"] > 0
    assert all(torch.equal(v, base[k]) for k, v in trainer.original_model.state_dict().items())

    hparams = DualEditHyperParams(**common, archive=trainer.save_path)
    editor = registered.editor_class.from_hparams(hparams)
    trained = trainer.editor.adapters.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in editor.editor.adapters.state_dict().items())
    metrics, edited, _ = editor.edit(**REQUEST, keep_original_weight=True)
    assert metrics[0]["route"]["edit"] == 0 and metrics[0]["route"]["text_loc"] is None
    assert metrics[0]["post"]["locality_acc"].item() == 1.0
    assert edited is editor.model and not editor.editor.edits
