"""Learning the two parts (MSCKE eq. 9-11), and going on after a kill."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError, RunError, TrainingError
from easyedit_mm_plugins.methods.mscke import MSCKE, MSCKETrainer
from easyedit_mm_plugins.methods.mscke.losses import (
    counterfactual_losses,
    draw,
    scope_losses,
    scope_total,
)

from ...support.killing import run_until_killed
from ...support.mscke_tiny import hparams, tiny_mscke, tiny_records


def _trainer(out, editor=None, **changes) -> MSCKETrainer:
    records = tiny_records()
    return MSCKETrainer(editor or tiny_mscke(), records[:4], records[4:], hparams(**changes), out)


def _weights(trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for m in trainer.modules.values() for p in m.parameters()]


def test_the_loss_is_binary_cross_entropy_on_in_and_out_pairs_eq_9_to_11():
    scope, records = tiny_scope_and_records()
    drawn = draw(records, 1)
    losses, routed = scope_losses(scope, drawn)
    z_e = scope.encode_edits([r.edit for r in records])
    for kind in ("edit", "rephrase", "image_rephrase", "in_scope"):
        rho = _rho(scope, z_e, [r.questions()[kind][0] for r in records])
        assert losses[kind].item() == pytest.approx(-rho.log().mean().item(), rel=1e-4)
        assert routed[kind] == (rho >= 0.5).tolist()
    for kind in ("out_scope", "text_loc", "image_loc"):
        rho = _rho(scope, z_e, [r.questions()[kind][0] for r in records])
        assert losses[kind].item() == pytest.approx(-(1 - rho).log().mean().item(), rel=1e-4)
        assert routed[kind] == (rho < 0.5).tolist()
    weights = hparams(cls_loss=2.0, igen_loss=3.0, iloc_loss=5.0, batch_negatives=7.0)
    by_hand = sum(
        {"in_scope": 3.0, "out_scope": 5.0, "batch_negatives": 7.0}.get(k, 2.0) * v
        for k, v in losses.items()
    )
    assert scope_total(losses, weights).item() == pytest.approx(by_hand.item())


def tiny_scope_and_records():
    return tiny_mscke().scope, tiny_records(3)


def _rho(scope, z_e, questions):
    return scope.similarity(scope.encode_queries(questions), z_e).diagonal()


def test_pairs_across_records_are_negatives_unless_they_share_the_image():
    scope, records = tiny_scope_and_records()
    losses, _ = scope_losses(scope, draw(records, 1))
    assert losses["batch_negatives"] > 0
    twice = draw([records[0], records[0]], 1)
    twice.queries = [a for a in twice.queries if a.kind == "in_scope"]
    assert "batch_negatives" not in scope_losses(scope, twice)[0]


def test_questions_are_sampled_with_a_seed_and_fixed_in_validation():
    records = tiny_records(4)
    first = [a.question for a in draw(records, 1).queries if a.kind == "in_scope"]
    assert first == [r.in_scope[0] for r in records]
    seeds = [draw(records, 1, random.Random(s)).queries for s in range(6)]
    assert draw(records, 1, random.Random(3)).queries == seeds[3]
    assert any(s != seeds[0] for s in seeds)
    both = [a for a in draw(records, 2, random.Random(0)).queries if a.kind == "out_scope"]
    assert len(both) == 8 and len({(a.record, a.question.text) for a in both}) == 8


def test_the_counterfactual_model_learns_from_in_scope_questions_only():
    editor, records = tiny_mscke(), tiny_records(2)
    losses, exact = counterfactual_losses(editor.counterfactual, draw(records, 1))
    assert set(losses) == set(exact) == {"edit", "rephrase", "image_rephrase", "in_scope"}


def test_the_image_can_be_hidden_in_training(monkeypatch):
    editor, records = tiny_mscke(), tiny_records(3)
    editor.counterfactual.config.drop_image = 0.5
    seen = []
    rows = editor.counterfactual.rows
    monkeypatch.setattr(
        editor.counterfactual, "rows", lambda *a, **k: seen.append(k["hidden"]) or rows(*a, **k)
    )
    for seed in range(8):
        counterfactual_losses(editor.counterfactual, draw(records, 1), random.Random(seed))
    assert any(seen) and not all(seen)
    seen.clear()
    counterfactual_losses(editor.counterfactual, draw(records, 1))
    assert seen == [False]


@pytest.mark.parametrize("train", ["scope", "counterfactual", "both"])
def test_training_lowers_the_loss_of_the_parts_it_trains_and_leaves_the_rest(tmp_path, train):
    editor = tiny_mscke()
    base = [p.clone() for p in editor.backbone.model.parameters()]
    parts = {
        p: [t.clone() for t in getattr(editor, p).parameters()] for p in ("scope", "counterfactual")
    }
    trainer = _trainer(tmp_path, editor, train=train, max_iters=30, lr=1e-2, val_interval=30)
    before = trainer.validate()["loss/total_val"]
    after = trainer.run()["loss/total_val"]
    assert after < 0.9 * before
    for part, old in parts.items():
        same = all(
            torch.equal(a, b) for a, b in zip(old, getattr(editor, part).parameters(), strict=True)
        )
        assert same == (train not in (part, "both"))
    assert all(
        torch.equal(a, b) for a, b in zip(base, editor.backbone.model.parameters(), strict=True)
    )


def test_a_killed_run_goes_on_at_the_same_place_with_the_same_losses(tmp_path):
    changes = {"max_iters": 9, "warmup": 2, "schedule": "cosine", "log_interval": 3}
    whole = _trainer(tmp_path / "whole", **changes)
    whole.run()

    # Checkpoints are at 2 and 4: step 5 is lost and done again.
    run_until_killed(_trainer(tmp_path / "cut", **changes), steps=5)
    again = _trainer(tmp_path / "cut", **changes)
    torch.manual_seed(12345)  # whatever the process drew before
    again.run()
    assert again.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(_weights(again), _weights(whole), strict=True))
    assert _trainer(tmp_path / "cut", **changes).resume()


def test_dropout_does_not_disturb_resuming(tmp_path):
    runs = []
    for name in ("a", "b"):
        editor = tiny_mscke()
        for module in editor.counterfactual.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.5
        trainer = _trainer(tmp_path / name, editor, max_iters=4, val_interval=4)
        if name == "b":
            for _ in range(2):
                trainer.train_step()
            trainer.save()
            trainer = _trainer(tmp_path / name, editor, max_iters=4, val_interval=4)
            torch.rand(99)
            trainer.resume()
        while trainer.step < 4:
            trainer.train_step()
        runs.append(_weights(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_accumulated_batches_make_one_step(tmp_path):
    trainer = _trainer(tmp_path, accumulate_bs=2, max_iters=4)
    old = _weights(trainer)
    assert "grad" not in trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(old, _weights(trainer), strict=True))
    assert trainer.train_step()["grad"] > 0
    assert not all(torch.equal(a, b) for a, b in zip(old, _weights(trainer), strict=True))


def test_other_settings_do_not_continue_a_run(tmp_path):
    _trainer(tmp_path, max_iters=2).run()
    with pytest.raises(RunError, match="other settings"):
        _trainer(tmp_path, max_iters=2, lr=1e-4).run()
    path = tmp_path / "resume.safetensors"
    path.write_bytes(path.read_bytes()[:64])
    with pytest.raises(RunError, match="damaged"):
        _trainer(tmp_path, max_iters=2).run()


def test_the_best_state_is_kept_and_loaded_at_the_end(tmp_path):
    trainer = _trainer(tmp_path, max_iters=9, val_interval=3, early_stop_patience=100)
    values = iter([3.0, 1.0, 2.0])
    states = []

    def validate():
        states.append(_weights(trainer))
        return {"loss/total_val": next(values, 1.0)}

    trainer.validate = validate
    trainer.run()
    assert trainer.best_step == 6
    assert all(torch.equal(a, b) for a, b in zip(_weights(trainer), states[1], strict=True))
    again = MSCKE.from_pretrained(tmp_path / "best", trainer.editor.backbone)
    assert torch.equal(again.scope.null, trainer.editor.scope.null)


def test_it_stops_early_and_says_which_key_it_lacks(tmp_path):
    trainer = _trainer(tmp_path / "a", max_iters=100, val_interval=2, early_stop_patience=4)
    trainer.validate = lambda: {"loss/total_val": 1.0}
    trainer.run()
    assert trainer.step == 6
    with pytest.raises(ConfigError, match="loss/total_val"):
        _trainer(tmp_path / "b", early_stop_key="loss/totl_val").run()


def test_higher_is_better_for_keys_that_are_no_losses(tmp_path):
    trainer = _trainer(tmp_path, early_stop_key="scope/balanced", max_iters=9)
    values = iter([0.5, 0.9, 0.7])
    trainer.validate = lambda: {"scope/balanced": next(values, 0.0)}
    trainer.run()
    assert trainer.best_step == 6


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    trainer = _trainer(tmp_path)
    trainer.train_step()
    good = _weights(trainer)
    trainer.modules["scope"].null.register_hook(lambda g: g * float("nan"))
    with pytest.raises(TrainingError, match="step 2"):
        trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(good, _weights(trainer), strict=True))


def test_eval_only_and_empty_data(tmp_path):
    trainer = _trainer(tmp_path, eval_only=True)
    old = _weights(trainer)
    metrics = trainer.run()
    assert {"scope/balanced", "cfr/edit", "loss/total_val"} <= set(metrics)
    assert all(torch.equal(a, b) for a, b in zip(old, _weights(trainer), strict=True))
    with pytest.raises(TrainingError, match="no training records"):
        MSCKETrainer(tiny_mscke(), [], [], hparams(), tmp_path)


def test_a_frozen_encoder_stays_as_it_is(tmp_path):
    trainer = _trainer(tmp_path, encoder_lr_scale=0.0, weight_decay=0.1)
    encoder = trainer.editor.scope.encoder
    old = [p.clone() for p in encoder.parameters()]
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(old, encoder.parameters(), strict=True))


def test_base_features_are_computed_once_per_picture(tmp_path, monkeypatch, pictures):
    from dataclasses import replace

    records = [
        replace(
            r, edit=replace(r.edit, image=pictures[i]), rephrase=(), in_scope=(), image_rephrase=()
        )
        for i, r in enumerate(tiny_records(4))
    ]
    editor = tiny_mscke()
    seen = []
    encode = editor.backbone.encode_pixels
    monkeypatch.setattr(
        editor.backbone, "encode_pixels", lambda p: seen.append(len(p)) or encode(p)
    )
    cached = editor.backbone.cached_images
    trainer = MSCKETrainer(
        editor, records, [], hparams(train="counterfactual", max_iters=8), tmp_path
    )
    trainer.run()
    assert sum(seen) == 4
    assert editor.backbone.cached_images == cached


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    code = (
        "import sys, time\n"
        "from easyedit_mm_plugins.core.ownership import own_folder\n"
        "lock = own_folder(sys.argv[1])\n"
        "print('owned', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline().strip() == "owned"
            with pytest.raises(RunError, match=f"in use by process {other.pid}"):
                _trainer(tmp_path, max_iters=1).run()
        finally:
            other.kill()
    assert _trainer(tmp_path, max_iters=1).run()  # the lock ended with its process
