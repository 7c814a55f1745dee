"""Backbones of the plugin and of third parties through EasyEdit's classes, and MSCKE itself."""

import pytest
import torch

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.methods.mscke import MSCKE, MSCKEHyperParams

from ..conftest import build_tiny
from ..support.bridge_helpers import evqa, hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]


@pytest.fixture
def third_party():
    """A backbone that another package registered."""
    seen = []

    def load(source=None, **kwargs):
        seen.append({"source": source, **kwargs})
        return build_tiny("llava")

    BACKBONES.add(name="their-llava", loader=load)
    yield seen
    BACKBONES.unregister("their-llava")


def test_a_third_partys_backbone(registered, third_party, tiny):
    hparams = hparams_for({"model_name": "their-llava", "device": "cpu"}, coco_image=tiny.images)
    editor = registered.editor_class.from_hparams(hparams)
    assert third_party[0]["source"] is None and third_party[0]["device"].type == "cpu"
    question = "what color is the circle ?"
    metrics, edited, _ = editor.edit(question, "red", "scene0.png")
    assert metrics[0]["post"]["rewrite_acc"].item() == 1.0
    path = f"{tiny.images}/scene0.png"
    assert edited.generate(question, path) == ["red"]
    # EasyEdit's samples work on it too, although the model itself knows no such thing.
    pixels = editor.vis_tok(path)
    assert pixels.shape == (3, 64, 80)
    samples = {
        "image": torch.stack([pixels, pixels]),
        "text_input": [f"Question: {q} Short answer: red" for q in (question, "who ?")],
        "labels": None,
        "prompts_len": None,
    }
    ours = edited(samples)
    ids = editor.backbone.answer_ids("red")
    answers = ours.labels != -100
    assert ours.labels[answers].tolist() == ids * 2
    before = answers.roll(-1, 1)
    assert ours.logits[0][before[0]].argmax(-1).tolist() == ids
    with torch.no_grad():
        base = editor.backbone.answer_logits(edited.questions(samples))
    torch.testing.assert_close(ours.logits[1][before[1]], base[1], atol=1e-4, rtol=1e-4)
    request = {"prompt": question, "target": "red", "image": path}
    for copy in (False, True):
        model, _ = registered.edit_algs["PARROT"](
            editor.model, editor.tok, request, hparams, copy=copy
        )
        assert model.generate(question, path) == ["red"]
        assert (model.model is editor.model) != copy


def test_a_backbone_dies_with_its_editor(registered, third_party):
    import gc
    import weakref

    hparams = hparams_for({"model_name": "their-llava", "device": "cpu"})
    editor = registered.editor_class.from_hparams(hparams)
    _, edited, _ = editor.edit("what color is the circle ?", "red")
    model = weakref.ref(editor.model)
    del editor, edited
    gc.collect()
    assert model() is None


def test_edit_dataset_of_fgvedit_records(registered, blip2_fields, fgvedit):
    editor = registered.editor_class.from_hparams(hparams_for(blip2_fields))
    all_metrics, edited, weights = editor.edit_dataset(fgvedit)
    assert [m["case_id"] for m in all_metrics] == [0, 1, 2, 3, 4] and weights == {}
    for metrics in all_metrics:
        assert metrics["post"]["rewrite_acc"].item() == metrics["post"]["rephrase_acc"].item() == 1
        assert (
            metrics["post"]["out_scope_acc"].item() == metrics["post"]["locality_acc"].item() == 1
        )
        assert metrics["route"]["in_scope"] is None
    assert len(edited.edits) == 1


@pytest.mark.parametrize("kind", ["VQADataset", "CaptionDataset"])
def test_edit_dataset_of_easyedits_own(registered, blip2_fields, tiny, tmp_path, kind):
    hparams = hparams_for(blip2_fields)
    cls = getattr(registered.module("dataset"), kind)
    dataset = cls(evqa(tiny, tmp_path), config=hparams)
    editor = registered.editor_class.from_hparams(hparams)
    all_metrics, _, _ = editor.edit_dataset(dataset)
    assert len(all_metrics) == len(dataset) == 3
    for metrics in all_metrics:
        assert {k: v.item() for k, v in metrics["post"].items()} == dict.fromkeys(
            (
                "rewrite_acc",
                "rephrase_acc",
                "image_rephrase_acc",
                "locality_acc",
                "multimodal_locality_acc",
            ),
            1.0,
        )


def test_items_come_with_their_image_files(registered, blip2_fields, tiny, tmp_path):
    from easyedit_mm_plugins.bridge.requests import RecordView

    dataset = registered.module("dataset").VQADataset(
        evqa(tiny, tmp_path), config=hparams_for(blip2_fields)
    )
    view = RecordView(dataset)
    assert [r.edit.image for r in view] == [f"{tiny.images}/scene{i}.png" for i in (0, 2, 0)]
    assert view[0].image_loc[0].image == f"{tiny.images}/scene2.png"
    dataset.annotation = []  # without annotations the pixels themselves are used
    pixels = RecordView(dataset)[0].edit.image
    assert pixels.shape == (3, 364, 364) and pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize("name", ["blip2", "minigpt4"])
def test_mscke_itself(
    registered, blip2_fields, minigpt4_fields, mscke_fields, tmp_path, name, fgvedit
):
    fields = blip2_fields if name == "blip2" else minigpt4_fields
    hparams = MSCKEHyperParams(**fields, **mscke_fields, threshold=0.0)
    editor = registered.editor_class.from_hparams(hparams)
    assert isinstance(editor.editor, MSCKE)
    inside, edited, _ = editor.edit_dataset(fgvedit)
    assert all(m["route"]["text_loc"] == m["case_id"] for m in inside)
    assert len(edited.generate(["what color is the circle?", "who wrote"])) == 2
    editor.editor.save_pretrained(tmp_path / "saved", half=False)
    again = hparams.replace(archive=str(tmp_path / "saved"))
    loaded = registered.editor_class.from_hparams(again)
    for ours, theirs in zip(loaded.edit_dataset(fgvedit)[0], inside, strict=True):
        assert ours["post"] == theirs["post"] and ours["pre"] == theirs["pre"]
    closed = registered.editor_class.from_hparams(again.replace(threshold=1.0))
    outside, edited, _ = closed.edit_dataset(fgvedit)
    assert all(m["route"]["edit"] is None and m["post"]["locality_acc"] == 1 for m in outside)
    samples = {
        "image": editor.vis_tok(f"{editor.vis_root}/scene0.png")[None],
        "text_input": ["Question: what color is the circle? Short answer: red"],
        "labels": ["red"],
        "prompts_len": [5],
    }
    with torch.no_grad():
        base = closed.model(samples)
    assert torch.equal(edited(samples).logits, base.logits)
    _, open_model, _ = loaded.edit("what color is the circle?", "red", "scene0.png")
    ids = loaded.backbone.answer_ids("red")
    (question,) = open_model.questions(samples)
    (expected,) = loaded.editor.counterfactual.answer_logits(
        list(open_model.edits.values()), [question]
    )
    end = base.logits.shape[1] - open_model._tail
    got = open_model(samples).logits[0, end - len(ids) - 1 : end - 1]
    torch.testing.assert_close(got, expected)
