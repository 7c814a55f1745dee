"""VisEdit: the adapter against an independent reference, influence measured and learnt."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.methods import METHODS, load_editor
from easyedit_mm_plugins.methods.dualedit import AdapterConfig, DualEditConfig, GateConfig
from easyedit_mm_plugins.methods.dualedit.adapters import InfluenceAdapter, pad_memory
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import draw
from easyedit_mm_plugins.methods.factory import editor_from_settings
from easyedit_mm_plugins.methods.visedit import (
    VisEdit,
    VisEditHyperParams,
    VisEditTrainer,
    VisEditTrainingHyperParams,
)
from easyedit_mm_plugins.methods.visedit.influence import influence_losses, measured_influence

from ...conftest import build_tiny
from ...support.dualedit_tiny import edit, mixed_questions, tiny_dualedit
from ..dualedit.test_training import tiny_records


def tiny_visedit(backbone=None, width: int = 16) -> VisEdit:
    backbone = backbone or build_tiny("llava")
    torch.manual_seed(5)
    adapters = [AdapterConfig(0, "visual", "visedit", width, 2)]
    editor = VisEdit(backbone, DualEditConfig(adapters, GateConfig("off")))
    for parameter in editor.adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return editor


@pytest.mark.parametrize("width", [6, 16, 40])
def test_the_adapter_scales_the_released_change_with_each_tokens_influence(width):
    torch.manual_seed(0)
    adapter = InfluenceAdapter(16, width, 2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    edits = [torch.randn(5, 16), torch.randn(8, 16)]
    ends, hidden = (3, 2), torch.randn(2, 7, 16)
    with torch.no_grad():
        memory = pad_memory([adapter.memory(s, e) for s, e in zip(edits, ends, strict=True)])
        out = adapter(hidden, *memory)

    def linear(layer, x):
        return x @ layer.weight.T + layer.bias

    def norm(layer, x):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (var + layer.eps).sqrt() * layer.weight + layer.bias

    def mapping(m, x):
        n = norm(m.norm, x)
        return n + linear(m.outer, torch.nn.functional.gelu(linear(m.inner, n)))

    for row, (states, end) in enumerate(zip(edits, ends, strict=True)):
        for t, token in enumerate(hidden[row]):
            q = linear(adapter.query, norm(adapter.norm_h, token)).view(2, -1)
            normal = norm(adapter.norm_e, states)
            k = linear(adapter.key, normal).view(len(states), 2, -1)
            v = linear(adapter.value, normal).view(len(states), 2, -1)
            mixed = []
            for h in range(2):
                weights = (k[:, h] @ q[h] / q.shape[1] ** 0.5).softmax(0)
                mixed.append(weights @ v[:, h])
            change = linear(adapter.out, torch.cat(mixed))
            a, b = mapping(adapter.map_token, token), mapping(adapter.map_end, states[end])
            dots = [(a.view(2, 8)[h] @ b.view(2, 8)[h]) / 8**0.5 for h in range(2)]
            influence = torch.sigmoid(sum(dots) / 2)
            assert torch.allclose(out[row, t], token + influence * change, atol=1e-5)
            assert adapter.influence[row, t].item() == pytest.approx(influence.item(), abs=1e-5)


def test_only_image_tokens_are_edited_and_text_alone_is_left_as_it_is():
    editor = tiny_visedit()
    questions = mixed_questions()
    before = editor.generate(questions)
    ids = editor.add([edit(0)])
    after = editor.generate(questions)
    assert [a.route for a in after] == ["e1"] * 4  # no gate
    assert after[1].text == before[1].text and questions[1].image is None
    moved = [not torch.equal(*_logits(editor, q)) for q in questions]
    assert moved == [True, False, True, True]
    editor.remove(ids)
    assert editor.generate(questions) == before


def _logits(editor, question):
    from easyedit_mm_plugins.backbones.splice import answer_logits

    with torch.no_grad():
        batch = editor.backbone.batch([question], with_answers=True)
        plain = answer_logits(editor.backbone.language_model, batch)[0]
        with editor._edited(batch, None):
            edited = answer_logits(editor.backbone.language_model, batch)[0]
    return plain, edited


def test_measured_influence_is_what_noise_on_one_token_changes():
    editor = tiny_visedit()
    store = FrozenStates(editor, 2**22)
    row = store.get(draw(tiny_records(1)))[0]
    places = row.image.nonzero().flatten()[:3]
    found = measured_influence(editor, row, places, 0.7, plain=store.plain)
    assert found.shape == (3,) and found.max() == 1 and found.min() >= 0
    again = measured_influence(editor, row, places, 0.7, plain=store.plain)
    assert torch.equal(found, again)
    none = measured_influence(editor, row, places, 0.0, plain=store.plain)
    assert none.max() < 0.2  # no noise, no change
    layers = editor.backbone.layers
    assert not any(m._forward_pre_hooks for m in layers.modules())


def test_the_influence_is_pushed_up_on_edits_and_down_on_other_images():
    editor = tiny_visedit()
    store, asked = FrozenStates(editor, 2**22), draw(tiny_records(2))
    row = store.get(asked)[0]
    places = row.image.nonzero().flatten()[:2]
    targets = {0: (places, torch.tensor([1.0, 0.0]))}
    assert set(influence_losses(editor, store, asked, targets)) == {"up", "down", "measured"}
    bias = editor.adapters[0].map_end.norm.bias
    for name in ("up", "down", "measured"):
        before = influence_losses(editor, store, asked, targets)[name]
        step = torch.autograd.grad(before, bias)[0]
        with torch.no_grad():
            bias -= 0.01 * step / step.norm()
            after = influence_losses(editor, store, asked, targets)[name]
        assert after < before


def test_training_learns_and_keeps_an_editor_that_loads(tmp_path):
    backbone = build_tiny("llava")
    editor = tiny_visedit(backbone)
    settings = VisEditTrainingHyperParams(
        model_name="tiny", lr=3e-3, batch_size=2, max_iters=12, val_interval=6, model_save_pt=6,
        adapters=editor.config.adapters, influence_tokens=3,
    )  # fmt: skip
    trainer = VisEditTrainer(editor, tiny_records(6), tiny_records(2), settings, tmp_path)
    trainer.run()
    logged = [h for h in trainer.history if "loss/influence" in h]
    assert logged and logged[-1]["loss/influence"] > 0
    again = load_editor("visedit", backbone, tmp_path / "best")
    assert type(again) is VisEdit and again.describe()["gate"] == "off"
    with pytest.raises(CheckpointError, match="holds a visedit editor, not dualedit"):
        load_editor("dualedit", backbone, tmp_path / "best")
    with pytest.raises(CheckpointError, match="holds a dualedit editor, not visedit"):
        tiny_dualedit(backbone).save_pretrained(tmp_path / "d")
        load_editor("visedit", backbone, tmp_path / "d")


def test_settings_are_visedits_own(caplog):
    settings = VisEditHyperParams(model_name="llava")
    adapter = settings.config.adapters[0]
    assert (adapter.layer, adapter.tokens, adapter.form) == (19, "visual", "visedit")
    assert settings.gate.kind == "off"
    with pytest.raises(ConfigError, match="DualEdit for other adapters"):
        VisEdit(build_tiny("llava"), DualEditConfig([AdapterConfig(0, "text", "released", 16, 2)]))
    with pytest.raises(ConfigError, match="influence_tokens"):
        VisEditTrainingHyperParams(model_name="llava", max_iters=1, influence_tokens=0)
    small = VisEditHyperParams(
        model_name="tiny", adapters=[AdapterConfig(0, "visual", "visedit", 16, 2)]
    )
    made = editor_from_settings(
        METHODS.get("visedit"), small, build_tiny("llava"), untrained="warn"
    )
    assert type(made) is VisEdit
    assert "no trained visedit editor is shipped" in caplog.text


@pytest.mark.parametrize("cls", [VisEditHyperParams, VisEditTrainingHyperParams])
@pytest.mark.parametrize("name", ["blip2", "scenes-llava"])
def test_shipped_settings(cls, name):
    adapter = cls.from_hparams(f"VISEDIT/{name}").adapters[0]
    assert adapter.form == "visedit"
    if not name.startswith("scenes"):
        assert (adapter.layer, adapter.width, adapter.heads) == (19, 1024, 8)
