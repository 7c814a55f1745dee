"""KE and T-Patcher on EasyEdit's own models, through its trainer and its editor."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.methods.ke import KEHyperParams, KETrainingHyperParams
from easyedit_mm_plugins.methods.t_patcher import TPatcherHyperParams

from ..support.bridge_helpers import REQUEST, train_two_steps

pytest_plugins = ["tests.support.bridge_fixtures"]

SMALL = {"lstm_size": 6, "condition_size": 10, "hidden_size": 8, "edit_lr": 0.3}


def test_ke_trains_and_edits(registered, blip2_fields, fgvedit, tmp_path):
    names = [f"opt_model.model.decoder.layers.1.fc{k}.weight" for k in (1, 2)]
    common = {**blip2_fields, **SMALL, "inner_params": names}
    trainer, final, base = train_two_steps(
        registered, KETrainingHyperParams, common | {"lr": 1e-3}, fgvedit, tmp_path
    )
    assert 0 <= final["right/both"] <= 1
    editor = registered.editor_class.from_hparams(
        KEHyperParams(**common, archive=trainer.save_path)
    )
    trained = trainer.editor.network.state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in editor.editor.network.state_dict().items())
    metrics, edited, _ = editor.edit(**REQUEST, keep_original_weight=True)
    assert 0 <= metrics[0]["post"]["rewrite_acc"].item() <= 1
    assert edited is editor.model and not editor.editor.edits
    after = editor.model.state_dict()
    assert all(torch.equal(v, base[k]) for k, v in after.items())


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_a_patch_on_easyedits_own_models(registered, blip2_fields, minigpt4_fields, name, tmp_path):
    fields = blip2_fields if name == "blip2" else minigpt4_fields
    tuned = {"num_steps": 300, "loss_limit": 0.5, "with_stop": False, "memory_weight": 0.0}
    editor = registered.editor_class.from_hparams(TPatcherHyperParams(**fields, **tuned))
    before = {k: v.clone() for k, v in editor.model.state_dict().items()}
    (metrics,), edited, weights = editor.edit(**REQUEST)
    assert metrics["pre"]["rewrite_acc"].item() < 1
    assert metrics["post"]["rewrite_acc"].item() == 1.0 and weights == {}
    after = editor.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert edited.generate(REQUEST["prompts"], f"{editor.vis_root}/scene0.png")[0].startswith("red")
    edited.undo()
    missing = TPatcherHyperParams(**fields, memory=str(tmp_path / "nowhere.json"))
    with pytest.raises(DataError, match="nowhere"):
        registered.editor_class.from_hparams(missing).edit(**REQUEST)
