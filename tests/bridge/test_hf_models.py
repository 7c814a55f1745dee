"""The Hugging Face models that EasyEdit HEAD names, through `MultimodalEditor` with our methods."""

import pytest
import torch
import yaml
from PIL import Image

from easyedit_mm_plugins.backbones import HFAuto
from easyedit_mm_plugins.core.errors import BackboneError, DataError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.data.several import Several
from easyedit_mm_plugins.host.models import backbone_of
from easyedit_mm_plugins.methods.edit_file import write_edits
from easyedit_mm_plugins.methods.mscke import MSCKE, MSCKEHyperParams

from ..support import families_tiny
from ..support.bridge_helpers import hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]

NAMES = {
    "qwen2-vl": "qwen2_vl",
    "qwen2.5-vl": "qwen2_5_vl",
    "qwen3-vl": "qwen3_vl",
    "llava-onevision": "llava_onevision",
}
Q, OTHER = "What color is it?", "Where is the cat?"


@pytest.fixture(scope="module", params=NAMES)
def saved(request, tmp_path_factory):
    """HEAD's name for a model, and a folder with a tiny one."""
    folder = tmp_path_factory.mktemp(request.param)
    families_tiny.save(NAMES[request.param], folder)
    return request.param, str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, noise = tmp_path_factory.mktemp("pictures"), torch.Generator().manual_seed(0)
    for i, (height, width) in enumerate(((48, 64), (64, 40), (40, 40))):
        pixels = torch.randint(256, (height, width, 3), generator=noise, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return folder


def paths(pictures, *numbers):
    return [str(pictures / f"{i}.png") for i in numbers]


def editor_of(host, saved, alg="PARROT", **changes):
    name, folder = saved
    fields = {"model_name": name, "name": folder, "device": "cpu", **changes}
    return host.editor_class.from_hparams(hparams_for(fields, alg))


def test_mscke_by_heads_names(registered, saved, mscke_fields, pictures, tmp_path):
    name, folder = saved
    fields = {"model_name": name, "name": folder, "device": "cpu", "coco_image": str(pictures)}
    path = tmp_path / "mscke.yaml"
    path.write_text(yaml.safe_dump({"alg_name": "MSCKE", **fields, **mscke_fields, "threshold": 0}))
    editor = registered.editor_class.from_hparams(MSCKEHyperParams.from_hparams(str(path)))
    assert isinstance(editor.editor, MSCKE) and isinstance(editor.backbone, HFAuto)
    assert editor.tok is editor.backbone.processor and editor.model_name == name
    before = {k: v.clone() for k, v in editor.model.state_dict().items()}
    arguments = {
        "prompts": [Q, OTHER],
        "targets": ["red", "left"],
        "image": ["0.png", "1.png"],
        "rephrase_prompts": ["Which color?", "Where?"],
    }
    for sequential in (False, True):
        metrics, edited, weights = editor.edit(
            **arguments, file_type="image", sequential_edit=sequential
        )
        assert weights == {} and len(edited.edits) == 1 + sequential
        assert [m["route"]["edit"] for m in metrics] == [0, 1]
    assert len(edited.generate([Q, OTHER], paths(pictures, 0, 1))) == 2
    # As an executor, which HEAD gives a list of requests or, one after another, bare dictionaries.
    request = {
        "prompt": Q,
        "target": "red",
        "image": [editor.vis_tok(f"{pictures}/0.png", file_type="image")],
        "file_type": "image",
    }
    apply = registered.edit_algs["MSCKE"]
    for requests in (request, [request]):
        model, weights = apply(editor.model, editor.tok, requests, editor.hparams, copy=False)
        assert weights == {} and [e.answer for e in model.edits.values()] == ["red"]
        if registered.generation == "head":
            registered.module("editors.utils").restore_after_edit(editor, model, weights)
        assert model.undo() is editor.model
    assert all(torch.equal(v, before[k]) for k, v in editor.model.state_dict().items())


def test_what_file_type_says(registered, saved, pictures):
    editor = editor_of(registered, saved, coco_image=str(pictures))
    metrics, edited, _ = editor.edit(
        ["Same color?", Q, "Who?"],
        ["red", "blue", "he"],
        [["0.png", "1.png"], "2.png", None],
        file_type=["multi-image", "single-image", "text"],
        sequential_edit=True,
    )
    assert [m["post"]["rewrite_acc"].item() for m in metrics] == [1, 1, 1]
    both, one, none = edited.edits.values()
    assert isinstance(both.image, Several) and len(both.image.images) == 2
    assert one.image == paths(pictures, 2)[0] and none.image is None
    _, edited, _ = editor.edit("Same?", "red", ["0.png", "1.png"], file_type="multi-image")
    assert [len(e.image.images) for e in edited.edits.values()] == [2]
    assert edited.generate(["Same?"], [paths(pictures, 0, 1)]) == ["red"]
    with pytest.raises(DataError, match=r"(?s)request 1.*file_type.*'video'.*frames"):
        editor.edit([Q, Q], ["a", "b"], ["0.png", "v.mp4"], file_type=["image", "video"])
    with pytest.raises(DataError, match=r"item 0.*file_type.*'video'"):
        request = {"prompt": Q, "target": "red", "image": [torch.zeros(2)], "file_type": "video"}
        registered.edit_algs["PARROT"](editor.model, editor.tok, [request], editor.hparams)
    with pytest.raises(DataError, match=r"request 0.*its file_type is text"):
        editor.edit(Q, "red", "0.png", file_type="text")


def test_several_images_are_seen_one_by_one(saved, pictures):
    name, folder = saved
    from easyedit_mm_plugins.backbones import load_backbone

    backbone = load_backbone(name, folder)
    several = Several(paths(pictures, 0, 1))
    assert several.size == (104, 64)
    asked = [Question(Q, several, "red"), Question(Q, paths(pictures, 2)[0], "red")]
    (own,) = backbone.together([paths(pictures, 0, 1)])
    batch = backbone.batch(asked[:1], with_answers=True, embedded=[own])
    alone = backbone.batch(asked[:1], with_answers=True)
    assert torch.equal(batch.inputs_embeds, alone.inputs_embeds)
    loop = [backbone.answer_logits([q])[0] for q in asked]
    for one, row in zip(loop, backbone.answer_logits(asked), strict=True):
        torch.testing.assert_close(row, one, atol=1e-4, rtol=1e-4)


def test_a_model_in_memory_with_its_processor(registered, saved, pictures):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(saved[1]).eval()
    with pytest.raises(BackboneError, match="AutoProcessor"):
        backbone_of(model)
    tok = AutoProcessor.from_pretrained(saved[1])
    hparams = hparams_for({"model_name": (model, tok), "device": "cpu"})
    editor = registered.editor_class.from_hparams(hparams)
    assert editor.model is model and editor.tok is tok
    metrics, edited, _ = editor.edit(Q, "red", paths(pictures, 0)[0])
    assert metrics[0]["post"]["rewrite_acc"] == 1 and edited.undo() is model


def test_a_model_of_one_image_refuses_several(registered, blip2_fields):
    editor = registered.editor_class.from_hparams(hparams_for(blip2_fields))
    with pytest.raises(DataError, match=r"(?s)request 0.*2 images, but blip2 takes one.*qwen2-vl"):
        editor.edit(Q, "red", ["scene0.png", "scene1.png"], file_type="multi-image")


def test_edits_about_several_images_are_not_saved_as_something_else(pictures, tmp_path):
    edit = Question(Q, Several(paths(pictures, 0, 1)), "red")
    with pytest.raises(DataError, match="about 2 images"):
        write_edits(tmp_path, {"e0": edit}, count=1, made_by="x", tensors={})
    assert not list(tmp_path.iterdir())
