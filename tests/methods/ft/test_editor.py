"""Fine-tuning side by side: equal to fine-tuning a real copy alone, and gone without a trace."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import ConfigError, DataError, TrainingError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.deltas import applied, changed_logits, changed_rows
from easyedit_mm_plugins.methods.ft import FTLLM, FTConfig, FTVisual, model

from ...conftest import build_tiny

FAMILIES = ("blip2", "llava", "minigpt4")
METHODS = (FTLLM, FTVisual)
IMAGES = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
EDITS = [
    Question("what color is the circle", IMAGES[0], "red"),
    Question("where is the star", IMAGES[1], "top left"),
    Question("is the square blue", IMAGES[2], "yes"),
    Question("what color is the circle", IMAGES[0], "blue"),
]
OTHERS = [
    Question("what shape is the red one", IMAGES[1], "square"),
    Question("capital of france", None, "paris"),
]


def exact(family):
    """A tiny backbone in float64, so that Adam's normalised steps amplify no rounding."""
    backbone = build_tiny(family)
    backbone.model.double()
    if backbone.language_model not in list(backbone.model.modules()):
        backbone.language_model.double()
    return backbone


@pytest.fixture(scope="module")
def backbones():
    return {family: exact(family) for family in FAMILIES}


def tuned(**changes):
    return FTConfig(**{"edit_lr": 1e-2, "num_steps": 4, "batch_size": 8, **changes})


def count_hooks(backbone):
    modules = backbone.model.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def bits(backbone):
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def same(deltas, others, atol=1e-9):
    for a, b in zip(deltas, others, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name].weight, b[name].weight, rtol=0, atol=atol)


@settings(max_examples=12, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    method=st.sampled_from(METHODS),
    which=st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=4),
    size=st.integers(1, 4),
    limit=st.sampled_from([0.0, 1.5, 3.0]),
)
def test_a_batch_learns_what_a_loop_learns(backbones, family, method, which, size, limit):
    editor = method(backbones[family], tuned(batch_size=size, loss_limit=limit))
    edits = [EDITS[i] for i in which]
    same(editor.learn(edits), [editor.learn([edit])[0] for edit in edits])


