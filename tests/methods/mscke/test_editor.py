"""MSCKE as an editor: routing (eq. 3), isolation, undo, files."""

from __future__ import annotations

import json

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, DataError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke import MSCKE, CounterfactualConfig, SmallLM

from ...conftest import build_tiny, picture
from ...support.mscke_tiny import TINY_OPT, tiny_mscke, tiny_scope

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("what shape is the red one", picture(1), "square")
QUERIES = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", picture(1), "left"),
    Question("what is the capital of france", None, "paris"),
]


@pytest.fixture(params=["blip2", "llava"])
def editor(request):
    return tiny_mscke(request.param)


def _state(editor: MSCKE) -> list[torch.Tensor]:
    modules = (editor.backbone.model, editor.scope, editor.counterfactual)
    tensors = [t.clone() for m in modules for t in m.state_dict().values()]
    return [*tensors, editor.store.now.keys.clone()]


def _same(a, b) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_in_scope_the_counterfactual_model_answers_and_out_of_scope_the_base_eq_3(editor):
    base = editor.backbone.generate(QUERIES)
    editor.add([EDIT])
    editor.threshold = 0.0  # everything is in scope
    inside = editor.generate(QUERIES)
    assert [a.route for a in inside] == ["e1"] * 3
    expected = editor.counterfactual.generate([EDIT] * 3, QUERIES)
    assert [a.text for a in inside] == expected
    editor.threshold = 1.0
    outside = editor.generate(QUERIES)
    assert [a.route for a in outside] == [None] * 3
    assert [a.text for a in outside] == base
    assert all(0 <= a.score < 1 for a in outside)


def test_the_threshold_itself_is_in_scope(editor):
    editor.add([EDIT])
    scores = [h.score for h in editor.route(QUERIES)]
    editor.threshold = scores[1]
    routes = [a.route for a in editor.generate(QUERIES)]
    assert routes == ["e1" if s >= scores[1] else None for s in scores]


def test_teacher_forcing_routes_by_the_question_and_never_by_the_answer(editor):
    editor.add([EDIT])
    editor.threshold = 0.0
    forced = editor.force(QUERIES, top_k=3)
    for row, query in zip(forced, QUERIES, strict=True):
        assert row.target_ids == editor.backbone.answer_ids(query.answer)
        assert row.top_ids.shape == (len(row.target_ids), 3)
        assert row.route == "e1"
    logits = editor.counterfactual.answer_logits([EDIT] * 3, QUERIES)
    assert all(
        torch.equal(f.top_ids[:, 0], x.argmax(-1)) for f, x in zip(forced, logits, strict=True)
    )
    other = [q.with_answer("blue") for q in QUERIES]
    assert [f.score for f in editor.force(other)] == [f.score for f in forced]
    editor.threshold = 1.0
    base = editor.backbone.answer_logits(QUERIES)
    for row, expected in zip(editor.force(QUERIES), base, strict=True):
        assert row.route is None
        assert torch.equal(row.top_ids[:, 0], expected.argmax(-1))


def test_without_edits_it_is_the_base_model(editor):
    answers = editor.generate(QUERIES)
    assert [a.text for a in answers] == editor.backbone.generate(QUERIES)
    assert all(a.route is None and a.score is None for a in answers)


def test_edit_and_undo_leave_every_bit_as_it_was(editor):
    before, answers = _state(editor), editor.generate(QUERIES)
    with editor.edited([EDIT, OTHER]) as ids:
        assert list(editor.edits) == ids
        editor.generate(QUERIES)
    assert _same(before, _state(editor))
    assert editor.generate(QUERIES) == answers
    with pytest.raises(RuntimeError), editor.edited([EDIT]):
        raise RuntimeError
    assert _same(before, _state(editor))


def test_a_rows_answer_depends_on_no_other_row_and_no_unseen_edit(editor):
    editor.add([EDIT, OTHER])
    visible = [["e1"], ["e2"], []]
    together = editor.route(QUERIES, visible=visible)
    for i, query in enumerate(QUERIES):
        with_own = tiny_like(editor)
        with_own.add([[EDIT], [OTHER], []][i])
        alone = with_own.route([query])[0]
        assert together[i].score == pytest.approx(alone.score, abs=1e-5)
        assert (together[i].id is None) == (alone.id is None)
    editor.threshold = 0.0
    texts = [a.text for a in editor.generate(QUERIES, visible=visible)]
    ones = [
        editor.generate([q], visible=[v])[0].text for q, v in zip(QUERIES, visible, strict=True)
    ]
    assert texts == ones
    assert editor.generate(QUERIES, visible=visible)[2].route is None


