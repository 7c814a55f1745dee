"""Training the two heads on the frozen base model's features."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from easyedit_mm_plugins.methods.mscke_self import MSCKESelfTrainer
from easyedit_mm_plugins.methods.mscke_self.losses import EASY, PAIR, picture_loss, scope_losses

from ...conftest import picture
from ...support.mscke_self_tiny import hparams, tiny_self
from ...support.mscke_tiny import tiny_records


def records(n: int):
    """As MSCKE's, in pairs, with a far redrawing and a near picture each."""
    found = []
    for i, record in enumerate(tiny_records(n)):
        far = replace(record.edit, image=picture(200 + i))
        near = replace(record.edit, image=picture(300 + i), answer="blue")
        found.append(replace(record, image_far=(far,), image_near=(near,), pair=str(i // 2)))
    return found


def trainer(out, editor=None, **changes) -> MSCKESelfTrainer:
    found = records(10)
    return MSCKESelfTrainer(editor or tiny_self(), found[:6], found[6:], hparams(**changes), out)


def test_the_losses_are_cross_entropy_of_pairs_and_infonce_of_pictures(tmp_path):
    run = trainer(tmp_path)
    heads, frozen, drawn = run.editor.scope, run.frozen, run.draw(run.train[:4])
    losses = scope_losses(heads, frozen, drawn)
    keys = heads.scope_keys(frozen.states([*drawn.edits, *(a.question for a in drawn.queries)]))
    edits, asked = keys[: len(drawn.edits)], keys[len(drawn.edits) :]
    for kind, target in (("rephrase", 1.0), ("in_scope", 1.0), ("out_scope", 0.0), (PAIR, 0.0)):
        own = [(i, a.record) for i, a in enumerate(drawn.queries) if a.kind == kind]
        s = torch.stack([heads.probability(asked[i] @ edits[j]) for i, j in own])
        by_hand = F.binary_cross_entropy(s, torch.full_like(s, target))
        assert losses[kind].item() == pytest.approx(by_hand.item(), rel=1e-4)
    assert not {"image_near", "image_loc", "text_loc"} & set(losses)  # the picture key's business
    temperature = heads.log_temperature.exp()
    kinds = {k: [a.question for a in drawn.queries if a.kind == k] for k in
             ("image_rephrase", "image_far", "image_near")}  # fmt: skip
    p = heads.picture_keys(frozen.pictures(drawn.edits))
    again = heads.picture_keys(
        frozen.pictures(
            [a.question for a in drawn.queries if a.kind in kinds and "near" not in a.kind]
        )
    )
    near = heads.picture_keys(frozen.pictures(kinds["image_near"]))
    own = torch.tensor(
        [a.record for a in drawn.queries if a.kind in ("image_rephrase", "image_far")]
    )
    rows = torch.arange(len(own))
    there = F.cross_entropy(temperature * again @ torch.cat([p, near]).T, own)
    twin = (own[:, None] == own) & (rows[:, None] != rows)
    logits = (temperature * p[own] @ again.T).masked_fill(twin, float("-inf"))
    back = F.cross_entropy(torch.cat([logits, temperature * p[own] @ near.T], 1), rows)
    assert picture_loss(heads, frozen, drawn).item() == pytest.approx(
        ((there + back) / 2).item(), rel=1e-4
    )


def test_training_raises_the_share_that_is_routed_right_and_sets_thresholds(tmp_path):
    editor = tiny_self()
    base = [p.clone() for p in editor.backbone.model.parameters()]
    answers = [p.clone() for p in editor.counterfactual.parameters()]
    found = records(10)  # of what it is trained on: random features do not generalise
    run = MSCKESelfTrainer(editor, found, found, hparams(max_iters=100, val_interval=50), tmp_path)
    before = run.validate()["scope/balanced"]
    after = run.run()
    assert after["scope/balanced"] > max(0.9, before)
    assert after["scope/out_scope"] > 0.7 and after["scope/image_rephrase"] > 0.9
    for was, now in ((base, editor.backbone.model), (answers, editor.counterfactual)):
        assert all(torch.equal(a, b) for a, b in zip(was, now.parameters(), strict=True))
    again = type(editor).from_pretrained(run.editor_folder, editor.backbone)
    assert again.threshold == editor.threshold
    assert again.scope.picture_threshold == editor.scope.picture_threshold
    again.add([record.edit for record in found])
    inside = [q for record in found for q in record.in_scope]
    assert sum(a.route is not None for a in again.force(inside)) > 0.8 * len(inside)


def test_the_base_model_is_asked_each_question_once(tmp_path, monkeypatch):
    editor = tiny_self()
    asked = []
    batch = editor.backbone.batch
    monkeypatch.setattr(editor.backbone, "batch", lambda q, **k: asked.extend(q) or batch(q, **k))
    run = trainer(tmp_path, editor, max_iters=12, val_interval=6)
    run.run()
    # Of near pictures it is first only the picture that is looked at.
    near = sum(q.answer == "blue" and q.text == run.train[0].edit.text for q in asked)
    assert len(asked) - len({id(q) for q in asked}) <= near // 2
    small = trainer(tmp_path / "small", max_iters=2, cache_mib=0)
    small.run()  # pictures are computed again


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path):
    whole = trainer(tmp_path / "whole", max_iters=9, log_interval=3, model_save_pt=3)
    whole.run()
    cut = trainer(tmp_path / "cut", max_iters=9, log_interval=3, model_save_pt=3)
    step, n = cut.train_step, []

    def until_killed():
        n.append(1)
        if len(n) == 5:
            raise KeyboardInterrupt
        return step()

    cut.train_step = until_killed
    with pytest.raises(KeyboardInterrupt):
        cut.run()
    again = trainer(tmp_path / "cut", max_iters=9, log_interval=3, model_save_pt=3)
    again.run()
    assert again.history == whole.history


@pytest.mark.parametrize("changes", [{"train": "both"}, {"train": "counterfactual"}])
def test_the_counterfactual_model_can_be_trained_along(tmp_path, changes):
    run = trainer(tmp_path, max_iters=4, val_interval=2, **changes)
    before = [p.clone() for p in run.editor.counterfactual.parameters()]
    found = run.run()
    assert "loss/cfr_val" in found and ("scope/balanced" in found) == (changes["train"] == "both")
    after = run.editor.counterfactual.parameters()
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_bound_to_the_thing_the_scope_head_learns_from_all_kinds(tmp_path):
    run = trainer(tmp_path, tiny_self(binding="thing"))
    drawn = run.draw(run.train, random.Random(0))
    losses = scope_losses(run.editor.scope, run.frozen, drawn)
    assert {"image_near", "image_loc", "text_loc"} <= set(losses)
    run.train_step()
    assert all(p.grad is None for n, p in run.editor.scope.named_parameters() if n[:5] == "place")
    others = [a for a in drawn.queries if a.question not in run.train[a.record].questions()[a.kind]]
    assert {a.kind for a in others} <= {"edit", "in_scope", "out_scope"} and PAIR not in losses


def test_bound_to_the_thing_an_edit_holds_on_other_pictures(tmp_path):
    editor = tiny_self(binding="thing")
    found = records(10)
    MSCKESelfTrainer(editor, found, found, hparams(max_iters=100, val_interval=50), tmp_path).run()
    again = type(editor).from_pretrained(tmp_path / "best", editor.backbone)
    with again.edited([found[0].edit]):
        redrawn, bare = found[0].image_far[0], replace(found[0].edit, image=None)
        assert again.generate([redrawn])[0].route is not None
        assert again.generate([bare])[0].route is None


def test_out_of_scope_questions_that_texts_tell_weigh_as_much_as_hard_ones(tmp_path):
    run = trainer(tmp_path)
    drawn = run.draw(run.train)
    drawn.queries = [
        a._replace(question=replace(a.question, hard=i % 3 == 0))
        for i, a in enumerate(drawn.queries)
    ]
    losses = scope_losses(run.editor.scope, run.frozen, drawn)
    assert {"out_scope", EASY} <= set(losses)
