"""The trainer of the embedded backbones: packing is exact, and a killed run continues exactly."""

import random

import pytest
import torch
from PIL import Image

from easyedit_mm_plugins.core.errors import TrainingError, UnknownNameError
from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.recipes import backbone_exam as exam
from easyedit_mm_plugins.recipes.backbone import Recipe, Run, export
from easyedit_mm_plugins.recipes.packing import TEMPLATE, Block, draw_blocks, hide, pack, prefix
from easyedit_mm_plugins.recipes.small_models import (
    NAMES,
    build_image_processor,
    build_model,
    frame,
    prompt_ids,
    see,
    split_modules,
    take_in,
)
from easyedit_mm_plugins.scenes.second import language
from easyedit_mm_plugins.scenes.second.tokenizer import EOS, build_tokenizer
from easyedit_mm_plugins.scenes.second.world import (
    PICTURE_SIZES,
    Drawing,
    draw,
    sample_scene,
)

TINY = Recipe(tower_steps=2, steps=3, tower_images=2, images=2, room=30)
BLOCKS = [
    Block(TEMPLATE.format("where is the circle?"), "top left"),
    Block("what is the opposite of hot", "cold", image=False),
    Block("New Fact: is it red? no\nPrompt: is the red thing a star?", "no"),
]


def _pictures(name):
    """One scene in every picture size, as the model reads it and as the image processor does."""
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in PICTURE_SIZES]
    drawn = [draw(s, Drawing(i, PICTURE_SIZES[i])) for i, s in enumerate(scenes)]
    processor = build_image_processor(name)
    stock = processor(images=[Image.fromarray(p) for p, _ in drawn], return_tensors="pt")
    return take_in(name, scenes, drawn), dict(stock)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_taken_in_as_the_image_processor_does_it(name):
    pictures, stock = _pictures(name)
    assert torch.allclose(pictures.pixels, stock["pixel_values"], atol=1e-5)
    if name == "scenes-qwen":
        assert torch.equal(pictures.grids, stock["image_grid_thw"])
    seen = see(build_model(name).eval(), pictures)
    assert len(seen["patches"]) == len(pictures.patches)
    # At each thing's patches the targets say what it is, and the ground is the larger part.
    for k in range(4):
        assert set(pictures.patches[:, k].unique().tolist()) > {-1}
    assert (pictures.patches[:, 0] < 0).float().mean() > 0.3


@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_equal_the_stock_forward(name):
    """Each question of a packed row gets the logits that it would get alone."""
    torch.manual_seed(0)
    model, tokenizer = build_model(name).eval(), build_tokenizer(name)
    decoder, head = split_modules(model)
    embed, parts = model.get_input_embeddings(), frame(name, tokenizer)
    pictures, stock = _pictures(name)
    with torch.no_grad():
        features = see(model, pictures)["features"]
        front = prefix(features, parts, embed, pictures.grids)
        packed = pack([BLOCKS] * len(features), tokenizer, parts, front)
        width = front.embeds.shape[1]
        hidden = decoder(
            inputs_embeds=torch.cat([front.embeds, embed(packed.ids)], 1),
            attention_mask=packed.mask,
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state[:, width:]
        together = head(hidden[packed.targets >= 0])
    alone, first = [], 0
    for row, picture in enumerate(features):
        inputs = {"pixel_values": stock["pixel_values"][row : row + 1]}
        if pictures.grids is not None:
            patches = int(pictures.grids[row].prod())
            inputs = {"pixel_values": stock["pixel_values"][first : first + patches]}
            inputs["image_grid_thw"] = stock["image_grid_thw"][row : row + 1]
            first += patches
        for block in BLOCKS:
            answer = tokenizer(block.answer, add_special_tokens=False).input_ids
            count = len(picture) if block.image else 0
            ids = torch.tensor([prompt_ids(name, tokenizer, block.prompt, count) + answer])
            whole = block.image or not hasattr(model, "qformer")
            with torch.no_grad():
                logits = (model if whole else model.language_model)(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    **(inputs if block.image else {}),
                ).logits
            alone.append(logits[0, -len(answer) - 1 :])
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    answers = [t for t in packed.targets[0].tolist() if t >= 0]
    assert tokenizer.decode(answers, skip_special_tokens=True) == "top left cold no"
    assert answers.count(EOS) == 3


def test_rows_have_room_for_about_as_many_tokens_each():
    tokenizer, rng = build_tokenizer(), random.Random(0)
    lengths = []
    for _ in range(40):
        blocks = draw_blocks(sample_scene(rng, "train"), rng, 190, 0.1)
        texts = [f"{b.prompt} {b.answer}" for b in blocks]
        lengths.append(sum(len(tokenizer(t, add_special_tokens=False).input_ids) for t in texts))
        assert tokenizer.unk_token_id not in tokenizer(texts).input_ids
        assert all(b.answer for b in blocks)
    assert 185 <= sum(lengths) / len(lengths) <= 225


def test_the_ladder_is_gone_by_the_middle_of_the_second_stage(tmp_path):
    run = Run("scenes-llava", tmp_path, Recipe(steps=100))
    weights = []
    for step in range(100):
        run.position.update(stage=1, step=step)
        weights.append(run.ladder())
    assert weights[0] == weights[29] == pytest.approx(0.3)
    assert weights[40] == pytest.approx(0.15) and not any(weights[50:])


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_continues_at_the_same_place(name, tmp_path):
    whole = Run(name, tmp_path / "whole", TINY)
    whole.train()

    cut = Run(name, tmp_path / "cut", TINY)
    steps = iter(range(4))  # stage 0 and two steps of stage 1, then the plug is pulled
    loss = cut.loss

    def until_killed(rng):
        if next(steps, None) is None:
            cut.save()
            raise KeyboardInterrupt
        return loss(rng)

    cut.loss = until_killed
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    again = Run(name, tmp_path / "cut", TINY)
    assert again.resume() and (again.position["stage"], again.position["step"]) == (1, 2)
    again.train()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key]), key
    assert again.log == whole.log[2:]
    with pytest.raises(TrainingError, match="other settings"):
        Run(name, tmp_path / "cut", Recipe(seed=7)).resume()


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="scenes-llava, scenes-blip2, scenes-minigpt4"):
        build_model("scenes-flamingo")


