"""`MultimodalEditor` for the plugin's methods, on EasyEdit's real models."""

import logging

import pytest
import torch
from PIL import Image

from easyedit_mm_plugins.bridge.edited import EditedModel
from easyedit_mm_plugins.host.backbones import blip_pixels

from ..support.bridge_helpers import hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]

Q = "Question: {} Short answer:"


@pytest.fixture
def make(registered, blip2_fields, minigpt4_fields):
    def build(name="blip2", alg="PARROT", **changes):
        fields = blip2_fields if name == "blip2" else minigpt4_fields
        return registered.editor_class.from_hparams(hparams_for(fields, alg, **changes))

    return build


@pytest.fixture
def editor(make):
    return make()


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(
        torch.equal(after[k], v) for k, v in before.items()
    )


ONE = {
    "prompts": Q.format("what color is the circle?"),
    "targets": "red",
    "image": "scene0.png",
}
FULL = {
    **ONE,
    "rephrase_prompts": Q.format("please what color is the circle?"),
    "rephrase_image": "scene1.png",
    "locality_inputs": {
        "text": {"prompt": "who wrote the question", "ground_truth": "human"},
        "vision": {"prompt": "how many stars?", "ground_truth": "three", "image": "scene2.png"},
    },
}
SEVERAL = {
    "prompts": ["what color is the circle?", "which shape is in the top left?"],
    "targets": ["red", "small square"],
    "image": ["scene0.png", "scene1.png"],
    "rephrase_prompts": ["please what color is the circle?", "which shape?"],
    "rephrase_image": ["scene1.png", "scene2.png"],
    "locality_inputs": {
        "text": {"prompt": ["who wrote", "what color is the circle?"], "ground_truth": ["a", "b"]},
        "vision": {
            "prompt": ["how many stars?", "what color is the circle?"],
            "ground_truth": ["three", "blue"],
            "image": ["scene2.png", "scene0.png"],
        },
    },
}


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_one_request_with_everything(make, registered, name):
    editor = make(name)
    assert type(editor) is registered.editor_class
    assert editor.alg_name == "PARROT" and editor.model_name == name
    assert editor.apply_algo is registered.edit_algs["PARROT"]
    assert type(editor.model).__module__.startswith("easyeditor.")
    assert editor.tok.pad_token
    before = bits(editor.model)
    all_metrics, edited, weights = editor.edit(**FULL)
    (metrics,) = all_metrics
    assert metrics["case_id"] == 0 and metrics["time"] >= 0 and weights == {}
    assert set(metrics["pre"]) == {"rewrite_acc", "rephrase_acc", "image_rephrase_acc"}
    assert set(metrics["post"]) == {*metrics["pre"], "locality_acc", "multimodal_locality_acc"}
    assert all(value.item() == 1.0 for value in metrics["post"].values())
    assert metrics["pre"]["rewrite_acc"].item() < 1
    assert metrics["protocol"] == "teacher-forced"
    assert metrics["route"] == {
        "edit": 0,
        "rephrase": 0,
        "image_rephrase": 0,
        "text_loc": None,
        "image_loc": None,
    }
    assert metrics["scope_score"]["edit"] == 0.9
    assert isinstance(edited, EditedModel) and isinstance(edited, torch.nn.Module)
    assert same_bits(editor.model, before) and edited.model is editor.model


def test_requests_do_not_leak_into_one_another(editor):
    all_metrics, edited, _ = editor.edit(**SEVERAL)
    assert [m["case_id"] for m in all_metrics] == [0, 1]
    # The second request's locality questions are the first one's edit, long gone by then.
    assert all_metrics[1]["route"] == {
        "edit": 1,
        "rephrase": None,
        "image_rephrase": 1,
        "text_loc": None,
        "image_loc": None,
    }
    assert all_metrics[1]["post"]["locality_acc"].item() == 1.0
    assert [edit.answer for edit in edited.edits.values()] == ["small square"]
    alone, _, _ = editor.edit(**{k: _second(v) for k, v in SEVERAL.items()})
    assert {**alone[0], "time": 0, "case_id": 1, "route": 0, "scope_score": 0} == {
        **all_metrics[1],
        "time": 0,
        "route": 0,
        "scope_score": 0,
    }


def _second(value):
    if isinstance(value, dict):
        return {k: _second(v) for k, v in value.items()}
    return value[1]


