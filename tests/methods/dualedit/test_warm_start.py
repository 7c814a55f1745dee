"""Where adapters start: heads at the answer, values that tell answers apart."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.dualedit import AdapterConfig, DualEdit, DualEditConfig
from easyedit_mm_plugins.methods.dualedit.adapters import new_adapter
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import draw, losses
from easyedit_mm_plugins.methods.dualedit.warm_start import start_at_answers

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import mixed_questions, tiny_dualedit
from .test_training import tiny_records

COLORS = ("red", "green", "blue", "top left")


@pytest.fixture(scope="module")
def started():
    backbone = build_tiny("llava")
    torch.manual_seed(0)
    config = DualEditConfig([AdapterConfig(0, "text", "released", 32, 2)])
    editor = DualEdit(backbone, config)
    words = ("circle", "square", "star", "triangle")
    records = [
        EditRecord(
            str(i),
            Question(f"what color is the {words[i % 4]}?", picture(i % 5), COLORS[i // 4 % 4]),
        )
        for i in range(80)
    ]
    store = FrozenStates(editor, 2**24)
    edits = store.get(draw(records))
    share = start_at_answers(editor.adapters[0], config.adapters[0], edits, steps=1000)
    assert share > 0.6  # of the attention, on one token of dozens
    return editor, records, edits


def test_the_answer_can_be_read_off_what_the_attention_gives(started):
    editor, _, edits = started
    adapter, outcomes = editor.adapters[0], []
    with torch.no_grad():
        for e in edits:
            states = e.states[0][None]
            memory = adapter.memory(states)
            mask = torch.ones(states.shape[:2], dtype=torch.bool)
            outcomes.append(adapter.mix(states[:, e.end : e.end + 1], *memory, mask)[0, 0])
    names = [e.answer[0] for e in edits]
    outcomes = torch.stack(outcomes)
    means = {n: outcomes[[m == n for m in names]].mean(0) for n in set(names)}
    right = [
        min(means, key=lambda n: float((row - means[n]).norm())) == name
        for row, name in zip(outcomes, names, strict=True)
    ]
    assert sum(right) / len(right) > 0.85
    assert 2 < outcomes.std() < 12  # of the size of tokens, not of a hundredth


def test_a_visual_adapter_starts_from_image_tokens(started):
    editor, _, edits = started
    config = AdapterConfig(0, "visual", "visedit", 32, 2)
    torch.manual_seed(0)
    adapter = new_adapter(config, editor.backbone.hidden_size)
    before = {n: p.clone() for n, p in adapter.named_parameters()}
    assert start_at_answers(adapter, config, edits, steps=300) > 0.25  # an even share is below 0.1
    changed = {n for n, p in adapter.named_parameters() if not torch.equal(p, before[n])}
    assert {n.split(".")[0] for n in changed} == {"query", "key", "value"}
    assert not any(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_a_started_adapter_changes_nothing_yet(started):
    editor, records, _ = started
    questions = mixed_questions()
    before = editor.generate(questions)
    editor.threshold = -1
    with editor.edited([records[0].edit]):
        assert [a.text for a in editor.generate(questions)] == [a.text for a in before]


def test_the_papers_form_has_no_such_start():
    editor = tiny_dualedit(form="paper")
    with pytest.raises(ConfigError, match="released form"):
        start_at_answers(editor.adapters[0], editor.config.adapters[0], [])


def test_the_token_that_ends_an_answer_is_learnt_and_not_part_of_the_edit():
    editor, asked = tiny_dualedit(), draw(tiny_records(3))
    plain, ended = FrozenStates(editor, 2**22), FrozenStates(editor, 2**22, stop=True)
    for a, b in zip(plain.get(asked), ended.get(asked), strict=True):
        assert b.answer == [*a.answer, editor.backbone.stop_token_id]
        assert len(b.hidden) == len(a.hidden) + 1
        assert torch.allclose(a.gate, b.gate, atol=1e-5)
        for layer, states in a.states.items():
            assert torch.allclose(states, b.states[layer], atol=1e-5)
    with torch.no_grad():
        short, _ = losses(editor, plain, asked)
        long, _ = losses(editor, ended, asked)
    assert all(long[kind] >= short[kind] - 1e-5 for kind in short)
    assert long["edit"] > short["edit"]
