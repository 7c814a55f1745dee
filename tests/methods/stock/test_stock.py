"""EasyEdit HEAD's own WISE, GRACE and LoRA on tiny models of its families."""

from __future__ import annotations

import copy

import pytest
import torch

from easyedit_mm_plugins.backbones import HFAuto, load_backbone
from easyedit_mm_plugins.core.errors import BackboneError, BridgeError, ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.methods.stock.config import (
    GRACEHyperParams,
    LORAHyperParams,
    WISEHyperParams,
)
from easyedit_mm_plugins.methods.stock.model import GRACE, LORA, WISE

from ...conftest import picture
from ...support import families_tiny

pytest_plugins = ["tests.support.bridge_fixtures"]

EDIT = Question("what color is the circle?", picture(1, 48), "green")
OTHER = Question("where is the star?", picture(2, 64), "top left")
ASKED = [EDIT, OTHER, Question("what is the capital of france?", None, "paris")]
SETTINGS = {
    WISE: WISEHyperParams(model_name="tiny", inner_params=["layers.2.mlp.down_proj"], edit_lr=5.0),
    GRACE: GRACEHyperParams(model_name="tiny", inner_params=["layers.2.mlp.down_proj"]),
    LORA: LORAHyperParams(model_name="tiny", num_steps=20),
}


@pytest.fixture
def head(host):
    """EasyEdit's HEAD."""
    if host.generation != "head":
        pytest.skip("needs a checkout of EasyEdit HEAD: set EASYEDIT_ROOT to it")
    return host


@pytest.fixture(params=["qwen2_vl", "llava_onevision"])
def backbone(request, tmp_path):
    families_tiny.needs(request.param)
    families_tiny.save(request.param, tmp_path)
    return load_backbone(tmp_path)


@pytest.fixture(params=list(SETTINGS), ids=lambda cls: cls.name)
def editor(request, head, backbone):
    """One of the three on a tiny model."""
    return request.param(backbone, SETTINGS[request.param])


def traces(model):
    """What an edit may leave in a model beside its weights."""
    modules = list(model.modules())
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
    return modules, hooks, set(vars(model)), getattr(model.config, "use_cache", None)


def test_an_edit_takes_and_leaves_no_trace(editor):
    backbone, before = editor.backbone, traces(editor.backbone.model)
    weights = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    base = [row.clone() for row in backbone.answer_logits(ASKED)]
    said = backbone.generate(ASKED, max_new_tokens=4)
    (edit_id,) = editor.add([EDIT])
    (forced,) = editor.force([EDIT])
    # A random model has no distance by which WISE finds its edit again.
    assert forced.top_ids[0, 0] == forced.target_ids[0] or editor.name == "wise"
    changed = [f.top_ids for f in editor.force(ASKED[:1], top_k=50)]
    assert not torch.equal(changed[0], base[0].topk(50).indices)
    # Between questions the model is its own.
    assert traces(backbone.model) == before
    assert all(torch.equal(a, b) for a, b in zip(backbone.answer_logits(ASKED), base, strict=True))
    editor.remove([edit_id])
    assert [a.text for a in editor.generate(ASKED, max_new_tokens=4)] == said
    now = backbone.model.state_dict()
    assert list(now) == list(weights)
    assert all(torch.equal(now[name], value) for name, value in weights.items())


def test_batch_equals_loop_and_rows_see_their_own_edits(editor):
    ids = editor.add([EDIT, OTHER])
    together = editor.force(ASKED, top_k=5)
    for question, row in zip(ASKED, together, strict=True):
        assert torch.equal(editor.force([question], top_k=5)[0].top_ids, row.top_ids)
    visible = [[ids[0]], [], ids]
    seen = editor.force([EDIT] * 3, visible=visible, top_k=5)
    assert torch.equal(seen[2].top_ids, together[0].top_ids)
    editor.remove(ids[1:])
    assert torch.equal(editor.force([EDIT], top_k=5)[0].top_ids, seen[0].top_ids)
    editor.clear()
    assert torch.equal(editor.force([EDIT], top_k=5)[0].top_ids, seen[1].top_ids)


