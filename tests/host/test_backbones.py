"""EasyEdit's real Blip2OPT and MiniGPT4 behind the frame: same rows, same numbers."""

import copy

import pytest
import torch

from easyedit_mm_plugins.core.errors import BackboneError, DataError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.host.backbones import blip_pixels, denormalise, wrap

pytest_plugins = ["tests.support.bridge_fixtures"]


def samples(host, backbone, questions):
    """The rows as EasyEdit's evaluation of this generation would put them to the model."""
    special = host.generation == "pypi" and backbone.family == "easyedit-blip2"
    prompts = [backbone.prompt(q) for q in questions]
    image = None
    if questions[0].image is not None:
        image = torch.stack([blip_pixels(q.image) for q in questions])
    return {
        "image": image,
        "text_input": [f"{p} {q.answer}" for p, q in zip(prompts, questions, strict=True)],
        "labels": [q.answer for q in questions],
        "prompts_len": [len(backbone.token_ids(p, special=special)) for p in prompts],
    }


@pytest.mark.parametrize("pictured", [True, False], ids=["image", "text"])
def test_the_frame_gives_the_models_own_logits(host, easyedit_backbone, scenes, pictured):
    backbone = easyedit_backbone
    image = scenes if pictured else [None, None]
    questions = [
        Question("what color is the circle?", image[0], "red"),
        Question("how many triangles are there in the photo?", image[1], "two small triangle"),
    ]
    with torch.no_grad():
        ours = backbone.answer_logits(questions)
        out = backbone.model(samples(host, backbone, questions))
    for i, (question, logits) in enumerate(zip(questions, ours, strict=True)):
        ids = backbone.answer_ids(question.answer)
        labels = out.labels[i]
        where = (labels != -100).nonzero().flatten()[: len(ids)]
        assert labels[where].tolist() == ids
        torch.testing.assert_close(logits, out.logits[i, where - 1], atol=1e-4, rtol=1e-4)


def test_generation_is_greedy_decoding_of_the_models_own_forward(host, easyedit_backbone, scenes):
    backbone, question = easyedit_backbone, Question("what color is the circle?", None, "red")
    for image in (None, scenes[0]):
        asked = Question(question.text, image)
        batch = backbone.batch([asked])
        ids = backbone.generate_ids(batch, max_new_tokens=3)[0]
        text = backbone.prompt(asked)
        pixels = None if image is None else blip_pixels(image)[None]
        end, backbone.model.end_sym = getattr(backbone.model, "end_sym", None), ""
        try:
            with torch.no_grad():
                out = backbone.model(
                    {"image": pixels, "text_input": [text], "labels": [""], "prompts_len": [1]}
                )
        finally:
            backbone.model.end_sym = end
        first = int(out.logits[0, -1].argmax())
        stops = {backbone.stop_token_id, backbone.tokenizer.eos_token_id}
        assert ids[:1] == ([] if first in stops else [first])


def test_images_come_as_paths_pictures_or_tensors(easyedit_backbone, scenes):
    from PIL import Image

    features = easyedit_backbone.image_features(
        [scenes[0], Image.open(scenes[0]), denormalise(blip_pixels(scenes[0]))]
    )
    torch.testing.assert_close(features[1], features[0])
    torch.testing.assert_close(features[2], features[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(features[0], easyedit_backbone.image_features([scenes[1]])[0])


def test_pixels_are_those_of_easyedits_own_processor(host, scenes):
    from PIL import Image

    processor = host.module("dataset.processor.blip_processors").BlipImageEvalProcessor(
        image_size=364, mean=None, std=None
    )
    theirs = processor.transform(Image.open(scenes[0]).convert("RGB"))
    torch.testing.assert_close(blip_pixels(scenes[0]), theirs)


def test_empty_answers_and_other_models_are_refused(easyedit_backbone):
    with pytest.raises(DataError, match="answer"):
        easyedit_backbone.answer_ids("  ")
    with pytest.raises(BackboneError, match="Linear"):
        wrap(torch.nn.Linear(2, 2))


def test_a_decoder_spread_over_devices_answers_as_before(easyedit_backbone, scenes):
    """The same device under several names: accelerate's hooks are there, the numbers stay."""
    from easyedit_mm_plugins.host.models import _spread

    backbone = copy.deepcopy(easyedit_backbone)  # it is shared
    question = Question("what color is the circle?", scenes[0], "red")
    before = backbone.answer_logits([question])[0]
    decoder = backbone.language_model
    spread = {name: "cpu" for name, child in decoder.named_modules() if not list(child.children())}
    spread |= {name: "cpu" for name, _ in decoder.named_parameters(recurse=False)}
    _spread(backbone.model, torch.device("cpu"), None, spread)
    assert torch.equal(backbone.answer_logits([question])[0], before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_generates(easyedit_backbone, scenes, dtype):
    from easyedit_mm_plugins.host.models import _place

    backbone = copy.deepcopy(easyedit_backbone)  # it is shared
    questions = [
        Question("what color is the circle?", scenes[0], "red"),
        Question("how many triangles are there in the photo?", None, "two"),
    ]
    before = backbone.answer_logits(questions)
    _place(backbone.model, torch.device("cpu"), dtype)
    backbone.clear_cache()
    after = backbone.answer_logits(questions)
    assert all(row.dtype == dtype for row in after)
    for full, half in zip(before, after, strict=True):
        torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)
    assert len(backbone.generate(questions, max_new_tokens=2)) == 2