def tiny_like(editor: MSCKE) -> MSCKE:
    return MSCKE(editor.backbone, editor.scope, editor.counterfactual, editor.threshold)


def test_the_counterfactual_model_does_not_depend_on_its_batch(editor):
    edits, model = [EDIT, OTHER, EDIT], editor.counterfactual
    with torch.no_grad():
        together = model.answer_logits(edits, QUERIES)
        alone = [model.answer_logits([e], [q])[0] for e, q in zip(edits, QUERIES, strict=True)]
        loss, exact = model.nll(edits, QUERIES)
        losses = [model.nll([e], [q])[0] for e, q in zip(edits, QUERIES, strict=True)]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(together, alone, strict=True))
    assert torch.allclose(loss, torch.cat(losses), atol=1e-4)
    assert exact.dtype == torch.bool and together[0].shape[1] == editor.backbone.vocab_size


def test_the_counterfactual_row_is_edit_then_image_then_query(editor):
    model, base = editor.counterfactual, editor.backbone
    row, text_row = model.rows([EDIT, EDIT], [QUERIES[0], QUERIES[2]], with_answers=True, stop=True)
    decode = base.tokenizer.decode
    assert decode(row.segments[0]) == "<s> what color is the circle ? green </s>"
    assert row.segments[1].shape == (len(base.image_features([EDIT.image])[0]), 16)
    assert decode(row.segments[2]) == "question : what color is the circle ? short answer :"
    assert row.answer == [*base.answer_ids("green"), 2]
    assert [decode(s) for s in text_row.segments[1:]] == ["what is the capital of france"]


def test_greedy_decoding_gives_what_nll_calls_exact(editor):
    model = editor.counterfactual
    texts = model.generate([EDIT] * 3, QUERIES, max_new_tokens=1)
    asked = [q.with_answer(t) for q, t in zip(QUERIES, texts, strict=True) if t]
    rows = model.answer_logits([EDIT] * len(asked), asked)
    for row, question in zip(rows, asked, strict=True):
        assert row[0].argmax() == editor.backbone.answer_ids(question.answer)[0]


def test_two_editors_on_one_backbone_do_not_meet():
    first = tiny_mscke()
    second = tiny_like(first)
    first.add([EDIT])
    assert second.edits == {}
    assert second.generate(QUERIES)[0].route is None
    assert second.add([OTHER]) == ["e1"]
    first.clear()
    assert list(second.edits.values()) == [OTHER]


def test_each_edit_is_encoded_once_and_queries_cost_no_more(monkeypatch):
    editor = tiny_mscke()
    seen = []
    encode = editor.scope.encode
    monkeypatch.setattr(
        editor.scope,
        "encode",
        lambda texts, images: seen.append(len(texts)) or encode(texts, images),
    )
    editor.add([EDIT] * 20)
    editor.route(QUERIES)
    editor.route(QUERIES[:1])
    assert seen == [20, 3, 1]


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), "half", True, None])
def test_a_threshold_out_of_range_is_refused(value):
    editor = tiny_mscke()
    with pytest.raises(ConfigError, match="threshold"):
        editor.threshold = value
    with pytest.raises(ConfigError, match="0 to 1"):
        MSCKE(editor.backbone, editor.scope, editor.counterfactual, value)


def test_a_bad_edit_is_named_and_nothing_is_added(tmp_path):
    editor = tiny_mscke()
    with pytest.raises(DataError, match=r"edit 1.*target"):
        editor.add([EDIT, EDIT.with_answer(" ")])
    with pytest.raises(DataError, match=r"gone\.png"):
        editor.add([EDIT, Question("q", tmp_path / "gone.png", "a")])
    assert editor.edits == {}


def test_saved_and_loaded_editor_says_the_same(tmp_path, editor):
    editor.add([EDIT])
    editor.save_pretrained(tmp_path / "editor", half=False)
    again = MSCKE.from_pretrained(tmp_path / "editor", editor.backbone)
    again.add([EDIT])
    for threshold in (0.0, 1.0):
        editor.threshold = again.threshold = threshold
        assert again.generate(QUERIES) == editor.generate(QUERIES)
    editor.save_memory(tmp_path / "memory")
    again.load_memory(tmp_path / "memory")
    assert torch.equal(again.store.now.keys, editor.store.now.keys)
    assert list(again.edits) == ["e1"]
    config = json.loads((tmp_path / "editor/config.json").read_text())
    assert config["version"] and config["backbone"]["name"] == editor.backbone.name