def test_edits_one_by_one_are_edits_at_once(editor):
    ids = editor.add([EDIT]) + editor.add([OTHER])
    one_by_one = editor.force(ASKED, top_k=5)
    editor.remove(ids)
    editor.add([EDIT, OTHER])
    for a, b in zip(one_by_one, editor.force(ASKED, top_k=5), strict=True):
        assert torch.equal(a.top_ids, b.top_ids)


def test_taking_back_the_last_edits_makes_no_other_anew(editor, monkeypatch):
    editor.add([EDIT])
    before = editor.force(ASKED, top_k=5)
    last = editor.add([OTHER])
    editor.remove(last)
    monkeypatch.setattr(type(editor), "_edit", None)
    for a, b in zip(before, editor.force(ASKED, top_k=5), strict=True):
        assert torch.equal(a.top_ids, b.top_ids)


def test_logits_are_those_of_easyedits_own_edited_model(editor):
    """Its executor on a copy of the model, asked as it asks: the processor and one forward pass."""
    backbone = editor.backbone
    model, processor = copy.deepcopy(backbone.model), backbone.processor
    request, hparams = editor.request(EDIT), editor.hparams()
    torch.manual_seed(0)
    import numpy as np

    np.random.seed(0)
    with torch.enable_grad():
        edited, restore = editor.host.edit_algs[editor.alg](model, processor, [request], hparams)
    assert callable(restore) or editor.name == "lora"
    model.eval()
    content = [{"type": "image"}, {"type": "text", "text": EDIT.text}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    start = processor.tokenizer.bos_token
    special = {"add_special_tokens": False} if start and text.startswith(start) else {}
    inputs = processor(text=[text + "green"], images=[EDIT.image], return_tensors="pt", **special)
    with torch.no_grad():
        theirs = edited(**inputs).logits[0]
    editor.add([EDIT])
    with editor._edited(tuple(editor.edits)) as swaps, torch.no_grad():
        batch = backbone.batch([EDIT], with_answers=True)
        editor.ask(swaps, int(batch.prompt_end[0]))
        (ours,) = backbone.answer_logits([EDIT])
    torch.testing.assert_close(ours, theirs[-len(ours) - 1 : -1], rtol=1e-4, atol=1e-4)


def test_a_case_of_the_evaluator(editor):
    record = EditRecord("a", EDIT, (EDIT,), (EDIT,), (OTHER,), (ASKED[2],), (), ())
    found = evaluate(editor, [record], "teacher-forced")
    assert len(found.cases) == 1 and not editor.edits
    assert editor.describe()["code"].endswith("of EasyEdit (head)")


def test_what_cannot_be_edited_is_refused(editor, monkeypatch):
    with pytest.raises(DataError, match="has no image"):
        editor.add([ASKED[2]])
    monkeypatch.setitem(editor.host.edit_algs, editor.alg, lambda *_, **__: 1 / 0)
    with pytest.raises(BridgeError, match="ZeroDivisionError"):
        editor.add([EDIT])
    assert not editor.edits


def test_a_model_without_a_chat_template_is_refused(head, tmp_path):
    families_tiny.save("qwen2_vl", tmp_path)
    backbone = load_backbone(tmp_path, template="Look <image> {}")
    with pytest.raises(BackboneError, match="chat template"):
        LORA(backbone, SETTINGS[LORA])


def test_the_release_has_none_of_them(host, tmp_path):
    if host.generation == "head":
        pytest.skip("is about the release")
    model, processor = families_tiny.save("qwen2_vl", tmp_path)
    with pytest.raises(BridgeError, match="has no multimodal WISE") as error:
        WISE(HFAuto("tiny", model, processor))
    assert "EASYEDIT_ROOT" in error.value.remedy


def test_settings_that_could_not_be_undone_are_refused():
    with pytest.raises(ConfigError, match="could not be undone"):
        WISEHyperParams(model_name="tiny", retrieve=False)
    with pytest.raises(ConfigError, match="no multiple"):
        WISEHyperParams(model_name="tiny", merge_freq=700)
