"""MSCKE-MEND-Self: heads on the base model route, MEND answers; made of trained parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.factory import make_editor
from easyedit_mm_plugins.methods.mend import (
    MSCKEMEND,
    MendCounterfactual,
    MSCKEMENDSelf,
    MSCKEMENDSelfHyperParams,
    MSCKEMENDSelfTrainer,
    MSCKEMENDSelfTrainingHyperParams,
)

from ...conftest import picture
from ...support.mend_tiny import tiny_mend
from ...support.mscke_self_tiny import tiny_self
from ...support.mscke_tiny import tiny_records, tiny_scope

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("what shape is the red one", picture(1), "square")
QUERIES = [EDIT, OTHER, Question("what is the capital of france", None, "paris")]


def tiny_mend_self(family: str = "llava", threshold: float = 0.9) -> MSCKEMENDSelf:
    mend = tiny_mend(family)
    heads = tiny_self(mend.backbone).scope
    heads.picture_threshold = 0.99999
    return MSCKEMENDSelf(mend.backbone, heads, MendCounterfactual(mend), threshold)


@pytest.mark.parametrize("family", ["blip2", "llava", "minigpt4"])
def test_heads_route_and_mend_answers(family):
    editor = tiny_mend_self(family)
    base = editor.backbone.generate(QUERIES)
    tensors = [
        *editor.backbone.model.parameters(),
        *editor.counterfactual.editor.network.parameters(),
    ]
    before = [t.clone() for t in tensors]
    with editor.edited([EDIT, OTHER]):
        answers = editor.generate(QUERIES)
        assert [a.route for a in answers] == ["e1", "e2", None]
        mend = tiny_mend(family)
        for i, edit in enumerate((EDIT, OTHER)):
            with mend.edited([edit]):
                assert answers[i].text == mend.generate(QUERIES[i : i + 1])[0].text
        assert answers[2].text == base[2]
        for query, answer in zip(QUERIES, answers, strict=True):
            (single,) = editor.generate([query])
            assert (single.text, single.route) == (answer.text, answer.route)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
    assert [a.text for a in editor.generate(QUERIES)] == base
    assert editor.counterfactual.editor.edits == {}


def saved_parts(tmp_path, editor):
    """A trained MSCKE-Self and a trained MSCKE-MEND, each in its folder."""
    own = tiny_self(editor.backbone, 0.9)
    own.scope.load_state_dict(editor.scope.state_dict())
    own.scope.picture_threshold = editor.scope.picture_threshold
    own.save_pretrained(tmp_path / "self", half=False)
    mscke = MSCKEMEND(editor.backbone, tiny_scope(), editor.counterfactual)
    mscke.save_pretrained(tmp_path / "mscke-mend", half=False)
    return str(tmp_path / "self"), str(tmp_path / "mscke-mend")


def test_two_trained_editors_make_one_without_training(tmp_path):
    editor = tiny_mend_self()
    backbone = editor.backbone
    heads, answers = saved_parts(tmp_path, editor)
    editor.add([EDIT])
    said = editor.generate(QUERIES)
    settings = MSCKEMENDSelfHyperParams(model_name="tiny", scope_of=heads, answers_of=answers)
    parts = {"scope": "../self/scope", "counterfactual": "../mscke-mend/counterfactual"}
    MSCKEMENDSelf.from_parts(backbone, heads, answers).save_pretrained(
        tmp_path / "made", parts=parts
    )
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["config.json"]
    for made in (
        MSCKEMENDSelf.from_parts(backbone, heads, answers),
        MSCKEMENDSelf.from_hparams(settings, backbone),
        make_editor("mscke-mend-self", backbone, settings=settings),
        make_editor("mscke-mend-self", backbone, folder=tmp_path / "made"),
    ):
        made.add([EDIT])
        assert made.generate(QUERIES) == said
        assert made.scope.picture_threshold == 0.99999
    with pytest.raises(CheckpointError, match="no trained mscke-mend-self"):
        make_editor("mscke-mend-self", backbone, settings=replace(settings, answers_of=None))


def test_memory_is_saved_and_loaded_with_its_changes(tmp_path):
    editor = tiny_mend_self("blip2")
    editor.add([EDIT, OTHER])
    said = editor.generate(QUERIES)
    editor.save_memory(tmp_path)
    editor.clear()
    editor.load_memory(tmp_path)
    assert editor.generate(QUERIES) == said and len(editor.counterfactual.editor.edits) == 2


@pytest.mark.parametrize("part", ["scope", "both"])
def test_the_heads_are_trained_and_mend_with_them_if_asked(tmp_path, part):
    editor = tiny_mend_self()
    settings = MSCKEMENDSelfTrainingHyperParams(
        model_name="tiny", train=part, batch_size=4, max_iters=4, warmup=1, val_interval=2,
        log_interval=2, model_save_pt=2,
    )  # fmt: skip
    network = editor.counterfactual.editor.network
    before = [[p.clone() for p in m.parameters()] for m in (editor.scope, network)]
    records = tiny_records(6)
    run = MSCKEMENDSelfTrainer(editor, records[:4], records[4:], settings, tmp_path)
    assert "scope/balanced" in run.run()
    moved = [
        not all(torch.equal(a, b) for a, b in zip(was, m.parameters(), strict=True))
        for was, m in zip(before, (editor.scope, network), strict=True)
    ]
    assert moved == [True, part == "both"]
    again = METHODS.get("mscke-mend-self").editor_class.from_pretrained(
        run.editor_folder, editor.backbone
    )
    assert again.threshold == editor.threshold
