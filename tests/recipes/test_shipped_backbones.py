"""The shipped backbones: size, loading by the real classes, and what they know."""

import functools

import pytest
import torch

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.data.records import Question
from easyedit_mm_plugins.recipes import backbone_exam as exam
from easyedit_mm_plugins.recipes.small_models import NAMES
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.tokenizer import WRAP, vocabulary

MAX_BYTES = 8_000_000
load = functools.cache(load_backbone)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_folder_is_small_and_says_how_good_it_is(name):
    weights = list((ASSETS / name).glob("*.safetensors"))
    assert len(weights) == 1 and weights[0].stat().st_size <= MAX_BYTES
    result = read_json(ASSETS / name / "eval.json")
    assert result["exact_match_mean"] >= 95 and result["facts"] == 100
    assert set(result["types"]) == {*language.QUESTION_TYPES, "fact"}


@pytest.mark.parametrize("name", NAMES)
def test_vocabulary_of_the_shipped_tokenizer_is_this_version_of_the_world(name):
    tokenizer = load(name).tokenizer
    extra = list(WRAP) if name == "scenes-minigpt4" else []
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [*vocabulary(), *extra]


@pytest.mark.parametrize("name", NAMES)
def test_exact_match_on_held_out_scenes_and_wordings(name):
    backbone = load(name)
    questions = exam.make_exam(10, seed=3)

    def generate(part):
        return backbone.generate([Question(q.text, q.image) for q in part], max_new_tokens=4)

    with torch.no_grad():
        result = exam.grade(questions, generate)
    assert result["exact_match_mean"] >= 95, result["types"]
    assert result["facts"] == 100


@pytest.mark.parametrize("name", NAMES)
def test_frame_and_stock_generate_agree(name):
    backbone = load(name)
    part = [q for q in exam.make_exam(2, seed=4) if q.image is not None]
    stock = exam.stock_generate(backbone.model, backbone.tokenizer, backbone.image_processor)
    ours = backbone.generate([Question(q.text, q.image) for q in part], max_new_tokens=4)
    with torch.no_grad():
        assert [t.strip() for t in stock(part)] == ours
