"""KE: the hypernetwork against the paper's formula on whole matrices, the constrained optimisation,
edits one after another, files, bad input."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, TrainingError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.data.records import INSIDE
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.ke import KE, KEConfig, KEHyperParams, KETrainingHyperParams
from easyedit_mm_plugins.methods.ke.training import Constraint, KETrainer, sides
from easyedit_mm_plugins.methods.mend.losses import mend_losses, weighed
from easyedit_mm_plugins.methods.mscke.losses import draw

from ...conftest import build_tiny, picture
from ...support.killing import run_until_killed
from ...support.mscke_tiny import tiny_records
from ...support.undo import edit_and_undo

FAMILIES = ("blip2", "llava", "minigpt4")
SMALL = {"lstm_size": 6, "condition_size": 10, "hidden_size": 8}
EDITS = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", None, "top left"),
    Question("what shape is the red one", picture(1), "square"),
    Question("how many", picture(0), "three two one"),
]
ASKED = [
    Question("what color is the circle?", picture(0), "green"),
    Question("what is the capital of france", None, "paris"),
    Question("is the square blue?", picture(2), "yes"),
]
_EDITORS: dict[str, KE] = {}


def tiny_ke(family: str = "llava", **changes) -> KE:
    """Random weights that change what the model says."""
    backbone = build_tiny(family)
    torch.manual_seed(4)
    editor = KE(backbone, KEConfig(**{**SMALL, **changes}))
    for parameter in editor.network.parameters():
        nn.init.normal_(parameter, std=0.6)
    return editor


def shared(family: str) -> KE:
    """One editor a family for tests that leave it as they found it."""
    if family not in _EDITORS:
        _EDITORS[family] = tiny_ke(family)
    return _EDITORS[family]


def whole(delta):
    """The changes of a delta as matrices."""
    return {name: part.up.T @ part.down for name, part in delta.items()}


def by_the_paper(editor: KE, model, edit: Question) -> dict[str, torch.Tensor]:
    """The change by the paper's formula, from whole gradients of a model's own weights."""
    names, config = editor.config.inner_params, editor.config
    weights = [model.linear_modules()[name].weight.requires_grad_() for name in names]
    (logits,) = model.answer_logits([edit])
    target = torch.tensor(model.answer_ids(edit.answer))
    gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, target), weights)
    ids = [
        *model.token_ids(edit.text, special=False),
        model.stop_token_id,
        *model.answer_ids(edit.answer),
    ]
    with torch.no_grad():
        states, _ = editor.network.lstm(model.embed(torch.tensor(ids))[None])
        size = config.lstm_size  # the last state of each direction
        ends = torch.cat([states[0, -1, :size], states[0, 0, size:]])
        h = torch.tanh(editor.network.condition(ends))
        found = {}
        for name, gradient in zip(names, gradients, strict=True):
            head = editor.network.heads[name.replace(".", "#")]

            def linear(layer, x):
                g, v = (
                    layer.parametrizations.weight.original0,
                    layer.parametrizations.weight.original1,
                )
                return (g * v / v.norm(dim=1, keepdim=True)) @ x + layer.bias

            vector = linear(head.outer, torch.tanh(linear(head.inner, h)))
            n_out, n_in = gradient.shape
            a_row, a_col = vector[:n_out], n_out * vector[n_out : n_out + n_in]
            b_row = vector[n_out + n_in : 2 * n_out + n_in]
            b_col, eta = vector[2 * n_out + n_in : -1], vector[-1]
            scale = torch.outer(a_row.softmax(0), a_col)
            shift = torch.outer(b_row.softmax(0), b_col)
            found[name] = config.max_scale * torch.sigmoid(eta) * (scale * gradient + shift)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_change_is_the_papers_on_whole_matrices(family):
    editor = tiny_ke(family, max_scale=0.7)
    assert all(name.startswith("layers.") for name in editor.modules)
    for edit, delta in zip(EDITS, editor.learn(EDITS), strict=True):
        expected = by_the_paper(editor, copy.deepcopy(editor.backbone), edit)
        assert set(expected) == set(delta) == set(editor.modules)
        for name, matrix in whole(delta).items():
            torch.testing.assert_close(matrix, expected[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_are_made_one_after_another(family):
    editor = tiny_ke(family)
    ids = editor.add(EDITS[:3])
    (together,) = editor.deltas_for(1)
    model = copy.deepcopy(editor.backbone)
    for edit in EDITS[:3]:
        for name, matrix in by_the_paper(editor, model, edit).items():
            model.linear_modules()[name].weight.data += matrix
    before = editor.backbone.linear_modules()
    for name, part in together.items():
        change = part.weight if hasattr(part, "weight") else part.up.T @ part.down
        expected = model.linear_modules()[name].weight - before[name].weight
        torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-3)
    editor.remove(ids[:1])
    rest = editor.answer_logits(ASKED)
    editor.clear()
    editor.add(EDITS[1:3])
    for a, b in zip(rest, editor.answer_logits(ASKED), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=5),
)
def test_a_batch_of_edits_gives_what_a_loop_gives(family, which):
    editor = shared(family)
    edits = [EDITS[i] for i in which]
    for edit, together in zip(edits, editor.learn(edits), strict=True):
        alone = whole(editor.learn([edit])[0])
        for name, matrix in whole(together).items():
            torch.testing.assert_close(matrix, alone[name], atol=1e-4, rtol=1e-3)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_edit_and_undo_leave_every_bit_as_it_was(family, which, draw):
    editor = shared(family)
    tensors = [*editor.backbone.model.state_dict().values(), *editor.network.state_dict().values()]
    edit_and_undo(editor, [EDITS[i] for i in which], ASKED, draw, tensors)


def test_rows_see_their_own_edits():
    editor = tiny_ke("blip2")
    ids = editor.add(EDITS)
    visible = [[ids[0]], [], [ids[2], ids[3]]]
    together = editor.answer_logits(ASKED, visible=visible)
    for question, own, logits in zip(ASKED, visible, together, strict=True):
        (alone,) = editor.answer_logits([question], visible=[own])
        torch.testing.assert_close(alone, logits, atol=1e-4, rtol=1e-4)


def test_an_untrained_network_steps_down_the_gradient():
    backbone = build_tiny("llava")
    before = backbone.answer_logits(EDITS[:1])[0].log_softmax(-1)
    editor = KE(backbone, KEConfig(**SMALL, edit_lr=0.2))
    editor.add(EDITS[:1])
    after = editor.answer_logits(EDITS[:1])[0].log_softmax(-1)
    target = backbone.answer_ids("green")[0]
    assert after[0, target] > before[0, target] + 1e-2


# Training ------------------------------------------------------------------------------------


def hparams(**changes) -> KETrainingHyperParams:
    values = {
        "model_name": "tiny", **SMALL, "edit_lr": 0.05, "lr": 3e-3, "lr_alpha": 0.05, "iedit": 0.5,
        "margin_kl_max": 0.05, "batch_size": 2, "max_iters": 6, "val_batch_size": 2,
        "val_interval": 3, "log_interval": 1, "model_save_pt": 2, "grad_clip": 1.0,
    }  # fmt: skip
    return KETrainingHyperParams(**{**values, **changes})


def trainer(out, family="llava", **changes) -> KETrainer:
    given_, records = hparams(**changes), tiny_records()
    torch.manual_seed(0)
    editor = KE(build_tiny(family), given_.config)
    return KETrainer(editor, records[:4], records[4:], given_, out)


def test_the_lagrangian_by_hand():
    made = trainer(None, iedit=0.5, iloc=3.0)
    records, hp = tiny_records(2), made.hparams
    with torch.no_grad():
        made.constraint.alpha.fill_(2.5)
    total, info = made.batch_loss(records)
    with torch.no_grad():
        by_kind, _ = mend_losses(made.editor, weighed(draw(records, 1), hp))
    weight = {"in_scope": 0.5, "out_scope": 3.0}
    values = {k: float(v) for k, v in by_kind.items()}
    inside = [k for k in values if k in INSIDE]
    nll, kl = (
        sum(weight.get(k, 1.0) * values[k] for k in kinds) / sum(weight.get(k, 1.0) for k in kinds)
        for kinds in (inside, [k for k in values if k not in INSIDE])
    )
    assert float(total.detach()) == pytest.approx(nll + 2.5 * (kl - 0.05), rel=1e-4)
    assert info["loss/kl"] == pytest.approx(kl, rel=1e-4)
    total.backward()
    # the multiplier climbs: its gradient is the negative of (KL - margin)
    assert float(made.constraint.alpha.grad) == pytest.approx(0.05 - kl, rel=1e-4)
    none, _ = sides({"out_scope": torch.tensor(2.0)}, hp)
    assert float(none) == 0


def test_the_multiplier_stays_above_0_and_the_margin_shrinks_when_edits_are_made():
    made = trainer(None, lr_alpha=5.0, margin_kl_max=1e4, margin_kl_min=7e3)
    for _ in range(3):
        made.train_step()
    assert float(made.constraint.alpha.detach()) == 0
    metrics = {"right/both": 0.5, "right/edit": 0.95}
    made._judge(metrics)
    assert float(made.constraint.margin) == pytest.approx(8e3)
    made._judge(metrics | {"right/edit": 0.9})
    assert float(made.constraint.margin) == pytest.approx(8e3)
    made._judge(metrics)
    assert float(made.constraint.margin) == pytest.approx(7e3)
    assert isinstance(made.modules["constraint"], Constraint)


@pytest.mark.parametrize("family", ["blip2", "llava"])
def test_training_makes_edits_and_leaves_the_base_model(tmp_path, family):
    made = trainer(tmp_path, family, max_iters=30, val_interval=30, lr_alpha=0.0)
    base = [t.clone() for t in made.editor.backbone.model.state_dict().values()]
    before = made.validate()["loss/nll"]
    final = made.run()
    assert final["loss/nll"] < 0.95 * before
    assert {"right/edit", "right/inside", "right/outside", "right/both"} <= set(final)
    after = made.editor.backbone.model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(base, after, strict=True))
    again = KE.from_pretrained(tmp_path / "best", made.editor.backbone)
    states = made.editor.network.state_dict(), again.network.state_dict()
    assert all(map(torch.equal, *(s.values() for s in states)))


def test_a_killed_run_goes_on_at_the_same_place_with_the_same_losses(tmp_path):
    straight = trainer(tmp_path / "whole")
    straight.run()

    # Checkpoints are at 2 and 4: step 5 is lost and done again.
    run_until_killed(trainer(tmp_path / "cut"), steps=5)
    again = trainer(tmp_path / "cut")
    again.run()
    assert again.history == straight.history  # alpha among it
    assert torch.equal(again.constraint.margin, straight.constraint.margin)


# Files and bad input -------------------------------------------------------------------------


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_it_says_the_same(tmp_path, half):
    editor = tiny_ke("blip2")
    editor.save_pretrained(tmp_path / "e", half=half)
    again = KE.from_pretrained(tmp_path / "e", editor.backbone)
    for a, b in zip(editor.learn(EDITS), again.learn(EDITS), strict=True):
        for name, part in a.items():
            if not half:
                assert torch.equal(part.up, b[name].up)
            torch.testing.assert_close(part.up, b[name].up, rtol=1e-2, atol=1e-2)
    editor.add(EDITS[:2])
    editor.save_memory(tmp_path / "m")
    logits = editor.answer_logits(ASKED)
    editor.clear()
    editor.load_memory(tmp_path / "m")
    assert all(map(torch.equal, logits, editor.answer_logits(ASKED)))


@pytest.mark.parametrize("damage", ["nothing", "method", "config", "weights", "backbone"])
def test_a_damaged_editor_is_a_clear_error(tmp_path, damage):
    editor = tiny_ke("llava")
    editor.save_pretrained(tmp_path / "e")
    config, weights = tmp_path / "e/config.json", tmp_path / "e/network/model.safetensors"
    if damage == "nothing":
        config.unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif damage != "backbone":
        values = json.loads(config.read_text())
        values[damage] = {"method": "mend", "config": {"lstm": 3}}[damage]
        config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="remedy"):
        base = build_tiny("blip2") if damage == "backbone" else editor.backbone
        KE.from_pretrained(tmp_path / "e", base)


def test_what_cannot_be_used_is_said():
    backbone = build_tiny("blip2")
    with pytest.raises(ConfigError, match=r"layers\.1\.fc2"):
        KE(backbone, KEConfig(inner_params=["layers.1.fc3"]))
    for wrong in ({"lstm_size": 0}, {"max_scale": 0.0}, {"inner_params": []}, {"lr_alpha": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            hparams(**wrong)
    editor = tiny_ke("llava")
    editor.backbone.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"edit 0.*gradient at \S+ is not finite"):
        editor.add(EDITS[:2])
    assert editor.edits == {}
    with pytest.raises(TrainingError, match="no training records"):
        KETrainer(tiny_ke(), [], [], hparams())


def test_it_is_a_method_like_any_other():
    entry = METHODS.get("ke")
    assert entry.easyedit == "KE" and entry.needs_training
    full = KETrainingHyperParams.from_hparams("KE/llava")
    assert (full.max_iters, full.lr, full.lr_alpha, full.margin_kl_max) == (200000, 3e-4, 0.1, 1e-3)
    names = ["opt_model.model.decoder.layers.31.fc1.weight"]
    assert KEHyperParams("blip2", inner_params=names).config.inner_params == ["layers.31.fc1"]
