"""Learning the adapters: eq. 5 and appendix A, in one forward, on cached lower layers."""

from __future__ import annotations

import random

import pytest
import torch

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import DataError, RunError, TrainingError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.dualedit import (
    DualEdit,
    DualEditTrainer,
    GateConfig,
    calibrate,
    packing,
)
from easyedit_mm_plugins.methods.dualedit.calibration import best_threshold, roc_area
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import LOC, draw, losses, total

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import hparams, tiny_dualedit
from ...support.mscke_tiny import tiny_records


def _trainer(out, editor=None, n_val: int = 1, **changes) -> DualEditTrainer:
    records = tiny_records()
    cut = len(records) - n_val
    return DualEditTrainer(
        editor or tiny_dualedit(), records[:cut], records[cut:], hparams(**changes), out
    )


def _weights(editor) -> list[torch.Tensor]:
    return [p.detach().clone() for p in editor.adapters.parameters()]


@pytest.mark.parametrize("form", ["paper", "released"])
def test_the_loss_is_eq_5_with_the_terms_of_appendix_a(backbone, form):
    """Against the editor itself: every sample its own full forward, teacher-forced."""
    editor = tiny_dualedit(backbone, form=form, kind="off")
    records = tiny_records(3)
    with torch.no_grad():
        by_kind, right = losses(editor, FrozenStates(editor, 2**20), draw(records))
    assert set(by_kind) == {"edit", "rephrase", "image_rephrase", "image_loc", "text_loc"}
    expected: dict[str, list[float]] = {kind: [] for kind in by_kind}
    for record in records:
        for kind in by_kind:
            question = record.questions()[kind][0]
            with torch.no_grad(), editor.edited([record.edit]):
                base = backbone.answer_logits([question])[0].double().log_softmax(-1)
                batch = backbone.batch([question], with_answers=True)
                with editor._edited(batch, None):
                    moved = answer_logits(backbone.language_model, batch)[0]
            moved = moved.double().log_softmax(-1)
            if kind.endswith("loc"):
                value = (base.exp() * (base - moved)).sum()
                same = bool((base.argmax(-1) == moved.argmax(-1)).all())
            else:
                ids = torch.tensor(backbone.answer_ids(question.answer))
                value = -moved[range(len(ids)), ids].sum()
                same = bool((moved.argmax(-1) == ids).all())
            expected[kind].append(value.item())
            assert right[kind][len(expected[kind]) - 1] == float(same)
    for kind, values in expected.items():
        assert by_kind[kind].item() == pytest.approx(sum(values) / 3, rel=1e-3, abs=1e-5)
    weights = hparams(rel_loss=2.0, gen_loss=3.0, loc_loss=5.0)
    by_hand = 2 * by_kind["edit"] + 3 * (by_kind["rephrase"] + by_kind["image_rephrase"])
    by_hand += 5 * (by_kind["image_loc"] + by_kind["text_loc"])
    assert total(by_kind, weights).item() == pytest.approx(by_hand.item())


def test_gated_training_leaves_closed_rows_alone():
    editor = tiny_dualedit()
    asked = draw(tiny_records(3))
    store = FrozenStates(editor, 2**20)
    with torch.no_grad():
        editor.threshold = 1.0 - 1e-4  # only the edits themselves
        shut, right = losses(editor, store, asked, gated=True)
        assert right["text_loc"] == [1.0] * 3
        # What nothing changes is not compared with the base model, which does not run for it.
        assert all(row.logits is None for a, row in zip(asked, store.get(asked), strict=True)
                   if a.kind in LOC)  # fmt: skip
        everywhere, _ = losses(editor, store, asked)
        editor.threshold = -1
        wide, _ = losses(editor, store, asked, gated=True)
    assert shut["text_loc"].item() == 0
    assert everywhere["text_loc"] > 0.01
    assert shut["edit"].item() == pytest.approx(everywhere["edit"].item(), rel=1e-5)
    for kind, value in everywhere.items():
        assert wide[kind].item() == pytest.approx(value.item(), rel=1e-5)


