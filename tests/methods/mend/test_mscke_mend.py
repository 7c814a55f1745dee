"""MSCKE-MEND: the classifier routes, MEND answers; and other editors in its place."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, TrainingError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods import Unedited
from easyedit_mm_plugins.methods.mend import (
    MSCKEMEND,
    MendConfig,
    MendCounterfactual,
    MSCKEMENDHyperParams,
    MSCKEMENDTrainer,
    MSCKEMENDTrainingHyperParams,
)
from easyedit_mm_plugins.methods.mscke import MSCKE, CounterfactualConfig
from easyedit_mm_plugins.methods.mscke.by_editor import EditorCounterfactual

from ...conftest import build_tiny, picture
from ...support.mend_tiny import tiny_mend
from ...support.mscke_tiny import tiny_mscke, tiny_records, tiny_scope

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("what shape is the red one", picture(1), "square")
QUERIES = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", picture(1), "left"),
    Question("what is the capital of france", None, "paris"),
]
_MADE = {}


def tiny_mscke_mend(family: str = "llava", threshold: float = 0.5) -> MSCKEMEND:
    mend = tiny_mend(family)
    return MSCKEMEND(mend.backbone, tiny_scope(), MendCounterfactual(mend), threshold)


def shared_editor() -> MSCKEMEND:
    if "one" not in _MADE:
        _MADE["one"] = tiny_mscke_mend("blip2")
    return _MADE["one"]


@pytest.fixture(params=["blip2", "llava", "minigpt4"])
def editor(request):
    return tiny_mscke_mend(request.param)


def test_in_scope_mend_answers_and_out_of_scope_the_base_model(editor):
    base = editor.backbone.generate(QUERIES)
    editor.add([EDIT])
    editor.threshold = 0.0
    alone = tiny_mend(editor.backbone.family)
    alone.add([EDIT])
    inside = editor.generate(QUERIES)
    assert [a.text for a in inside] == [a.text for a in alone.generate(QUERIES)]
    assert [a.route for a in inside] == ["e1"] * 3
    forced, own = editor.force(QUERIES, top_k=3), alone.force(QUERIES, top_k=3)
    assert all(torch.equal(a.top_ids, b.top_ids) for a, b in zip(forced, own, strict=True))
    editor.threshold = 1.0
    outside = editor.generate(QUERIES)
    assert [a.text for a in outside] == base and [a.route for a in outside] == [None] * 3
    for row, logits in zip(
        editor.force(QUERIES), editor.backbone.answer_logits(QUERIES), strict=True
    ):
        assert torch.equal(row.top_ids[:, 0], logits.argmax(-1))


def test_each_row_is_answered_from_the_edit_that_was_found(editor):
    first, second = editor.add([EDIT, OTHER])
    editor.threshold = 0.0
    visible = [[first], [second], [second]]
    logits = editor.counterfactual.answer_logits([EDIT, OTHER, OTHER], QUERIES)
    for i, (query, edit) in enumerate(zip(QUERIES, [EDIT, OTHER, OTHER], strict=True)):
        alone = tiny_mend(editor.backbone.family)
        alone.add([edit])
        (own,) = alone.answer_logits([query])
        torch.testing.assert_close(logits[i], own, atol=1e-4, rtol=1e-4)
    assert [a.route for a in editor.generate(QUERIES, visible=visible)] == [first, second, second]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([EDIT, OTHER]), min_size=1, max_size=4), st.integers(0, 99))
def test_edit_and_undo_leave_every_bit_as_it_was(edits, seed):
    editor = shared_editor()
    mend = editor.counterfactual.editor
    parts = (editor.backbone.model, editor.scope, mend.network)
    tensors = [t for p in parts for t in p.state_dict().values()]
    before = [t.clone() for t in tensors]
    ids = editor.add(edits)
    assert len(mend.edits) == len(edits) == len(editor.edits)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)).tolist()
    for k in order:
        editor.remove([ids[k]])
    assert mend.edits == {} == editor.edits and editor.counterfactual._ids == {}
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))


def test_an_edit_that_fails_is_in_force_nowhere(editor):
    weight = next(iter(editor.counterfactual.editor.modules.values())).weight
    weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        editor.add([EDIT])
    assert editor.edits == {} == editor.counterfactual.editor.edits


def test_edits_that_nobody_prepared_are_made_for_the_call():
    model = tiny_mscke_mend().counterfactual
    answers = model.generate([EDIT, EDIT], QUERIES[:2])
    assert model.editor.edits == {}
    model.prepare([EDIT])
    assert model.generate([EDIT, EDIT], QUERIES[:2]) == answers
    assert len(model.editor.edits) == 1
    model.release([EDIT])
    assert model.generate([], []) == []


def test_memory_is_saved_and_loaded_with_its_changes(tmp_path, editor):
    editor.add([EDIT, OTHER])
    editor.threshold = 0.0
    said = editor.generate(QUERIES)
    editor.save_memory(tmp_path)
    editor.clear()
    editor.add([OTHER])
    editor.load_memory(tmp_path)
    assert editor.generate(QUERIES) == said
    assert len(editor.counterfactual.editor.edits) == 2
    editor.clear()
    assert editor.counterfactual.editor.edits == {}


def test_saved_whole_or_by_reference_it_says_the_same(tmp_path):
    editor = tiny_mscke_mend("blip2", threshold=0.0)
    editor.add([EDIT])
    said = editor.generate(QUERIES)
    editor.save_pretrained(tmp_path / "whole", half=False)
    editor.scope.save_pretrained(tmp_path / "mscke-x/scope", half=False)
    editor.counterfactual.save_pretrained(tmp_path / "mend-x", half=False)
    parts = {"scope": "../mscke-x/scope", "counterfactual": "../mend-x"}
    editor.save_pretrained(tmp_path / "small", parts=parts)
    assert [p.name for p in (tmp_path / "small").iterdir()] == ["config.json"]
    loaded = [
        MSCKEMEND.from_pretrained(tmp_path / name, editor.backbone) for name in ("whole", "small")
    ]
    made = MSCKEMEND.from_parts(
        editor.backbone, tmp_path / "mscke-x/scope", tmp_path / "mend-x", threshold=0.0
    )
    for again in (*loaded, made):
        again.add([EDIT])
        assert again.generate(QUERIES) == said
    with pytest.raises(CheckpointError, match="mscke-mend editor, not mscke"):
        MSCKE.from_pretrained(tmp_path / "whole", editor.backbone)
    with pytest.raises(CheckpointError, match=r"tiny-blip2.*tiny-llava"):
        MSCKEMEND.from_pretrained(tmp_path / "whole", build_tiny("llava"))


def test_any_editor_that_keeps_rows_apart_can_answer(tmp_path):
    inner = tiny_mscke("llava", threshold=0.0)
    editor = MSCKE(inner.backbone, tiny_scope(), EditorCounterfactual(inner), 0.0)
    with editor.edited([EDIT]):
        assert len(inner.edits) == 1
        expected = inner.counterfactual.generate([EDIT] * 3, QUERIES)
        assert [a.text for a in editor.generate(QUERIES)] == expected
        assert [f.route for f in editor.force(QUERIES, top_k=2)] == ["e1"] * 3
    assert inner.edits == {}
    with pytest.raises(ConfigError, match="no logits"):
        editor.counterfactual.answer_logits([EDIT], QUERIES[:1])
    inner.save_pretrained(tmp_path)
    again = EditorCounterfactual.from_pretrained(tmp_path, inner.backbone)
    assert isinstance(again.editor, MSCKE)

    class Mixing(Unedited):
        isolates_rows = False

    with pytest.raises(ConfigError, match="apart"):
        EditorCounterfactual(Mixing(inner.backbone))
    with pytest.raises(ConfigError, match="settings alone"):
        EditorCounterfactual.from_config(inner.backbone, CounterfactualConfig(kind="editor"))


def hparams(**changes) -> MSCKEMENDTrainingHyperParams:
    values = {
        "model_name": "tiny", "lr": 3e-3, "cfr_lr": 1e-2, "lr_lr": 1e-2, "batch_size": 2,
        "max_iters": 4, "val_batch_size": 2, "val_interval": 2, "log_interval": 1,
        "model_save_pt": 2, "cedit": 1.0, "iedit": 1.0,
    }  # fmt: skip
    return MSCKEMENDTrainingHyperParams(**{**values, **changes})


@pytest.mark.parametrize("train", ["scope", "counterfactual", "both"])
def test_its_parts_are_trained_together_or_apart(tmp_path, train):
    editor, records = tiny_mscke_mend(), tiny_records()
    parts = {"scope": editor.scope, "counterfactual": editor.counterfactual.editor.network}
    old = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    settings_ = hparams(train=train)
    trainer = MSCKEMENDTrainer(editor, records[:4], records[4:], settings_, tmp_path)
    final = trainer.run()
    for name, part in parts.items():
        now = part.parameters()
        same = all(torch.equal(a, b) for a, b in zip(old[name], now, strict=True))
        assert same == (train not in (name, "both"))
    assert ("scope/balanced" in final) == (train != "counterfactual")
    assert ("cfr/in_scope" in final) == (train != "scope")
    assert ("cfr/text_loc" in final) == (train != "scope")
    assert "cfr/out_scope" not in final  # the classifier's business, unless iloc says otherwise
    again = MSCKEMENDTrainer(editor, records[:4], records[4:], settings_, tmp_path)
    assert again.resume() and again.step == 4
    loaded = MSCKEMEND.from_pretrained(tmp_path / "best", editor.backbone)
    network = loaded.counterfactual.editor.network
    assert torch.equal(network.edit_lrs, parts["counterfactual"].edit_lrs)


def test_settings():
    ours = MSCKEMENDHyperParams(model_name="x")
    assert ours.counterfactual.kind == "mend" and ours.alg_name == "MSCKE-MEND"
    made = {"kind": "mend", "mend": {"rank": 3}}
    both = (made, CounterfactualConfig(**made))
    for one in both:
        ours = MSCKEMENDHyperParams(model_name="x", counterfactual=one)
        assert ours.counterfactual.mend == MendConfig(rank=3)
    with pytest.raises(ConfigError, match="did you mean rank"):
        MSCKEMENDHyperParams(model_name="x", counterfactual={"kind": "mend", "mend": {"rnak": 3}})
    with pytest.raises(ConfigError, match="small-lm"):
        hparams(counterfactual={"kind": "small-lm"})
    with pytest.raises(ConfigError, match="lr_lr"):
        hparams(lr_lr=-1)


def test_an_untrained_one_from_settings():
    saved = tiny_mscke("blip2")
    config = CounterfactualConfig(kind="mend", mend={"rank": 2, "inner_params": ["layers.-1.fc2"]})
    model = MendCounterfactual.from_config(saved.backbone, config)
    editor = MSCKEMEND(saved.backbone, saved.scope, model)
    described = editor.describe()["counterfactual"]
    assert described["kind"] == "mend" and described["edits"] == ["layers.1.fc2"]
    assert json.dumps(described)
