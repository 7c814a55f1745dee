"""The second edition's scenes, pictures and questions."""

import random

import numpy as np
import pytest

from easyedit_mm_plugins.scenes.second import language
from easyedit_mm_plugins.scenes.second.edits import draw_fact
from easyedit_mm_plugins.scenes.second.tokenizer import build_tokenizer
from easyedit_mm_plugins.scenes.second.world import (
    COLORS,
    NOVEL_PAIRS,
    PICTURE_SIZES,
    SHAPES,
    Drawing,
    Entity,
    distinct,
    draw,
    make_scene,
    sample_drawing,
    sample_scene,
)

SCENE = make_scene(
    [
        Entity("circle", "red", "large", "top left"),
        Entity("star", "red", "small", "top right"),
        Entity("square", "blue", "small", "bottom right"),
    ]
)


def test_every_color_and_shape_is_in_a_novel_pair():
    assert {shape for shape, _ in NOVEL_PAIRS} == set(SHAPES)
    assert sorted(color for _, color in NOVEL_PAIRS) == sorted(COLORS)


def test_scenes_are_distinct_and_values_repeat_in_some():
    rng = random.Random(0)
    scenes = [sample_scene(rng, "train") for _ in range(300)]
    assert all(distinct(s.entities) and s.split == "train" for s in scenes)
    assert not any(e.novel for s in scenes for e in s.entities)
    repeats = sum(len({e.color for e in s.entities}) < len(s.entities) for s in scenes)
    assert 30 < repeats < 150


@pytest.mark.parametrize("size", PICTURE_SIZES)
@pytest.mark.parametrize("far", [False, True])
def test_a_picture_has_its_size_and_its_things_in_their_cells(size, far):
    pixels, owner = draw(SCENE, Drawing(3, size, far))
    width, height = size
    assert pixels.shape == (height, width, 3) and owner.shape == (height, width)
    for index, entity in enumerate(SCENE.entities):
        rows, columns = np.nonzero(owner == index)
        place = ("bottom" if rows.mean() > height / 2 else "top") + (
            " right" if columns.mean() > width / 2 else " left"
        )
        assert place == entity.place


def test_the_same_drawing_is_the_same_picture_and_another_is_not():
    one, same, other = (draw(SCENE, Drawing(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    rng = random.Random(0)
    assert {sample_drawing(rng).size for _ in range(60)} == set(PICTURE_SIZES)


@pytest.mark.parametrize(
    ("attribute", "reference", "referent", "relation", "wanted"),
    [
        ("color", "shape", "star", "", "red"),
        ("shape", "color", "red", "", None),  # two things are red
        ("shape", "shape", "star", "left of", "circle"),
        ("size", "color", "blue", "above", "small"),
        ("color", "shape", "circle", "left of", None),
        ("color", "shape", "circle", "below", None),
        ("color", "shape", "star", "below", "blue"),
    ],
)
def test_answers_follow_the_graph(attribute, reference, referent, relation, wanted):
    question = language.SceneQuestion("open", attribute, reference, referent, relation=relation)
    assert language.answer(SCENE, question) == wanted


def test_names_mean_one_thing():
    star = SCENE.entities[1]
    assert language.names(SCENE, star) == [("shape", "star", ""), ("place", "top right", "")]
    assert language.names(SCENE, star, relations=True) == [
        ("shape", "circle", "right of"),
        ("shape", "square", "above"),
        ("color", "blue", "above"),
    ]


def test_questions_of_every_type_are_answered_and_said_in_known_words():
    rng, tokenizer = random.Random(1), build_tokenizer()
    types = set()
    for _ in range(600):
        scene = sample_scene(rng)
        question = language.sample_question(scene, rng)
        types.add(question.type)
        assert language.answer(scene, question)
        text = language.phrase(question, rng, "all")
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert types == set(language.QUESTION_TYPES)


def test_new_facts_are_followed_as_often_as_not():
    rng = random.Random(2)
    followed = 0
    for _ in range(400):
        prompt, answer, _ = draw_fact(sample_scene(rng, "train"), rng)
        assert answer and "New Fact: " in prompt and "\nPrompt: " in prompt
        fact = prompt.rsplit("New Fact: ", 1)[1].split("\nPrompt: ")[0]
        followed += fact.endswith(" " + answer)
    assert 150 < followed < 300


def test_editors_train_on_other_facts_than_they_are_examined_on():
    assert not set(language.EDITOR_FACTS) & set(language.UNSEEN_FACTS)
    assert {*language.EDITOR_FACTS, *language.UNSEEN_FACTS} == set(language.FACTS)
