"""Changes of weights as data: they equal changed weights, row by row, and leave no trace."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.deltas import (
    DeltaEditor,
    Full,
    LowRank,
    applied,
    changed_generate,
    changed_logits,
    combine,
    linear_modules,
)

from ..conftest import build_tiny

FAMILIES = ("blip2", "llava", "minigpt4")
IMAGES = [torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
QUESTIONS = [
    Question("what color is the circle", IMAGES[0], "red"),
    Question("capital of france", None, "paris"),
    Question("where is the star", IMAGES[1], "top left"),
    Question("is the square blue", IMAGES[2], "yes"),
]
CONNECTOR = {"blip2": "connector.projection", "minigpt4": "connector.projection"}


def random_delta(backbone, seed, rank=2):
    """Low-rank in the last layer, a full change in the connector."""
    draw = torch.Generator().manual_seed(seed)
    modules = backbone.linear_modules()
    last = [n for n in modules if n.startswith("layers.1.")][-1]
    name = CONNECTOR.get(backbone.family, "connector.projector.linear_2")
    a, b = modules[last], modules[name]
    return {
        last: LowRank(
            torch.randn(rank, a.in_features, generator=draw),
            torch.randn(rank, a.out_features, generator=draw),
        ),
        name: Full(0.5 * torch.randn(b.out_features, b.in_features, generator=draw)),
    }


def with_weights(backbone, delta):
    """A copy of ``backbone`` whose weights really are changed."""
    changed = copy.deepcopy(backbone)
    for name, part in delta.items():
        weight = part.weight if isinstance(part, Full) else part.up.T @ part.down
        changed.linear_modules()[name].weight.data += weight
    changed.clear_cache()
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_models_with_changed_weights(family):
    backbone = build_tiny(family)
    deltas = [random_delta(backbone, i, rank=i + 1) for i in range(len(QUESTIONS))]
    before = [t.clone() for t in backbone.model.state_dict().values()]
    together = changed_logits(backbone, QUESTIONS, deltas)
    words = changed_generate(backbone, QUESTIONS, deltas, max_new_tokens=4)
    for i, (question, delta) in enumerate(zip(QUESTIONS, deltas, strict=True)):
        alone = with_weights(backbone, delta)
        torch.testing.assert_close(
            together[i], alone.answer_logits([question])[0], atol=1e-4, rtol=1e-4
        )
        assert words[i] == alone.generate([question], max_new_tokens=4)[0]
    after = backbone.model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.sampled_from([None, 0, 1, 2]), min_size=len(QUESTIONS), max_size=len(QUESTIONS)),
)
def test_rows_share_changes_in_any_pattern(family, pattern):
    backbone = build_tiny(family)
    deltas = [random_delta(backbone, 0), random_delta(backbone, 1), random_delta(backbone, 2, 3)]
    last = next(iter(deltas[2]))
    low = deltas[2][last]
    deltas[2][last] = Full(low.up.T @ low.down)  # both kinds for one module
    under = [{} if i is None else deltas[i] for i in pattern]
    together = changed_logits(backbone, QUESTIONS, under)
    for question, delta, row in zip(QUESTIONS, under, together, strict=True):
        (alone,) = changed_logits(backbone, [question], [delta])
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_beams_keep_to_their_rows(family):
    backbone = build_tiny(family)
    deltas = [random_delta(backbone, i) for i in range(2)]
    asked = QUESTIONS[::2]
    beams = changed_generate(backbone, asked, deltas, max_new_tokens=4, num_beams=3)
    for question, delta, said in zip(asked, deltas, beams, strict=True):
        alone = with_weights(backbone, delta)
        assert alone.generate([question], max_new_tokens=4, num_beams=3) == [said]


def test_hooks_go_in_every_exit_path():
    backbone = build_tiny("llava")
    delta = random_delta(backbone, 0)
    with pytest.raises(RuntimeError, match="stop"), applied(backbone.linear_modules(), [delta]):
        raise RuntimeError("stop")
    assert not any(m._forward_hooks for m in backbone.model.modules())


def test_gradients_reach_the_change_and_not_the_model():
    backbone = build_tiny("blip2")
    backbone.model.requires_grad_(False)  # as loading does
    delta = random_delta(backbone, 0)
    leaves = [t.requires_grad_() for part in delta.values() for t in part]
    sum(row.sum() for row in changed_logits(backbone, QUESTIONS, [delta] * 4)).backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in leaves)
    assert not any(p.requires_grad for p in backbone.model.parameters())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=12, unique=True))
def test_combined_changes_are_their_sum(seeds):
    backbone = build_tiny("llava")
    deltas = [random_delta(backbone, seed) for seed in seeds]
    for name, part in combine(deltas).items():
        weights = [d[name] for d in deltas]
        total = sum(w.weight if isinstance(w, Full) else w.up.T @ w.down for w in weights)
        ours = part.weight if isinstance(part, Full) else part.up.T @ part.down
        torch.testing.assert_close(ours, total, atol=1e-4, rtol=1e-4)
        if isinstance(part, LowRank):
            assert part.down.numel() + part.up.numel() <= total.numel()


class Fixed(DeltaEditor):
    """Learns a random change that depends on the edit's text alone."""

    name = "fixed"

    def learn(self, edits):
        return [random_delta(self.backbone, len(e.text) + len(e.answer)) for e in edits]