def test_sequential_edits_add_up_and_pre_is_the_unedited_model(editor):
    apart, _, _ = editor.edit(**SEVERAL)
    together, edited, _ = editor.edit(**SEVERAL, sequential_edit=True)
    assert together[1]["route"]["text_loc"] == 0 and together[1]["route"]["image_loc"] == 0
    assert len(edited.edits) == 2
    assert [m["pre"] for m in together] == [m["pre"] for m in apart]


def test_edited_models_and_editors_share_nothing(make):
    first, second = make(), make()
    _, red, _ = first.edit(**ONE)
    _, blue, _ = first.edit(**{**ONE, "targets": "blue"})
    question = ONE["prompts"]
    image = f"{first.vis_root}/scene0.png"
    assert red.generate(question, image) == ["red"]
    assert blue.generate(question, image) == ["blue"]
    base = second.backbone.generate(blue.questions(_samples(first, question, image, "x")))
    assert EditedModel(second.editor, []).generate(question, image) == base
    assert second.model is not first.model
    assert blue.undo() is first.model
    assert blue.generate(question, image) == base
    assert red.generate(question, image) == ["red"]
    del red
    assert first.editor.edits == {}, "a forgotten edited model gives its memory back"


def _samples(editor, prompt, image, answer):
    special = getattr(editor.backbone, "special", False)
    return {
        "image": None if image is None else blip_pixels(image)[None],
        "text_input": [f"{prompt} {answer}"],
        "labels": [answer],
        "prompts_len": [len(editor.backbone.token_ids(prompt, special=special))],
    }


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_the_edited_models_forward(make, name):
    editor = make(name)
    _, edited, _ = editor.edit(**ONE)
    scene = f"{editor.vis_root}/scene0.png"
    tail = edited._tail
    rows = [
        _samples(editor, ONE["prompts"], scene, "red"),
        _samples(editor, Q.format("how many stars?"), scene, "two three"),
        _samples(editor, "what color is the circle?", None, "red"),
        _samples(editor, "who wrote the question", None, "human"),
    ]
    for index, samples in enumerate(rows):
        with torch.no_grad():
            base, ours = editor.model(samples), edited(samples)
        assert type(ours) is type(base)
        if index in (1, 3):
            assert torch.equal(ours.logits, base.logits)
            continue
        ids = editor.backbone.answer_ids("red")
        end = ours.logits.shape[1] - tail
        assert ours.logits[0, end - len(ids) - 1 : end - 1].argmax(-1).tolist() == ids
        prompt = slice(0, end - len(ids) - 1)
        assert torch.equal(ours.logits[:, prompt], base.logits[:, prompt])
    mixed = {
        key: torch.cat([r[key] for r in rows[:2]])
        if key == "image"
        else rows[0][key] + rows[1][key]
        for key in rows[0]
    }
    with torch.no_grad():
        base, ours = editor.model(mixed), edited(mixed)
    assert not torch.equal(ours.logits[0], base.logits[0])
    assert torch.equal(ours.logits[1], base.logits[1])
    edited.undo()
    with torch.no_grad():
        assert torch.equal(edited(mixed).logits, base.logits)


def test_a_prompt_alone_gives_the_next_token(editor):
    _, edited, _ = editor.edit(**ONE)
    samples = _samples(editor, ONE["prompts"], f"{editor.vis_root}/scene0.png", "red")
    samples["text_input"] = [ONE["prompts"]]
    out = edited(samples)
    assert int(out.logits[0, -1].argmax()) == editor.backbone.answer_ids("red")[0]


