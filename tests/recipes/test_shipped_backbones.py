"""The shipped backbones: size, loading by the real classes, and what they know.

Those of the first edition are in use. Those of the second lie in ``assets/second`` until editors
for them are trained, too; their exam is the recipe's own.
"""

import functools

import pytest
import torch

from easyedit_mm_plugins.backbones import load_backbone
from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.data.records import Question
from easyedit_mm_plugins.recipes import backbone_exam as exam
from easyedit_mm_plugins.recipes.job import embedded_backbones
from easyedit_mm_plugins.recipes.small_models import NAMES
from easyedit_mm_plugins.scenes import language as first
from easyedit_mm_plugins.scenes.second import language
from easyedit_mm_plugins.scenes.second.tokenizer import vocabulary
from easyedit_mm_plugins.scenes.tokenizer import WRAP
from easyedit_mm_plugins.scenes.tokenizer import vocabulary as first_vocabulary

MAX_BYTES = 8_000_000
SECOND = [name for name in NAMES if (ASSETS / "second" / name).is_dir()]
load = functools.cache(load_backbone)


@pytest.mark.parametrize("name", embedded_backbones())
def test_shipped_folder_is_small_and_says_how_good_it_is(name):
    weights = list((ASSETS / name).glob("*.safetensors"))
    assert len(weights) == 1 and weights[0].stat().st_size <= MAX_BYTES
    result = read_json(ASSETS / name / "eval.json")
    assert result["exact_match_mean"] >= 95 and result["facts"] == 100
    assert set(result["types"]) == {*first.QUESTION_TYPES, "fact"}
    tokenizer = load(name).tokenizer
    extra = list(WRAP) if name == "scenes-minigpt4" else []
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == [*first_vocabulary(), *extra]


@pytest.mark.parametrize("name", SECOND)
def test_second_edition_is_small_and_says_how_good_it_is(name):
    folder = ASSETS / "second" / name
    weights = list(folder.glob("*.safetensors"))
    assert len(weights) == 1 and weights[0].stat().st_size <= MAX_BYTES
    result = read_json(folder / "eval.json")
    assert set(result["types"]) == {*language.QUESTION_TYPES, *exam.IN_CONTEXT, "fact"}
    assert result["facts"] == 100
    tokenizer = load(folder).tokenizer
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == vocabulary(name)


@pytest.mark.parametrize("name", SECOND)
def test_frame_answers_the_exam_as_the_stock_generate_does(name):
    backbone = load(ASSETS / "second" / name)
    part = [q for q in exam.make_exam(6, seed=4) if q.image is not None and not q.plain]
    holder = backbone.processor if name == "scenes-qwen" else backbone
    stock = exam.stock_generate(name, backbone.model, backbone.tokenizer, holder.image_processor)
    ours = backbone.generate([Question(q.text, q.image) for q in part], max_new_tokens=4)
    with torch.no_grad():
        assert [t.strip() for t in stock(part)] == ours
    right = sum(a == q.answer for a, q in zip(ours, part, strict=True))
    assert right >= 0.85 * len(part)
