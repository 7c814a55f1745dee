"""The trainer of the embedded backbones: packing is exact, and a killed run continues exactly."""

import random

import pytest
import torch

from easyedit_mm_plugins.core.errors import TrainingError, UnknownNameError
from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.recipes import backbone_exam as exam
from easyedit_mm_plugins.recipes.backbone import Recipe, Run, draw_images, export
from easyedit_mm_plugins.recipes.packing import TEMPLATE, Block, pack
from easyedit_mm_plugins.recipes.small_models import (
    NAMES,
    build_model,
    frame,
    prompt_ids,
    split_modules,
)
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.tokenizer import EOS, build_tokenizer

TINY = Recipe(tower_steps=2, steps=3, tower_images=2, images=2, questions=2)


@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_equal_the_stock_forward(name):
    """Each question of a packed row gets the logits that it would get alone."""
    torch.manual_seed(0)
    model, tokenizer = build_model(name).eval(), build_tokenizer(name)
    _, images, _, _ = draw_images(random.Random(0), 1)
    blocks = [
        Block(TEMPLATE.format("where is the circle?"), "top left"),
        Block("what is the opposite of hot", "cold", image=False),
        Block(TEMPLATE.format("is the red thing a star?"), "no"),
    ]
    alone = []
    for block in blocks:
        words = tokenizer(block.prompt, add_special_tokens=False).input_ids
        answer = tokenizer(block.answer, add_special_tokens=False).input_ids
        ids = torch.tensor([prompt_ids(model, words + answer, block.image)])
        with torch.no_grad():
            if block.image:
                logits = model(input_ids=ids, pixel_values=images).logits
            else:
                inner = model if name == "scenes-llava" else model.language_model
                logits = inner(input_ids=ids).logits
        alone.append(logits[0, -len(answer) - 1 :])

    from easyedit_mm_plugins.recipes.small_models import see

    features = see(model, images)["features"]
    decoder, head = split_modules(model)
    embed = model.get_input_embeddings()
    before, after = (embed(torch.tensor([ids], dtype=torch.long)) for ids in frame(model))
    prefix = torch.cat([before, features, after], 1)
    packed = pack([blocks], tokenizer, prefix.shape[1])
    with torch.no_grad():
        hidden = decoder(
            inputs_embeds=torch.cat([prefix, embed(packed.ids)], 1),
            attention_mask=packed.mask,
            position_ids=packed.positions,
            use_cache=False,
        ).last_hidden_state[:, prefix.shape[1] :]
        together = head(hidden[packed.targets >= 0])
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    targets = packed.targets[packed.targets >= 0].tolist()
    assert tokenizer.decode(targets) == "top left </s> cold </s> no </s>"
    assert targets.count(EOS) == 3


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
        build_model("scenes-qwen")


def test_exam_covers_all_types_with_held_out_wordings_and_grades_an_oracle():
    questions = exam.make_exam(3)
    by_type = {q.type for q in questions}
    assert by_type == {*language.QUESTION_TYPES, "fact"}
    right = exam.grade(questions, lambda part: [f" {q.answer.upper()} " for q in part])
    assert right["exact_match_mean"] == right["facts"] == 100
    assert right["n"] == 3 * len(language.QUESTION_TYPES) + len(language.FACTS)
    wrong = exam.grade(questions, lambda part: ["no" for _ in part])
    assert wrong["facts"] == 0 and wrong["types"]["verify_color"]["exact_match"] < 100


@pytest.mark.parametrize("name", NAMES)
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