def test_exam_covers_all_types_with_held_out_wordings_and_grades_an_oracle():
    questions = exam.make_exam(3)
    by_type = {q.type for q in questions}
    assert by_type == {*language.QUESTION_TYPES, *exam.IN_CONTEXT, "fact"}
    right = exam.grade(questions, lambda part: [f" {q.answer.upper()} " for q in part])
    assert {right[mean] for mean in exam.MEANS} == {100}
    types = len(language.QUESTION_TYPES) + len(exam.IN_CONTEXT)
    assert right["n"] == 3 * types + len(language.FACTS)
    wrong = exam.grade(questions, lambda part: ["no" for _ in part])
    assert wrong["facts"] == 0 and wrong["types"]["verify_color"]["exact_match"] < 100


@pytest.mark.parametrize("name", NAMES[:3])
def test_export_is_a_half_precision_model_folder_with_its_exam(name, tmp_path):
    from safetensors import safe_open

    from easyedit_mm_plugins.backbones import load_backbone

    run = Run(name, tmp_path, TINY)
    result = export(run, threads=1, per_type=1)
    assert read_json(tmp_path / "eval.json")["backbone"] == name == result["backbone"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.float16}  # noqa: SIM118
    backbone = load_backbone(tmp_path)
    assert backbone.dtype == torch.float32 and len(backbone.layers) == 8
    for key, value in run.model.state_dict().items():
        assert torch.equal(value.float(), backbone.model.state_dict()[key])


def test_qwen_is_exported_in_the_form_that_auto_classes_read(tmp_path):
    """The language model's fields stand flat, as every version of transformers takes them."""
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    run = Run("scenes-qwen", tmp_path, TINY)
    export(run, threads=1, per_type=1)
    config = read_json(tmp_path / "config.json")
    assert "text_config" not in config and config["model_type"] == "qwen2_vl"
    assert config["hidden_size"] == 128 and config["vision_config"]["patch_size"] == 8
    model = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path).float().eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    content = [{"type": "image"}, {"type": "text", "text": "what color is the circle?"}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    inputs = processor(images=[Image.new("RGB", (96, 64))], text=[chat], return_tensors="pt")
    assert int((inputs["input_ids"] == 4).sum()) == 6 * 4
    assert inputs["input_ids"][0].tolist() == prompt_ids(
        "scenes-qwen", build_tokenizer("scenes-qwen"), "what color is the circle?", 24
    )
    with torch.no_grad():
        assert torch.isfinite(model(**inputs).logits).all()


def test_a_further_leg_begins_with_an_earlier_ones_weights_and_without_the_ladder(tmp_path):
    from easyedit_mm_plugins.recipes.backbone import train
    from easyedit_mm_plugins.recipes.job import Job

    first = Run("scenes-llava", tmp_path / "first", TINY)
    first.train()
    first.save()
    state = next((tmp_path / "first/checkpoint").glob("state-1-*.safetensors"))
    runs = []

    def keep(run, *_):
        runs.append(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyedit_mm_plugins.recipes.backbone.export", keep)
        patch.setattr(Run, "train", lambda self: None)
        train("", "scenes-llava", Job(tmp_path / "second", leg=state, lr=5e-4, vision_share=1.0))
    (run,) = runs
    assert run.position["stage"] == 1 and run.ladder() == 0
    assert {group["top"] for group in run.optimizer.param_groups} == {5e-4}
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[key]), key


def test_small_words_are_hidden_and_names_and_values_are_not():
    rng = random.Random(2)
    asked = "in which corner is the red thing left of the star?"
    found = [hide(asked, rng, 0.5) for _ in range(40)]
    assert {t for t in found if t != asked} and all("red thing" in t for t in found)
    assert all(t.endswith("star?") and "corner" in t and "left" in t for t in found)
    assert hide(asked, rng, 0.0) == asked
    tokens = build_tokenizer("scenes-qwen")(hide(asked, rng, 1.0))["input_ids"]
    assert tokens.count(build_tokenizer("scenes-qwen").unk_token_id) == 6
