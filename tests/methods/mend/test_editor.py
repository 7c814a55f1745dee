"""MEND as an editor: gradients, changes of weights, isolation, undo, files, bad input."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, TrainingError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mend import GradientTransform, Mend, MendConfig, MendNetwork
from easyedit_mm_plugins.methods.mend.config import canonical

from ...conftest import build_tiny, picture
from ...support.mend_tiny import tiny_mend
from ...support.undo import edit_and_undo

FAMILIES = ("blip2", "llava", "minigpt4")
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
_EDITORS = {}


def shared_editor(family: str) -> Mend:
    """One editor a family for tests that leave it as they found it."""
    if family not in _EDITORS:
        _EDITORS[family] = tiny_mend(family)
    return _EDITORS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_factors_of_a_batch_are_each_edits_own_weight_gradient(family):
    editor = tiny_mend(family)
    found = editor.gradients(EDITS)
    for edit, factors in zip(EDITS, found, strict=True):
        model = copy.deepcopy(editor.backbone)
        modules = {n: model.linear_modules()[n] for n in editor.modules}
        for module in modules.values():
            module.weight.requires_grad_(True)
        embedded = None
        if edit.image is not None:
            embedded = model.connect(model.vision_states([edit.image]))
        batch = model.batch([edit], with_answers=True, embedded=embedded)
        (logits,) = answer_logits(model.language_model, batch)
        torch.nn.functional.cross_entropy(logits, torch.tensor(batch.answers[0])).backward()
        reached = {n for n, m in modules.items() if m.weight.grad is not None}
        assert reached == set(factors)
        for name, part in factors.items():
            torch.testing.assert_close(
                part.delta.T @ part.x, modules[name].weight.grad, atol=1e-5, rtol=1e-4
            )
    assert not any(n.startswith("connector.") for n in found[1])  # it has no image
    assert any(n.startswith("connector.") for n in found[0])


def test_nothing_of_a_gradient_stays_behind():
    editor = tiny_mend("blip2")
    with torch.no_grad():  # as evaluation calls it
        editor.gradients(EDITS)
    model = editor.backbone.model
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=5),
)
def test_a_batch_of_edits_gives_what_a_loop_gives(family, which):
    editor = shared_editor(family)
    edits = [EDITS[i] for i in which]
    for edit, together in zip(edits, editor.learn(edits), strict=True):
        (alone,) = editor.learn([edit])
        assert set(alone) == set(together)
        for name, part in together.items():
            torch.testing.assert_close(
                part.up.T @ part.down, alone[name].up.T @ alone[name].down, atol=1e-4, rtol=1e-3
            )


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_edit_and_undo_leave_every_bit_as_it_was(family, which, draw):
    editor = shared_editor(family)
    tensors = [*editor.backbone.model.state_dict().values(), *editor.network.state_dict().values()]
    edit_and_undo(editor, [EDITS[i] for i in which], ASKED, draw, tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_see_their_own_edits_and_many_stand_together(family):
    editor = tiny_mend(family)
    ids = editor.add(EDITS)
    visible = [[ids[0]], [ids[1]], [ids[2], ids[3]]]
    together = editor.answer_logits(ASKED, visible=visible)
    for question, own, logits in zip(ASKED, visible, together, strict=True):
        alone = tiny_mend(family)
        alone.add([EDITS[ids.index(i)] for i in own])
        torch.testing.assert_close(alone.answer_logits([question])[0], logits, atol=1e-4, rtol=1e-4)
    assert len(editor.edits) == 4
    editor.remove(ids[1:3])
    assert list(editor.edits) == [ids[0], ids[3]]


def test_an_edit_moves_the_model_towards_its_answer():
    """With rates below 0 and neutral statistics an untrained MEND descends along the gradient."""
    backbone = build_tiny("llava")
    editor = Mend(backbone, MendConfig(rank=4, edit_lr=-0.1))
    before = backbone.answer_logits(EDITS[:1])[0].log_softmax(-1)
    editor.add(EDITS[:1])
    after = editor.answer_logits(EDITS[:1])[0].log_softmax(-1)
    target = backbone.answer_ids("green")[0]
    assert after[0, target] > before[0, target] + 1e-4


def test_running_statistics_are_those_of_all_tokens_seen():
    transform = GradientTransform(5, 3, MendConfig(rank=2), 1)
    draw = torch.Generator().manual_seed(1)
    u, v = 3 + 2 * torch.randn(40, 5, generator=draw), 0.1 * torch.randn(40, 3, generator=draw)
    for part in (slice(0, 1), slice(1, 1), slice(1, 8), slice(8, 40)):
        transform.observe(u[part], v[part])
    torch.testing.assert_close(transform.u_mean, u.mean(0))
    torch.testing.assert_close(transform.u_std, u.std(0))
    torch.testing.assert_close(transform.v_std, v.std(0))
    assert transform.k == 40


def test_networks_are_shared_by_shape_and_told_apart_by_module():
    shapes = {"a": (4, 6), "b": (4, 6), "c": (6, 4)}
    network = MendNetwork(shapes, MendConfig(rank=2))
    assert list(network.mend) == ["(4, 6)", "(6, 4)"]  # EasyEdit's names
    assert "mend.(4, 6).mlp.layers.0.mode_scale.weight" in network.state_dict()
    with torch.no_grad():
        network.mend["(4, 6)"].mlp.layers[0].u.fill_(1.0)
        network.mend["(4, 6)"].mlp.layers[0].mode_scale.weight[1] = 3.0
        network.edit_lrs.copy_(torch.tensor([1.0, 1.0, 2.0]))
    x, delta = torch.randn(2, 4), torch.randn(2, 6)
    assert not torch.equal(network("a", x, delta)[1], network("b", x, delta)[1])
    alone = MendNetwork(shapes, MendConfig(rank=2, shared=False))
    assert len(alone.mend) == 3


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_it_says_the_same(tmp_path, half):
    editor = tiny_mend("blip2")
    editor.save_pretrained(tmp_path, half=half)
    again = Mend.from_pretrained(tmp_path, editor.backbone)
    exact = dict(rtol=0, atol=0) if not half else dict(rtol=2e-3, atol=2e-3)
    for a, b in zip(editor.learn(EDITS), again.learn(EDITS), strict=True):
        for name, part in a.items():
            torch.testing.assert_close(part.up, b[name].up, **exact)
    assert list(again.modules) == list(editor.modules)
    for name, buffer in editor.network.named_buffers():  # in full, whatever half says
        assert torch.equal(buffer, dict(again.network.named_buffers())[name])


def test_another_backbones_mend_is_refused_with_both_names(tmp_path):
    tiny_mend("llava").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"tiny-llava.*tiny-blip2"):
        Mend.from_pretrained(tmp_path, build_tiny("blip2"))


@pytest.mark.parametrize("damage", ["nothing", "method", "format", "config", "weights", "nan"])
def test_a_damaged_mend_is_a_clear_error(tmp_path, damage):
    editor = tiny_mend("llava")
    if damage == "nan":
        editor.network.edit_lrs.data[0] = float("nan")
    editor.save_pretrained(tmp_path / "e")
    config, weights = tmp_path / "e/config.json", tmp_path / "e/network/model.safetensors"
    if damage == "nothing":
        config.unlink()
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-50])
    elif damage != "nan":
        values = json.loads(config.read_text())
        values[damage] = {"method": "serac", "format": 9, "config": {"rnak": 3}}[damage]
        config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="remedy"):
        Mend.from_pretrained(tmp_path / "e", editor.backbone)
    with pytest.raises(CheckpointError, match="not a folder"):
        Mend.from_pretrained(tmp_path / "nowhere", editor.backbone)


def test_names_as_easyedit_writes_them():
    assert canonical("opt_model.model.decoder.layers.29.fc1.weight") == "layers.29.fc1"
    assert canonical("llama_model.model.layers.31.mlp.up_proj.weight") == "layers.31.mlp.up_proj"
    assert canonical("opt_proj.weight") == "connector.projection"
    name = "Qformer.bert.encoder.layer.10.output_query.dense.weight"
    assert canonical(name) == "connector.qformer.bert.encoder.layer.10.output_query.dense"
    assert canonical("layers.-1.fc*") == "layers.-1.fc*"


def test_what_is_edited_by_default_and_by_pattern():
    blip2, llava = build_tiny("blip2"), build_tiny("llava")
    assert list(Mend(blip2, MendConfig(rank=2)).modules) == [
        "layers.0.fc1", "layers.0.fc2", "layers.1.fc1", "layers.1.fc2", "connector.projection",
    ]  # fmt: skip
    assert list(Mend(llava, MendConfig(rank=2)).modules)[-1] == "connector.projector.linear_2"
    qformer = ["connector.qformer.encoder.layer.*.output_query.dense", "layers.-1.fc2"]
    editor = Mend(blip2, MendConfig(inner_params=qformer, rank=2, edit_lr=-0.1))
    assert list(editor.modules)[-1] == "layers.1.fc2" and len(editor.modules) == 3
    assert set(editor.learn(EDITS[:1])[0]) == set(editor.modules)


def test_settings_that_cannot_be_used():
    backbone = build_tiny("blip2")
    with pytest.raises(ConfigError, match=r"layers\.1\.fc2"):
        Mend(backbone, MendConfig(inner_params=["layers.1.fc3"]))
    for wrong, message in (
        ({"inner_params": []}, "at least 1 item"),
        ({"inner_params": "fc1"}, "must be a valid list"),
        ({"one_sided": True}, "exclude"),
        ({"combine": False, "x_only": True, "delta_only": True}, "exclude"),
        ({"init": "di"}, "did you mean id"),
        ({"mlp_class": "MLP"}, "IDMLP"),
        ({"rank": 0}, "rank"),
    ):
        with pytest.raises(ConfigError, match=message):
            MendConfig(**wrong)


def test_a_gradient_that_is_not_finite_names_edit_and_module():
    editor = tiny_mend("llava")
    editor.backbone.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"edit 0.*gradient at \S+ is not finite"):
        editor.add(EDITS[:2])
    assert editor.edits == {}
