"""`MultimodalTrainer` for MSCKE: EasyEdit's class and data sets, our training."""

import json
from pathlib import Path

import pytest
import torch

from easyedit_mm_plugins.core.errors import (
    BridgeError,
    CheckpointError,
    DataError,
    UnknownNameError,
)
from easyedit_mm_plugins.methods.mscke import MSCKE, MSCKEHyperParams, MSCKETrainingHyperParams

from ..support.bridge_helpers import evqa, hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]


@pytest.fixture
def config(blip2_fields, mscke_fields, tmp_path):
    def make(**changes):
        values = {
            **blip2_fields,
            **mscke_fields,
            "lr": 1e-3,
            "max_iters": 2,
            "val_interval": 2,
            "log_interval": 1,
            "model_save_pt": 1,
            "results_dir": str(tmp_path / "results"),
            "silent": True,
        }
        return MSCKETrainingHyperParams(**{**values, **changes})

    return make


@pytest.mark.parametrize("batch_size", [1, 4])
def test_training_validation_and_saving(registered, config, fgvedit, batch_size):
    hparams = config(batch_size=batch_size, val_batch_size=batch_size)
    trainer = registered.trainer_class(config=hparams, train_set=fgvedit, val_set=fgvedit)
    assert type(trainer) is registered.trainer_class
    assert trainer.config is hparams and trainer.train_set is fgvedit
    assert len(next(iter(trainer.train_loader))) == batch_size
    base = {k: v.clone() for k, v in trainer.original_model.state_dict().items()}
    scope = {k: v.clone() for k, v in trainer.editor.scope.state_dict().items()}
    start = trainer.validate(steps=2)
    final = trainer.run()
    assert trainer.global_iter == 2
    assert final["loss/total_val"] > 0 and start.keys() == final.keys()
    assert hparams.val_steps is None
    assert all(torch.equal(v, base[k]) for k, v in trainer.original_model.state_dict().items())
    changed = trainer.editor.scope.state_dict()
    assert any(not torch.equal(v, scope[k]) for k, v in changed.items())
    results = json.loads((Path(hparams.results_dir) / "results.json").read_text())
    assert results["results"]["loss/total_val"] == final["loss/total_val"]
    # What was saved is what hparams.archive takes, the best folder or the run's.
    fields = {
        k: v for k, v in hparams.to_dict().items() if k in MSCKEHyperParams.__dataclass_fields__
    }
    for archive in (trainer.save_path, str(Path(trainer.save_path).parent)):
        editing = MSCKEHyperParams(**{**fields, "archive": archive})
        editor = registered.editor_class.from_hparams(editing)
        for name, value in editor.editor.scope.state_dict().items():
            torch.testing.assert_close(value, trainer.editor.scope.state_dict()[name])


def test_easyedits_own_dataset(registered, config, tiny, tmp_path):
    hparams = config(batch_size=2, train="counterfactual", early_stop_key="loss/cfr_val")
    dataset = registered.module("dataset").VQADataset(evqa(tiny, tmp_path), config=hparams)
    trainer = registered.trainer_class(hparams, dataset, dataset)
    assert trainer.run()["loss/cfr_val"] > 0


def test_the_entry_for_training_by_itself(registered, config):
    hparams = config()
    model = registered.trainer_class(hparams, *[[_record()]] * 2).original_model
    trainable = registered.train_algs["MSCKE"](model, hparams, lambda: model)
    assert isinstance(trainable.editor, MSCKE)
    edited, info = trainable.edit(
        {"image": None, "text_input": ["who wrote it red"], "labels": None, "prompts_len": [4]}
    )
    assert len(edited.edits) == 1 and trainable.edits == {} and info == {}
    again, _ = edited.edit(
        {"image": None, "text_input": ["who wrote it blue"], "labels": None, "prompts_len": [4]}
    )
    assert len(again.edits) == 2 and len(edited.edits) == 1


def _record():
    return {"prompt": "who wrote it", "target": "red", "image": None}


def test_what_cannot_be_trained_is_said_before_a_model_is_built(registered, config, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr("easyedit_mm_plugins.bridge.trainer.build_backbone", never)
    train = [_record()]
    cls = registered.trainer_class
    with pytest.raises(BridgeError, match="has no trainer"):
        cls(hparams_for({"model_name": "blip2"}, alg="PARROT"), train, train)
    with pytest.raises(UnknownNameError, match="MSCKE"):
        cls(hparams_for({"model_name": "blip2"}, alg="MSKCE"), train, train)
    with pytest.raises(UnknownNameError, match="did you mean blip2"):
        cls(config(model_name="blip22"), train, train)
    with pytest.raises(CheckpointError, match="nowhere"):
        cls(config(archive="nowhere"), train, train)
    with pytest.raises(DataError, match="empty"):
        cls(config(), [], train)
    with pytest.raises(DataError, match="target"):
        cls(config(), [{**_record(), "target": " "}], train)


def test_easyedits_inner_steps_are_refused_where_the_method_has_none(registered, config):
    trainer = registered.trainer_class(config(), *[[_record()]] * 2)
    with pytest.raises(BridgeError, match="edit_step"):
        trainer.edit_step({}, training=True)
