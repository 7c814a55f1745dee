"""Learning MEND's network, and going on after a kill."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.core.errors import ConfigError, RunError, TrainingError
from easyedit_mm_plugins.methods.deltas import changed_logits
from easyedit_mm_plugins.methods.mend import Mend, MendConfig, MendTrainer, MendTrainingHyperParams
from easyedit_mm_plugins.methods.mend.losses import mend_losses, mend_total, weighed
from easyedit_mm_plugins.methods.mscke.losses import INSIDE, draw

from ...conftest import build_tiny
from ...support.killing import run_until_killed
from ...support.mscke_tiny import tiny_records


def hparams(**changes) -> MendTrainingHyperParams:
    values = {
        "model_name": "tiny", "rank": 4, "edit_lr": -0.01, "lr": 3e-3, "lr_lr": 1e-3,
        "cedit": 1.0, "iedit": 1.0, "batch_size": 2, "max_iters": 6, "val_batch_size": 2,
        "val_interval": 3, "log_interval": 1, "model_save_pt": 2, "grad_clip": 1.0,
    }  # fmt: skip
    return MendTrainingHyperParams(**{**values, **changes})


def _trainer(out, family="llava", **changes) -> MendTrainer:
    settings, records = hparams(**changes), tiny_records()
    torch.manual_seed(0)
    editor = Mend(build_tiny(family), settings.config)
    return MendTrainer(editor, records[:4], records[4:], settings, out)


def _weights(trainer) -> list[torch.Tensor]:
    return [t.detach().clone() for t in trainer.editor.network.state_dict().values()]


def test_the_loss_by_kind_of_question_by_hand():
    editor, records = _trainer(None).editor, tiny_records(2)
    editor.network.eval()
    drawn = draw(records, 2)
    with torch.no_grad():
        losses, right = mend_losses(editor, drawn)
        by_hand: dict[str, list[float]] = {}
        for asked in drawn.queries:
            (delta,) = editor.learn([records[asked.record].edit])
            question = asked.question
            # the answer and the token that ends it
            stopped = replace(question, answer=f"{question.answer} </s>")
            edited = changed_logits(editor.backbone, [stopped], [delta])[0].log_softmax(-1)
            base = editor.backbone.answer_logits([stopped])[0].log_softmax(-1)
            ids = torch.tensor(editor.backbone.answer_ids(stopped.answer))
            assert ids[-1] == editor.backbone.stop_token_id
            nll = -edited.gather(1, ids[:, None]).mean()
            kl = (base.exp() * (base - edited)).sum(-1).mean()
            value = nll if asked.kind in INSIDE else kl
            by_hand.setdefault(asked.kind, []).append(float(value))
    assert set(losses) == set(by_hand) == set(right)
    for kind, values in by_hand.items():
        assert float(losses[kind]) == pytest.approx(sum(values) / len(values), abs=1e-4)
    weights = hparams(cedit=2.0, iedit=3.0, cloc=5.0, iloc=7.0)
    factors = {"in_scope": 3.0, "out_scope": 7.0, "text_loc": 5.0, "image_loc": 5.0}
    total = sum(factors.get(kind, 2.0) * float(loss) for kind, loss in losses.items())
    assert float(mend_total(losses, weights)) == pytest.approx(total, rel=1e-5)
    asked = weighed(drawn, hparams(cloc=0.0, iloc=0.0)).queries  # without weight: not asked
    assert {a.kind for a in asked} == set(INSIDE) - {"image_far"}


@pytest.mark.parametrize("family", ["blip2", "llava"])
def test_training_lowers_the_loss_and_leaves_the_base_model(tmp_path, family):
    trainer = _trainer(tmp_path, family, max_iters=25, val_interval=25)
    base = [t.clone() for t in trainer.editor.backbone.model.state_dict().values()]
    before = trainer.validate()["loss/total_edit_val"]
    final = trainer.run()
    assert final["loss/total_edit_val"] < 0.95 * before
    assert {"right/edit", "right/in_scope", "right/specificity"} <= set(final)
    after = trainer.editor.backbone.model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(base, after, strict=True))
    assert not trainer.editor.network.training
    again = Mend.from_pretrained(tmp_path / "best", trainer.editor.backbone)
    assert torch.equal(again.network.edit_lrs, trainer.editor.network.edit_lrs)


def test_a_killed_run_goes_on_at_the_same_place_with_the_same_losses(tmp_path):
    whole = _trainer(tmp_path / "whole")
    whole.run()

    # Checkpoints are at 2 and 4: step 5 is lost and done again.
    run_until_killed(_trainer(tmp_path / "cut"), steps=5)
    again = _trainer(tmp_path / "cut")
    torch.manual_seed(12345)
    again.run()
    assert again.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(_weights(again), _weights(whole), strict=True))
    with pytest.raises(RunError, match="other settings"):
        _trainer(tmp_path / "cut", lr=1.0).run()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_training_that_diverges_names_the_step_and_keeps_the_last_state(tmp_path, what):
    trainer = _trainer(tmp_path)
    trainer.train_step()
    good = [p.detach().clone() for p in trainer.editor.network.parameters()]
    if what == "loss":
        trainer.batch_loss = lambda *_: (torch.tensor(float("inf")), {})
    else:
        trainer.editor.network.edit_lrs.register_hook(lambda g: g * float("nan"))
    with pytest.raises(TrainingError, match=r"step [12]"):
        trainer.train_step()
    now = trainer.editor.network.parameters()
    assert all(torch.equal(a, b) for a, b in zip(good, now, strict=True))


def test_records_that_cannot_be_learned_from(tmp_path):
    (record,) = tiny_records(1)
    bare = replace(record, text_loc=(replace(record.text_loc[0], answer=" "),))
    with pytest.raises(TrainingError, match=r"text_loc has no answer.*capital"):
        mend_losses(_trainer(None).editor, draw([bare], 1))
    text_only = replace(
        record,
        edit=replace(record.edit, image=None),
        rephrase=(),
        in_scope=(),
        image_rephrase=(),
    )
    losses, _ = mend_losses(_trainer(None).editor, draw([text_only], 1, random.Random(0)))
    assert all(torch.isfinite(loss) for loss in losses.values()) and "edit" in losses
    with pytest.raises(TrainingError, match="no training records"):
        MendTrainer(_trainer(None).editor, [], [], hparams(), tmp_path)


def test_settings_read_like_easyedits(tmp_path):
    path = tmp_path / "mend.yaml"
    text = "alg: MEND\nmodel_name: blip2\nmax_iters: 3\nrank: 8\nlr: 1e-6\ninner_params:\n"
    path.write_text(text + "- opt_model.model.decoder.layers.29.fc1.weight\n")
    read = MendTrainingHyperParams.from_hparams(path)
    assert read.config == MendConfig(["layers.29.fc1"], rank=8) and read.lr == 1e-6
    path.write_text(text.replace("rank", "rnak") + "- a\n")
    with pytest.raises(ConfigError, match="did you mean rank"):
        MendTrainingHyperParams.from_hparams(path)
    path.write_text("alg: MEND\nmodel_name: blip2\n")
    with pytest.raises(ConfigError, match="max_iters"):
        MendTrainingHyperParams.from_hparams(path)
    for key in ("lr_lr", "iloc", "scope_questions"):
        with pytest.raises(ConfigError, match=key):
            hparams(**{key: -1})


@pytest.mark.parametrize("name", [b.name for b in BACKBONES])
def test_every_backbone_has_settings_that_name_real_modules(name):
    from easyedit_mm_plugins.methods.mend import (
        MendHyperParams,
        MSCKEMENDHyperParams,
        MSCKEMENDTrainingHyperParams,
    )

    for alg, cls in (
        ("MEND", MendHyperParams),
        ("MEND", MendTrainingHyperParams),
        ("MSCKE-MEND", MSCKEMENDHyperParams),
        ("MSCKE-MEND", MSCKEMENDTrainingHyperParams),
    ):
        read = cls.from_hparams(f"{alg}/{name}")
        config = read.config if alg == "MEND" else read.counterfactual.mend
        assert any(n.startswith("connector.") for n in config.inner_params)
        assert any(n.startswith("layers.") for n in config.inner_params)
        if not name.startswith("scenes"):  # EasyEdit's values
            assert (config.rank, config.edit_lr, config.combine) == (1920, 1e-4, True)


@pytest.mark.parametrize("kind", ["blip2", "llava", "minigpt4"])
def test_the_scenes_settings_fit_their_models(kind):
    config = MendTrainingHyperParams.from_hparams(f"MEND/scenes-{kind}").config
    editor = Mend(build_tiny(kind), replace(config, inner_params=config.inner_params[1:]))
    assert list(editor.modules)[-1].startswith("connector.")