def test_only_the_adapters_get_gradients(backbone):
    editor = tiny_dualedit(backbone)
    by_kind, _ = losses(editor, FrozenStates(editor, 0), draw(tiny_records(2)))
    sum(by_kind.values()).backward()
    for name, parameter in editor.adapters.named_parameters():
        # A constant on all keys changes no attention.
        assert name.endswith("key.bias") or parameter.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in backbone.model.parameters())


def test_what_lies_below_the_first_edited_layer_runs_once(monkeypatch):
    editor = tiny_dualedit()
    store, asked = FrozenStates(editor, 2**22), draw(tiny_records(3))
    runs = {0: 0, 1: 0}
    for index, layer in enumerate(editor.backbone.decoder.layers):
        layer.register_forward_hook(lambda *a, i=index: runs.update({i: runs[i] + 1}))
    with torch.no_grad():
        first, _ = losses(editor, store, asked)
        # Edits, then the others; above it locality in the base model, then all edited ones at once.
        assert runs == {0: 2, 1: 3}
        again, _ = losses(editor, store, asked)
    assert runs == {0: 2, 1: 4}
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_the_cache_stays_within_its_bound():
    editor, records = tiny_dualedit(), tiny_records(5)
    store = FrozenStates(editor, 2**22)
    everything = store.get(draw(records))
    store.complete(draw(records), everything)
    whole = store.kept.used
    assert whole == sum(row.size for row in everything) > 0
    small = FrozenStates(editor, whole // 3)
    for record in records:
        small.get(draw([record]))
        assert small.kept.used <= small.kept.limit
    assert 0 < len(small.kept) < len(everything)
    none = FrozenStates(editor, 0)
    assert len(none.get(draw(records))) == len(everything)
    assert not none.kept and none.kept.used == 0


def test_questions_are_sampled_with_a_seed_and_fixed_in_validation():
    twice = (Question("where is the star?", picture(1), "left"),) * 2
    record = EditRecord("a", twice[0], rephrase=(twice[0], Question("star?", picture(1), "left")))
    drawn = {draw([record], random.Random(s))[1].question.text for s in range(8)}
    assert drawn == {"star?", "where is the star?"}
    assert draw([record])[1].key == ("a", "rephrase", 0)
    empty = EditRecord("b", twice[0], text_loc=(Question("nq who", None, ""),))
    with pytest.raises(TrainingError, match="record b: a question of kind text_loc"):
        draw([empty])


def test_training_teaches_an_edit_it_has_not_seen(tmp_path):
    """The adapters learn to read an answer out of the edit sample."""
    backbone = build_tiny("llava")
    editor = tiny_dualedit(backbone, kind="off")
    colors = ("red", "green", "blue")
    records = [
        EditRecord(str(i), Question("what color is the circle?", picture(i % 4), colors[i % 3]))
        for i in range(24)
    ]
    trainer = DualEditTrainer(
        editor, records[:18], records[18:],
        hparams(max_iters=300, batch_size=6, lr=5e-3, val_interval=300, model_save_pt=300),
        tmp_path,
    )  # fmt: skip
    before = trainer.validate()
    after = trainer.run()
    assert after["loss/total_val"] < before["loss/total_val"] / 3
    assert after["right/edit"] > 0.8 > 0.5 > before["right/edit"]
    said = []
    for record in records[18:]:
        with editor.edited([record.edit]):
            answer = editor.generate([record.edit], max_new_tokens=1)[0]
        said.append(answer.text == record.edit.answer)
    assert sum(said) / 6 == pytest.approx(after["right/edit"])
    shipped = DualEdit.from_pretrained(tmp_path / "best", backbone)
    assert all(map(torch.equal, _weights(shipped), _weights(editor)))


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(tmp_path):
    whole = _trainer(tmp_path / "whole")
    whole.run()
    killed = _trainer(tmp_path / "killed")
    steps, batch_loss = [], killed.batch_loss

    def dies(records, rng=None):
        steps.append(rng)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return batch_loss(records, rng)

    killed.batch_loss = dies
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = _trainer(tmp_path / "killed", tiny_dualedit(seed=8))
    again.run()
    # Up to rounding: what a killed run had cached is computed again, in other batches.
    for mine, theirs in zip(again.history, whole.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    for mine, theirs in zip(_weights(again.editor), _weights(whole.editor), strict=True):
        assert torch.allclose(mine, theirs, atol=3e-3)  # Adam's lr: rounding decides some signs
    with pytest.raises(RunError, match="other settings"):
        _trainer(tmp_path / "killed", lr=1e-4).run()


def test_accumulated_batches_equal_one_big_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_BLOCK_MASKS", ())  # other lengths of rows, other rounding
    small = _trainer(tmp_path, batch_size=2, accumulate_bs=2, max_iters=2, opt="Adam", save=False)
    big = _trainer(tmp_path, batch_size=4, max_iters=1, opt="Adam", save=False)
    order = [small.records_at(i)[0] for i in range(2)]
    big.records_at = lambda step: ([r for batch in order for r in batch], random.Random(0))
    for trainer, steps in ((small, 2), (big, 1)):
        for _ in range(steps):
            trainer.train_step()
    for a, b in zip(_weights(small.editor), _weights(big.editor), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_training_stops_early_and_keeps_the_smallest_loss(tmp_path):
    trainer = _trainer(tmp_path, lr=0.0, val_interval=1, early_stop_patience=2, max_iters=50)
    trainer.run()
    assert trainer.step == 3 and trainer.best_step == 1
    assert trainer.best == pytest.approx(trainer.validate()["loss/total_val"])


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    editor = tiny_dualedit()
    with torch.no_grad():
        editor.adapters[0].out.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        _trainer(tmp_path, editor).run()
    assert editor.backbone.decoder.layers is editor.backbone.layers
    with pytest.raises(TrainingError, match="no training records"):
        DualEditTrainer(tiny_dualedit(), [], [], hparams(), tmp_path)


# The threshold --------------------------------------------------------------------------------


def test_the_threshold_is_the_middle_of_the_widest_best_interval():
    threshold, accuracy = best_threshold([[0.9, 0.95, 0.7]], [[0.1, 0.4, 0.3]])
    assert threshold == pytest.approx(0.55) and accuracy == 1.0
    threshold, accuracy = best_threshold([[0.9, 0.2]], [[0.1, 0.5, 0.5, 0.5]])
    assert threshold == pytest.approx(0.7) and accuracy == pytest.approx(0.75)
    assert roc_area([0.9, 0.5], [0.1, 0.5]) == pytest.approx(0.875)


def test_no_kind_of_locality_question_may_leak_whatever_the_others_do():
    near, far = [0.6] * 2 + [0.3] * 198, [-0.5] * 9_800
    inside = [[0.5] * 10 + [0.8] * 90]
    # Pooled, 2 of 10,000 would be nothing beside the 10 of 100 that 0.7 keeps shut.
    threshold, _ = best_threshold(inside, [near, far], at_most=0.005)
    assert threshold == pytest.approx(0.7)
    threshold, accuracy = best_threshold(inside, [near, far], at_most=0.01)
    assert threshold == pytest.approx(0.4)
    assert accuracy == pytest.approx((1 + 1 - 0.01 / 2) / 2)


def test_one_question_of_a_few_may_pass_unless_none_may():
    inside, outside = [[0.5] * 50 + [0.8] * 50], [[0.6] + [0.1] * 49]
    assert best_threshold(inside, outside, at_most=0.005)[0] == pytest.approx(0.3)
    assert best_threshold(inside, outside, at_most=0)[0] == pytest.approx(0.7)


def test_calibration_reads_the_gate_as_queries_meet_it():
    editor, records = tiny_dualedit(), tiny_records(3)
    found = calibrate(editor, records)
    assert set(found.scores) == {"edit", "rephrase", "image_rephrase", "image_loc", "text_loc"}
    assert found.scores["edit"] == pytest.approx([1.0] * 3, abs=1e-5)
    for i, record in enumerate(records):
        with editor.edited([record.edit]):
            score = editor.route([record.image_loc[0]])[0].score
        assert found.scores["image_loc"][i] == pytest.approx(score, abs=1e-5)
    released = tiny_dualedit(gate=GateConfig("released", threshold=0.9))
    assert max(calibrate(released, records).scores["edit"]) < 0.99
    with pytest.raises(DataError, match="no question that is in scope"):
        calibrate(editor, [EditRecord("a", records[0].edit)])