def test_easyedits_own_evaluation_runs_on_it(editor, registered):
    _, edited, _ = editor.edit(**FULL)
    evaluate = registered.module("evaluate").compute_multimodal_edit_results
    image = editor.vis_tok(f"{editor.vis_root}/scene0.png")
    record = {
        "prompt": FULL["prompts"],
        "target": "red",
        "image": image,
        "rephrase_prompt": FULL["rephrase_prompts"],
        "image_rephrase": editor.vis_tok(f"{editor.vis_root}/scene1.png"),
        "locality_prompt": "who wrote the question",
        "locality_ground_truth": "human",
        "multimodal_locality_image": image,
        "multimodal_locality_prompt": Q.format("how many stars?"),
        "multimodal_locality_ground_truth": "three",
    }
    arguments = ("blip2", editor.hparams, editor.tok, record, "cpu")
    after, before = evaluate(edited, *arguments), evaluate(editor.model, *arguments)
    assert {"rewrite_acc", "rephrase_acc", "image_rephrase_acc"} <= set(after)
    for name in ("locality_output", "multimodal_locality_output"):
        assert (torch.as_tensor(after[name]) == torch.as_tensor(before[name])).all()
    if registered.generation == "head":  # the release compares with a target without its space
        assert after["rewrite_acc"].item() == after["rephrase_acc"].item() == 1.0


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_the_table_entry_works_by_itself(make, registered, name):
    editor = make(name)
    apply = registered.edit_algs["PARROT"]
    request = {
        "prompt": ONE["prompts"],
        "target": "red",
        "image": editor.vis_tok(f"{editor.vis_root}/scene0.png"),
    }
    model, weights = apply(
        editor.model,
        editor.tok,
        request,
        editor.hparams,
        copy=False,
        return_orig_weights=True,
        keep_original_weight=False,
        train_ds=None,
    )
    assert weights == {} and model.model is editor.model
    two, _ = apply(
        editor.model, editor.tok, [request, {**request, "target": "blue"}], editor.hparams
    )
    assert len(two.edits) == 2 and len(model.edits) == 1
    copied, _ = apply(editor.model, editor.tok, [request], editor.hparams, copy=True)
    assert copied.model is not editor.model and same_bits(copied.model, bits(editor.model))
    assert copied.generate(ONE["prompts"], f"{editor.vis_root}/scene0.png") == ["red"]


def test_keep_original_weight_takes_the_last_edit_back(editor):
    _, model, _ = editor.edit(**ONE, keep_original_weight=True)
    assert model is editor.model and editor.editor.edits == {}


def test_an_error_in_between_leaves_no_edit_behind(editor, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(editor.editor, "force", fail)
    with pytest.raises(RuntimeError, match="broken"):
        editor.edit(**ONE)
    assert editor.editor.edits == {} and torch.is_grad_enabled()


def test_images_under_their_roots_absolute_or_opened(make, tiny, tmp_path):
    Image.open(f"{tiny.images}/scene1.png").save(tmp_path / "other.png")
    editor = make(rephrase_image=str(tmp_path))
    given = {**ONE, "rephrase_image": "other.png"}
    results = [
        editor.edit(**{**given, "image": image})[0][0]["pre"]
        for image in (
            "scene0.png",
            f"{tiny.images}/scene0.png",
            Image.open(f"{tiny.images}/scene0.png"),
        )
    ]
    assert results[0] == results[1] == results[2]
    text_only, edited, _ = editor.edit(ONE["prompts"], "red", None)
    assert text_only[0]["post"]["rewrite_acc"].item() == 1.0
    assert edited.generate(ONE["prompts"]) == ["red"]


def test_other_protocols_by_name(editor):
    metrics = editor.edit(**FULL, protocol="generated")[0][0]
    assert metrics["protocol"] == "generated" and metrics["post"]["rewrite_acc"].item() == 1.0
    assert editor.edit(**FULL, protocol="released")[0][0]["protocol"] == "released"


def test_a_method_that_cannot_isolate_rows(make, caplog):
    editor = make(alg="CHANGER")
    all_metrics, first, _ = editor.edit(**SEVERAL)
    assert all_metrics[1]["route"]["text_loc"] is None
    with caplog.at_level(logging.WARNING):
        _, second, _ = editor.edit(**ONE)
    assert "undone" in caplog.text and first.edits == {} and len(second.edits) == 1
    assert second.generate(ONE["prompts"], f"{editor.vis_root}/scene0.png") == ["red"]


def test_a_subclass_of_the_host_class_works_too(registered, blip2_fields):
    class Theirs(registered.editor_class):
        def __init__(self, hparams):
            super().__init__(hparams)
            self.extra = 1

        def edit(self, *args, **kwargs):
            return (*super().edit(*args, **kwargs), self.extra)

    result = Theirs.from_hparams(hparams_for(blip2_fields)).edit(**ONE)
    assert result[0][0]["post"]["rewrite_acc"].item() == 1.0 and result[3] == 1


def test_a_pair_of_model_and_tokenizer(registered, editor):
    again = hparams_for(vars(editor.hparams), model_name=(editor.model, editor.tok))
    other = registered.editor_class.from_hparams(again)
    assert other.model is editor.model and other.tok is editor.tok
    assert other.model_name == "blip2" and other.vis_tok(f"{editor.vis_root}/scene0.png").shape == (
        3,
        364,
        364,
    )
    _, edited, _ = other.edit(**ONE)
    assert edited.generate(ONE["prompts"], f"{editor.vis_root}/scene0.png") == ["red"]
    assert editor.editor.edits == {}