def test_rows_see_their_own_edits_and_nothing_stays():
    backbone = build_tiny("blip2")
    editor = Fixed(backbone)
    plain = backbone.generate(QUESTIONS, max_new_tokens=3)
    with editor.edited([QUESTIONS[0], QUESTIONS[2]]) as (a, b):
        visible = [{a}, {b}, set(), {a, b}]
        mixed = editor.generate(QUESTIONS, visible=visible, max_new_tokens=3)
        forced = editor.force(QUESTIONS, visible=visible, top_k=2)
        for i, ids in enumerate(visible):
            alone = editor.generate([QUESTIONS[i]], visible=[ids], max_new_tokens=3)
            assert alone[0].text == mixed[i].text
            single = editor.force([QUESTIONS[i]], visible=[ids], top_k=2)[0]
            assert torch.equal(single.top_ids, forced[i].top_ids)
        assert mixed[2].text == plain[2]
    assert not editor.edits
    assert [a.text for a in editor.generate(QUESTIONS, max_new_tokens=3)] == plain
    with pytest.raises(KeyError):
        editor.remove(["e1"])


def test_patterns_name_modules():
    backbone = build_tiny("blip2")
    assert set(linear_modules(backbone, ["layers.-1.fc*"])) == {"layers.1.fc1", "layers.1.fc2"}
    assert list(linear_modules(backbone, ["connector.projection"])) == ["connector.projection"]
    with pytest.raises(ConfigError, match=r"layers\.1\.fc2"):
        linear_modules(backbone, ["layers.1.fc3"])


def test_the_connector_is_the_stock_models_own():
    backbone = build_tiny("llava")
    pixels = backbone.pixels(IMAGES)
    config = backbone.model.config
    stock = backbone.model.get_image_features(
        pixel_values=pixels,
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    )
    stock = getattr(stock, "pooler_output", stock)
    stock = torch.stack(list(stock)) if isinstance(stock, (list, tuple)) else stock
    assert torch.equal(backbone.encode_pixels(pixels), stock)
    assert torch.equal(backbone.connect(backbone.vision_states(IMAGES)), stock)


def test_answer_logits_without_changes_are_the_models_own():
    backbone = build_tiny("minigpt4")
    batch = backbone.batch(QUESTIONS, with_answers=True)
    own = answer_logits(backbone.language_model, batch)
    for a, b in zip(own, changed_logits(backbone, QUESTIONS, [{}] * 4), strict=True):
        assert torch.equal(a, b)
