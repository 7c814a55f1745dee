"""MSCKE-Self as an editor: one pass, isolation, undo, the newest edit, files, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke_self import MSCKESelf, MSCKESelfHyperParams
from easyedit_mm_plugins.methods.newest import Superseded

from ...conftest import picture
from ...support import families_tiny
from ...support.mscke_self_tiny import tiny_self

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("where is the star?", picture(1), "top")
BARE = Question("what is the capital of france", None, "red")
QUERIES = [
    Question("what color is the circle?", EDIT.image, "green"),
    Question("where is the star?", OTHER.image, "left"),
    Question("what is the capital of france", None, "paris"),
    Question("is the circle left or right of the square?", EDIT.image, "no"),
]


@pytest.fixture(params=["blip2", "minigpt4", "llava"])
def editor(request):
    editor = tiny_self(request.param, 0.9)
    editor.scope.picture_threshold = 0.99999
    with torch.no_grad():  # random models say nearly the same of any question: s is made sharp
        editor.scope.log_scale.copy_(torch.tensor(1e5).log())
        editor.scope.bias.fill_(-0.9999e5)
    return editor


def _layers_run(editor, call) -> int:
    runs = []
    handles = [
        layer.register_forward_hook(lambda *_: runs.append(1)) for layer in editor.backbone.layers
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return len(runs)


def test_a_question_of_an_edit_is_in_scope_and_the_rest_is_the_base_models_own(editor):
    base, forced = editor.backbone.generate(QUERIES), editor.backbone.answer_logits(QUERIES)
    editor.add([BARE])
    answers = editor.generate(QUERIES)
    assert [a.route for a in answers] == [None, None, "e1", None]
    assert [a.text for a, q in zip(answers, base, strict=True) if a.route is None] == [
        base[0], base[1], base[3],
    ]  # fmt: skip
    assert answers[2].text == editor.counterfactual.generate([BARE], QUERIES[2:3])[0]
    rows = editor.force(QUERIES, top_k=2)
    for i in (0, 1, 3):  # the very bits: the pass of all rows went on
        assert torch.equal(rows[i].top_ids, forced[i].topk(2).indices)
        assert rows[i].target_ids == editor.backbone.answer_ids(QUERIES[i].answer)
    assert [r.route for r in rows] == [a.route for a in answers]


def test_the_pass_that_answers_is_the_pass_that_decides(editor):
    base = _layers_run(editor, lambda: editor.backbone.generate(QUERIES[:1]))
    editor.add([OTHER])
    assert _layers_run(editor, lambda: editor.generate(QUERIES[:1])) == base
    assert _layers_run(editor, lambda: editor.force(QUERIES[:1])) == len(editor.backbone.layers)
    assert _layers_run(editor, lambda: editor.generate(QUERIES[1:2])) == editor.scope.layer + 1
    assert not any(layer._forward_hooks for layer in editor.backbone.layers)


def test_where_most_rows_are_in_scope_the_others_run_by_themselves(editor):
    editor.add([EDIT, OTHER, BARE])
    answers = editor.generate(QUERIES)
    assert [a.route for a in answers[:3]] == ["e1", "e2", "e3"]
    if answers[3].route is None:
        assert answers[3].text == editor.backbone.generate(QUERIES[3:])[0]
    assert [f.route for f in editor.force(QUERIES)] == [a.route for a in answers]


def test_batch_equals_loop_and_rows_see_their_own_edits(editor):
    editor.add([EDIT, OTHER, BARE])
    together = editor.generate(QUERIES)
    for query, answer in zip(QUERIES, together, strict=True):
        (alone,) = editor.generate([query])
        assert (alone.text, alone.route) == (answer.text, answer.route)
        if answer.score is not None:
            assert alone.score == pytest.approx(answer.score, abs=1e-4)
    visible = [["e2"], ["e2"], [], ["e3"]]
    assert [a.route for a in editor.generate(QUERIES, visible=visible)] == [None, "e2", None, None]
    assert [h.id for h in editor.route(QUERIES[:3])] == ["e1", "e2", "e3"]
    with pytest.raises(ConfigError, match="visible"):
        editor.generate(QUERIES, visible=[[]])


def test_edit_and_undo_leave_every_bit_as_it_was(editor):
    def state():
        modules = (editor.backbone.model, editor.scope, editor.counterfactual)
        return [t.clone() for m in modules for t in m.state_dict().values()]

    before, answers = state(), editor.generate(QUERIES)
    with editor.edited([EDIT, OTHER, BARE]):
        editor.generate(QUERIES)
        editor.force(QUERIES)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    assert editor.generate(QUERIES) == answers and len(editor.store.now.keys) == 0
    assert [a.text for a in answers] == editor.backbone.generate(QUERIES)


def test_beams_are_decided_by_their_question():
    editor = tiny_self(threshold=0.9)
    editor.scope.picture_threshold = 0.99999
    editor.add([OTHER])
    base = editor.backbone.generate(QUERIES, num_beams=3)
    answers = editor.generate(QUERIES, num_beams=3)
    assert [a.route for a in answers] == [None, "e1", None, None]
    assert [answers[i].text for i in (0, 2, 3)] == [base[i] for i in (0, 2, 3)]


def test_many_edits_each_find_their_own_question():
    editor = tiny_self(threshold=0.9)
    editor.scope.picture_threshold = 0.99999
    edits = [Question("what color is the circle?", picture(i), "red") for i in range(40)]
    ids = editor.add(edits)
    editor.remove(ids[5:8])
    found = [a.route for a in editor.force(edits)]
    assert found == [None if 5 <= i < 8 else edit_id for i, edit_id in enumerate(ids)]


def test_the_newest_edit_wins_until_it_is_removed(editor):
    first, other = editor.add([EDIT, OTHER])
    again = editor.add([Question("What color is  the circle?", EDIT.image, "blue")])
    assert editor.superseded(again) == [Superseded(first, again[0], contradicts=True)]
    assert editor.generate(QUERIES[:1])[0].route == again[0]
    assert editor.generate(QUERIES[:1], visible=[[first]])[0].route == first
    third = editor.add([EDIT])
    assert editor.generate(QUERIES[:2])[0].route == third[0]
    editor.remove(again)
    assert editor.superseded() == [Superseded(first, third[0], contradicts=False)]
    editor.remove(third)
    assert editor.superseded() == []
    assert [a.route for a in editor.generate(QUERIES[:2])] == [first, other]


def test_a_question_that_means_an_older_ones_supersedes_it_also_on_disk(tmp_path):
    editor = tiny_self(threshold=0.5)
    editor.scope.picture_threshold, editor.scope.same_threshold = 0.99999, 0.0  # all mean the same
    editor.add([EDIT, OTHER])
    new = editor.add([QUERIES[3]])
    assert editor.superseded(new) == [Superseded("e1", "e3", contradicts=True)]
    editor.save_memory(tmp_path / "memory")
    editor.save_pretrained(tmp_path / "editor", half=False)
    again = MSCKESelf.from_pretrained(tmp_path / "editor", editor.backbone)
    again.load_memory(tmp_path / "memory")
    assert again.superseded() == editor.superseded()
    assert torch.equal(again.store.now.keys, editor.store.now.keys)
    assert [a.route for a in again.generate(QUERIES[:2])] == ["e3", "e2"]
    assert again.describe() == editor.describe() and again.scope.same_threshold == 0.0
    again.remove(["e3"])
    assert again.generate(QUERIES[:1])[0].route == "e1"


def test_settings_make_it_and_a_trained_ones_threshold_stays(tmp_path):
    editor = tiny_self(threshold=0.37)
    editor.save_pretrained(tmp_path)
    settings = MSCKESelfHyperParams(model_name="tiny", archive=str(tmp_path))
    assert MSCKESelf.from_hparams(settings, editor.backbone).threshold == 0.37
    changed = MSCKESelf.from_hparams(settings.replace(threshold=0.6), editor.backbone)
    assert changed.threshold == 0.6
    fresh = settings.replace(archive=None, answers_of=str(tmp_path))
    answers = MSCKESelf.from_hparams(fresh, editor.backbone).counterfactual
    saved = MSCKESelf.from_pretrained(tmp_path, editor.backbone).counterfactual
    assert torch.equal(answers.vision.weight, saved.vision.weight)
    with pytest.raises(ConfigError, match="layers"):
        tiny_self(editor.backbone, layer=2)
    (tmp_path / "scope/model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        MSCKESelf.from_pretrained(tmp_path, editor.backbone)


def test_a_call_sees_the_edits_in_force_when_it_began():
    editor = tiny_self(threshold=0.9)
    editor.scope.picture_threshold = 0.99999
    editor.add([EDIT])
    expected = [(a.text, a.route) for a in editor.generate(QUERIES[1:3])]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            with editor.edited([QUERIES[3], EDIT]):
                pass

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            for _ in range(8):
                found = editor.generate(QUERIES[1:3])
                assert [(a.text, a.route) for a in found] == expected
                assert editor.generate(QUERIES[:1])[0].route is not None
        finally:
            stop.set()
        changing.result()
    assert list(editor.edits) == ["e1"]


def test_ragged_pictures_of_any_family(tmp_path):
    from easyedit_mm_plugins.backbones import HFAuto

    families_tiny.needs("qwen2_vl")
    families_tiny.save("qwen2_vl", tmp_path)
    editor = tiny_self(HFAuto.from_pretrained(tmp_path), 0.9)
    editor.scope.picture_threshold = 0.99999
    wide = Question("what color is the circle?", picture(3).resize((64, 32)), "red")
    base = editor.backbone.generate([wide, *QUERIES])
    editor.add([wide, OTHER])
    answers = editor.generate([wide, *QUERIES])
    assert [a.route for a in answers] == ["e1", None, "e2", None, None]
    assert [answers[i].text for i in (1, 3, 4)] == [base[i] for i in (1, 3, 4)]
    assert [editor.generate([q])[0].route for q in (wide, QUERIES[0])] == ["e1", None]