def by_torch(backbone, editor, edit, config, steps):
    """The change after fine-tuning a real copy with torch's own optimiser."""
    changed = copy.deepcopy(backbone)
    changed.model.requires_grad_(False)
    modules = {name: changed.linear_modules()[name] for name in editor.modules}
    weights = {name: module.weight.requires_grad_() for name, module in modules.items()}
    optimiser = getattr(torch.optim, config.opt)(
        weights.values(), lr=config.edit_lr, weight_decay=config.weight_decay
    )
    for _ in range(steps):
        embedded = changed.encode_pixels(changed.pixels([edit.image]))
        batch = changed.batch(
            [edit], with_answers=True, with_stop=config.with_stop, embedded=embedded
        )
        (logits,) = answer_logits(changed.language_model, batch)
        loss = nn.functional.cross_entropy(logits, torch.tensor(batch.answers[0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    before = backbone.linear_modules()
    return {name: w.detach() - before[name].weight.detach() for name, w in weights.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "AdamW", "weight_decay": 0.1},
        {"opt": "Adam", "weight_decay": 0.1, "with_stop": False},
    ],
)
def test_each_row_is_torchs_optimiser_on_a_real_copy(backbones, family, method, changes):
    config = tuned(num_steps=5, **changes)
    editor = method(backbones[family], config)
    for edit, delta in zip(EDITS[:2], editor.learn(EDITS[:2]), strict=True):
        expected = by_torch(backbones[family], editor, edit, config, 5)
        assert max(float(e.detach().abs().max()) for e in expected.values()) > 1e-3
        for name, change in delta.items():
            torch.testing.assert_close(change.weight, expected[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_that_is_good_enough_stops_while_others_go_on(backbones, method):
    backbone = backbones["llava"]
    every = [method(backbone, tuned(num_steps=n)).learn(EDITS) for n in range(1, 9)]
    losses = torch.stack([_losses(backbone, deltas) for deltas in every])
    limit = float(losses[3].median())
    stopped = method(backbone, tuned(num_steps=8, loss_limit=limit)).learn(EDITS)
    steps = [next((n for n in range(8) if losses[n, i] < limit), 7) for i in range(len(EDITS))]
    assert len(set(steps)) > 1
    same(stopped, [every[n][i] for i, n in enumerate(steps)])


@torch.no_grad()
def _losses(backbone, deltas):
    batch = changed_rows(backbone, EDITS, deltas, with_answers=True, with_stop=True)
    with applied(backbone.linear_modules(), deltas):
        logits = answer_logits(backbone.language_model, batch)
    answers = [torch.tensor(answer) for answer in batch.answers]
    return torch.stack(list(map(nn.functional.cross_entropy, logits, answers)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_editing_works_and_leaves_no_trace(family, method):
    backbone = build_tiny(family)
    before, asked = bits(backbone), [*EDITS[:2], *OTHERS]
    said = backbone.generate(asked)
    logits = backbone.answer_logits(asked)
    hooks = count_hooks(backbone)  # newer versions of transformers leave some of their own
    editor = method(backbone, tuned(edit_lr=2e-2, num_steps=60, loss_limit=0.01))
    with editor.edited(EDITS[:2]) as (first, second):
        visible = [{first}, {second}, {second}, {first}]
        answers = [a.text for a in editor.generate(asked, visible=visible)]
        assert answers[:2] == ["red", "top left"]
        assert all(
            a.text == b for a, b in zip(editor.generate(asked, visible=[[]] * 4), said, strict=True)
        )
        if method is FTVisual:  # a question without an image is out of its reach
            assert answers[3] == said[3]
    with pytest.raises(KeyboardInterrupt), editor.edited(EDITS[:1]):
        raise KeyboardInterrupt
    after = bits(backbone)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert backbone.generate(asked) == said and not editor.edits
    assert all(map(torch.equal, backbone.answer_logits(asked), logits))
    assert count_hooks(backbone) == hooks


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("first", [0, 1])
def test_the_upper_layers_alone_say_what_the_whole_says(family, first):
    backbone = build_tiny(family)
    editor = FTLLM(backbone, tuned(inner_params=[f"layers.{first}.*"]))
    frozen = editor.prepare(EDITS)
    layers = list(backbone.layers)
    with torch.no_grad():
        whole = answer_logits(
            backbone.language_model, backbone.batch(EDITS, with_answers=True, with_stop=True)
        )
        assert all(map(torch.equal, frozen.logits({}), whole))
        frozen.keep([2, 0])
        assert torch.allclose(frozen.logits({})[0], whole[2], atol=1e-5)
    assert list(backbone.layers) == layers


@pytest.mark.parametrize("method", METHODS)
def test_divergence_names_the_edit_and_the_step(method):
    editor = method(build_tiny("llava"), tuned(edit_lr=1e30))
    with pytest.raises(TrainingError, match=r"edit \d \(.*->.*\): the loss is nan at step \d"):
        editor.add(EDITS[:2])
    assert not editor.edits


@pytest.mark.parametrize(
    ("factor", "message"),
    [(float("nan"), r"gradient is not finite at step 0"), (-1.0, r"rose from .* at step 4")],
)
def test_bad_gradients_are_found(factor, message):
    backbone = build_tiny("llava")
    head = backbone.language_model.get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: _Scaled.apply(out, factor))
    with pytest.raises(TrainingError, match=rf"edit 0 .*{message}"):
        FTLLM(backbone, tuned(edit_lr=0.3)).learn(EDITS[:1])


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, factor):
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError()]
)
def test_memory_that_runs_out_says_which_size_fits_and_keeps_what_is_done(
    monkeypatch, caplog, error
):
    real, sizes = model.fine_tune, []

    def tight(frozen, config, start=0):
        sizes.append(len(frozen.edits))
        if start >= 4 and len(frozen.edits) > 1:
            raise error
        return real(frozen, config, start)

    editor = FTLLM(build_tiny("llava"), tuned(batch_size=4, num_steps=1))
    expected = editor.learn(EDITS * 2)
    monkeypatch.setattr(model, "fine_tune", tight)
    with caplog.at_level(logging.WARNING):
        same(editor.learn(EDITS * 2), expected, atol=1e-5)
    assert sizes == [4, 4, 2, 1, 1, 1, 1]
    assert "the 4 finished are kept, going on with batch_size 1" in caplog.text

    monkeypatch.setattr(model, "fine_tune", _always(error))
    with pytest.raises(TrainingError, match=r"edit 0, alone: .* weights takes about"):
        editor.add(EDITS[:1])


def _always(error):
    def fail(*_):
        raise error

    return fail


def test_other_errors_are_not_taken_for_missing_memory(monkeypatch):
    editor = FTLLM(build_tiny("llava"), tuned())
    monkeypatch.setattr(model, "fine_tune", _always(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        editor.learn(EDITS)


def test_ft_visual_needs_an_image():
    editor = FTVisual(build_tiny("blip2"), tuned())
    with pytest.raises(DataError, match=r"edit 1.*image.*no image"):
        editor.add([EDITS[0], OTHERS[1]])
    assert not editor.edits


def test_each_method_changes_its_own_part_only():
    backbone = build_tiny("blip2")
    with pytest.raises(ConfigError, match=r"connector\.projection is not ft-llm's"):
        FTLLM(backbone, FTConfig(inner_params=["connector.*ion"]))
    with pytest.raises(ConfigError, match=r"layers\.1\.fc1 is not ft-visual's"):
        FTVisual(backbone, FTConfig(inner_params=["layers.-1.fc1"]))
    with pytest.raises(ConfigError, match=r"did you mean layers\.1\.fc2 or layers\.1\.fc1"):
        FTLLM(backbone, FTConfig(inner_params=["layers.1.fc"]))
    assert list(FTLLM(backbone).modules) == ["layers.1.fc1", "layers.1.fc2"]
    visual = FTVisual(backbone)
    assert all(name.startswith("connector.") for name in visual.modules)
    assert visual.describe()["parameters"] == sum(m.weight.numel() for m in visual.modules.values())


def test_parts_that_no_image_passes_are_left_alone():
    backbone = build_tiny("blip2")
    backbone.qformer.add_module("text_branch", nn.Linear(4, 4))
    editor = FTVisual(backbone, tuned(num_steps=1))
    assert "connector.qformer.text_branch" in editor.modules
    (delta,) = editor.learn(EDITS[:1])
    assert delta.keys() == editor.modules.keys() - {"connector.qformer.text_branch"}


def test_forced_answers_are_those_under_the_change(backbones):
    editor = FTLLM(backbones["blip2"], tuned())
    with editor.edited(EDITS[:1]):
        forced = editor.force(EDITS[:1], top_k=2)
        (delta,) = editor.learn(EDITS[:1])
        with torch.no_grad():
            (expected,) = changed_logits(backbones["blip2"], EDITS[:1], [delta])
        assert torch.equal(forced[0].top_ids, expected.topk(2, dim=-1).indices)