def test_half_precision_files_are_half_the_size_and_close(tmp_path):
    editor = tiny_mscke()
    editor.save_pretrained(tmp_path / "half")
    editor.save_pretrained(tmp_path / "full", half=False)
    sizes = [(tmp_path / d / "scope/model.safetensors").stat().st_size for d in ("half", "full")]
    assert sizes[0] < 0.75 * sizes[1]
    again = MSCKE.from_pretrained(tmp_path / "half", editor.backbone)
    for one in (editor, again):
        one.add([EDIT])
    assert again.route(QUERIES)[0].score == pytest.approx(editor.route(QUERIES)[0].score, abs=0.02)


def test_an_editor_for_another_backbone_is_refused_with_both_names(tmp_path):
    tiny_mscke("llava").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"tiny-llava.*tiny-blip2"):
        MSCKE.from_pretrained(tmp_path, build_tiny("blip2"))


@pytest.mark.parametrize(
    "damage", ["nothing", "cut", "method", "format", "threshold", "weights", "nan"]
)
def test_a_damaged_editor_is_a_clear_error(tmp_path, damage):
    editor = tiny_mscke()
    editor.save_pretrained(tmp_path / "e")
    config = tmp_path / "e/config.json"
    weights = tmp_path / "e/counterfactual/model.safetensors"
    if damage == "nothing":
        config.unlink()
    elif damage == "cut":
        config.write_text(config.read_text()[:50])
    elif damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "nan":
        with torch.no_grad():
            editor.counterfactual.vision.bias[0] = float("nan")
        editor.counterfactual.save_pretrained(tmp_path / "e/counterfactual")
    else:
        values = json.loads(config.read_text())
        values[damage] = {"method": "serac", "format": 99, "threshold": 7}[damage]
        config.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"remedy|threshold"):
        MSCKE.from_pretrained(tmp_path / "e", editor.backbone)
    with pytest.raises(CheckpointError, match="not a folder"):
        MSCKE.from_pretrained(tmp_path / "nowhere", editor.backbone)


def test_another_vocabulary_is_refused():
    from easyedit_mm_plugins.core.errors import BackboneError

    with pytest.raises(BackboneError, match="vocab_size"):
        SmallLM.from_config(
            build_tiny("llava"), CounterfactualConfig(lm={**TINY_OPT, "vocab_size": 9})
        )
    with pytest.raises(ConfigError, match="model_type"):
        SmallLM.from_config(build_tiny("llava"), CounterfactualConfig(lm={"model_type": "optt"}))


def test_an_edit_too_long_for_the_counterfactual_model_is_a_data_error():
    editor = tiny_mscke(threshold=0.0)
    editor.add([Question("red " * 120, None, "green")])
    with pytest.raises(DataError, match="96"):
        editor.generate(QUERIES)


def test_another_counterfactual_model_can_be_plugged_in():
    from easyedit_mm_plugins.methods.mscke import Counterfactual

    class Parrot(Counterfactual):
        kind = "parrot"

        def __init__(self):
            self.prepared = []

        def generate(self, edits, queries, *, max_new_tokens=8, **kwargs):
            return [e.answer for e in edits]

        def answer_logits(self, edits, queries):
            raise NotImplementedError

        def prepare(self, edits):
            self.prepared += edits

        def release(self, edits):
            for edit in edits:
                self.prepared.remove(edit)

        def describe(self):
            return {"kind": self.kind}

        def save_pretrained(self, folder, *, half=True):
            raise NotImplementedError

        @classmethod
        def from_pretrained(cls, folder, backbone):
            return cls()

    parrot = Parrot()
    editor = MSCKE(build_tiny("llava"), tiny_scope(), parrot, 0.0)
    with editor.edited([EDIT]):
        assert parrot.prepared == [EDIT]
        assert [a.text for a in editor.generate(QUERIES)] == ["green"] * 3
    assert parrot.prepared == []
    assert editor.describe()["counterfactual"] == {"kind": "parrot"}
