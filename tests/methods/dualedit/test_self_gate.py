"""DualEdit behind MSCKE-Self's scope: who decides, what is edited, undo, batches, files."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.dualedit import (
    DualEdit,
    DualEditHyperParams,
    DualEditTrainer,
    GateConfig,
    calibrate,
)

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import config, hparams, tiny_dualedit
from ...support.mscke_self_tiny import tiny_self
from ...support.mscke_tiny import tiny_records

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("where is the star?", picture(1), "top")
BARE = Question("what is the capital of france", None, "red")
QUERIES = [
    Question("what color is the circle?", EDIT.image, "green"),
    Question("where is the star?", OTHER.image, "left"),
    Question("what is the capital of france", None, "paris"),
    Question("is the circle left or right of the square?", EDIT.image, "no"),
]


def heads(backbone):
    """Heads so sharp that a question means itself alone, and each picture is one of its own."""
    found = tiny_self(backbone, layer=1).scope
    found.picture_threshold = 0.99999
    with torch.no_grad():
        found.log_scale.copy_(torch.tensor(1e5).log())
        found.bias.fill_(-0.9999e5)
    return found


def tiny_gated(family: str = "llava") -> DualEdit:
    """Adapters on layers 0 and 1, heads that read layer 1: above the first edited one."""
    plain = tiny_dualedit(build_tiny(family))
    editor = DualEdit(plain.backbone, config(kind="self"), heads(plain.backbone))
    editor.adapters = plain.adapters
    editor.threshold = 0.9
    return editor


@pytest.fixture(params=["blip2", "minigpt4", "llava"])
def editor(request):
    return tiny_gated(request.param)


def alone(editor: DualEdit, edit: Question, query: Question) -> str:
    """What the adapters answer under one edit without any gate."""
    forced = editor.with_gate("off")
    forced.add([edit])
    return forced.generate([query])[0].text


def test_the_scope_decides_and_the_adapters_answer(editor):
    base = editor.backbone.generate(QUERIES)
    editor.add([EDIT, BARE])
    answers = editor.generate(QUERIES)
    assert [a.route for a in answers] == ["e1", None, "e2", None]
    assert [answers[i].text for i in (1, 3)] == [base[1], base[3]]
    assert answers[0].text == alone(editor, EDIT, QUERIES[0])
    assert answers[2].text == alone(editor, BARE, QUERIES[2])
    forced = editor.force(QUERIES)
    assert [f.route for f in forced] == [a.route for a in answers]
    assert [h.id for h in editor.route(QUERIES[:1] + QUERIES[2:3])] == ["e1", "e2"]


def test_a_shut_gate_is_one_pass_and_gives_the_base_models_bits(editor):
    logits = editor.backbone.answer_logits(QUERIES[1:2])[0]
    editor.add([EDIT])
    runs = []
    handle = editor.backbone.layers[0].register_forward_hook(lambda *_: runs.append(1))
    rows = editor.force(QUERIES[1:2], top_k=3)
    handle.remove()
    assert len(runs) == 1 and torch.equal(rows[0].top_ids, logits.topk(3).indices)
    assert not any(layer._forward_hooks for layer in editor.backbone.layers)


def test_batch_equals_loop_among_many_edits_and_each_row_sees_its_own(editor):
    editor.add([Question("what color is the circle?", picture(i), "red") for i in range(20, 40)])
    editor.add([EDIT, OTHER, BARE])
    together = editor.generate(QUERIES)
    assert [a.route for a in together] == ["e21", "e22", "e23", None]
    for query, answer in zip(QUERIES, together, strict=True):
        (single,) = editor.generate([query])
        assert (single.text, single.route) == (answer.text, answer.route)
    visible = [["e22"], ["e22"], [], ["e23"]]
    assert [a.route for a in editor.generate(QUERIES, visible=visible)] == [None, "e22", None, None]


def test_edit_and_undo_leave_every_bit_as_it_was(editor):
    def state():
        modules = (editor.backbone.model, editor.adapters, editor.scope)
        return [t.clone() for m in modules for t in m.state_dict().values()]

    before, answers = state(), editor.generate(QUERIES)
    with editor.edited([EDIT, OTHER, BARE]):
        editor.generate(QUERIES)
        editor.force(QUERIES)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert editor.generate(QUERIES) == answers and not len(editor.memory.kept)
    assert [a.text for a in answers] == editor.backbone.generate(QUERIES)


def test_the_newest_edit_wins_and_values_that_were_pushed_out_are_made_again():
    editor = tiny_gated()
    (first,) = editor.add([EDIT])
    again = editor.add([EDIT.with_answer("blue")])
    said = editor.generate(QUERIES[:1])
    assert said[0].route == again[0]
    assert editor.generate(QUERIES[:1], visible=[[first]])[0].route == first
    editor.memory.kept.limit = 0
    for sample in editor.store.now.payloads.values():
        editor.memory.kept.drop(sample)
    assert editor.generate(QUERIES[:1]) == said
    editor.remove(again)
    assert editor.generate(QUERIES[:1])[0].route == first


def test_beams_are_decided_by_their_question():
    editor = tiny_gated()
    editor.add([OTHER])
    base = editor.backbone.generate(QUERIES, num_beams=3)
    answers = editor.generate(QUERIES, num_beams=3)
    assert [a.route for a in answers] == [None, "e1", None, None]
    assert [answers[i].text for i in (0, 2, 3)] == [base[i] for i in (0, 2, 3)]


def test_an_editor_and_its_memory_come_back_from_disk_with_the_heads(tmp_path):
    editor = tiny_gated()
    editor.add([EDIT, BARE])
    said = editor.generate(QUERIES)
    editor.save_pretrained(tmp_path / "editor", half=False)
    editor.save_memory(tmp_path / "memory")
    again = DualEdit.from_pretrained(tmp_path / "editor", editor.backbone)
    assert again.describe() == editor.describe() and again.fingerprint() == editor.fingerprint()
    again.load_memory(tmp_path / "memory")
    assert again.generate(QUERIES) == said
    other = editor.with_gate("prompt-end")
    assert other.scope is None and other.fingerprint() != editor.fingerprint()
    with pytest.raises(CheckpointError, match="was made by DualEdit"):
        other.load_memory(tmp_path / "memory")
    (tmp_path / "editor/scope/model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        DualEdit.from_pretrained(tmp_path / "editor", editor.backbone)


def test_settings_say_whose_heads_decide(tmp_path):
    trained = tiny_dualedit()
    trained.save_pretrained(tmp_path / "dualedit", half=False)
    mscke = tiny_self(trained.backbone, 0.37)
    mscke.save_pretrained(tmp_path / "self", half=False)
    gate = GateConfig("self", scope_of=str(tmp_path / "self"))
    settings = DualEditHyperParams(
        model_name="tiny", archive=str(tmp_path / "dualedit"), adapters=trained.config.adapters,
        gate=gate,
    )  # fmt: skip
    editor = DualEdit.from_hparams(settings, trained.backbone)
    assert editor.scope.fingerprint() == mscke.scope.fingerprint() and editor.threshold == 0.37
    assert all(
        torch.equal(a, b)
        for a, b in zip(editor.adapters.parameters(), trained.adapters.parameters(), strict=True)
    )
    higher = settings.replace(gate=GateConfig("self", None, 0.8, str(tmp_path / "self")))
    assert DualEdit.from_hparams(higher, trained.backbone).threshold == 0.8
    with pytest.raises(CheckpointError, match="no trained mscke-self editor is shipped"):
        trained.with_gate("self")
    with pytest.raises(ConfigError, match=r"gate\.layer is not for gate self"):
        config(gate=GateConfig("self", layer=0))
    with pytest.raises(ConfigError, match="gate self is for editing"):
        DualEditTrainer(editor, tiny_records(2), [], hparams(), tmp_path / "run")
    elsewhere = build_tiny("blip2")
    with pytest.raises(CheckpointError, match="was trained for backbone"):
        tiny_dualedit(elsewhere).with_gate("self", scope_of=str(tmp_path / "self"))


def test_it_is_calibrated_on_all_kinds_of_question():
    editor, records = tiny_gated(), tiny_records(5)
    found = calibrate(editor, records, others=4)
    assert {"in_scope", "out_scope", "rephrase"} <= set(found.scores) and found.edits == 5
    editor.calibrate(records, edits=5, at_most=0.0)
    assert editor.scope.picture_threshold <= 0.95 and not editor.edits
    with pytest.raises(ConfigError, match="gate off has no threshold"):
        editor.with_gate("off").calibrate(records)
