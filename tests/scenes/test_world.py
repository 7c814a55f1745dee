"""The scenes world: determinism, exact logic, held-out wordings, vocabulary."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.scenes import edits, language, world
from easyedit_mm_plugins.scenes.language import SceneQuestion, answer
from easyedit_mm_plugins.scenes.tokenizer import UNK, build_tokenizer, vocabulary

SCENE = world.make_scene(
    [
        world.Entity("square", "blue", "small", "bottom right"),
        world.Entity("circle", "red", "large", "top left"),
    ]
)
seeds = st.integers(0, 2**32 - 1)


def test_answers_by_hand():
    def ask(*args, **kwargs):
        return answer(SCENE, SceneQuestion(*args, **kwargs))

    assert ask("open", "color", "shape", "circle") == "red"
    assert ask("open", "shape", "place", "bottom right") == "square"
    assert ask("open", "size", "color", "blue") == "small"
    assert ask("open", "place", "shape", "circle") == "top left"
    assert ask("open", "color", "shape", "star") is None
    assert ask("open", "color", "place", "top right") is None
    assert ask("verify", "color", "shape", "circle", "red") == "yes"
    assert ask("verify", "color", "shape", "circle", "blue") == "no"
    assert ask("verify", "size", "place", "top right", "small") is None
    assert ask("exist", "shape", value="square") == "yes"
    assert ask("exist", "color", value="green") == "no"
    assert ask("count") == "two"
    assert language.caption(SCENE) == "a large red circle and a small blue square"
    both_large = world.counterfactual(SCENE, SCENE.entities[1], "size", "large")
    assert answer(both_large, SceneQuestion("open", "color", "size", "large")) is None


def test_counterfactual_is_new_and_refused_when_taken():
    circle = SCENE.find("shape", "circle")
    edited = world.counterfactual(SCENE, circle, "color", "green")
    assert answer(edited, SceneQuestion("open", "color", "shape", "circle")) == "green"
    assert edited.find("shape", "square") == SCENE.find("shape", "square")
    for attribute, value in (("color", "blue"), ("color", "red"), ("place", "bottom right")):
        with pytest.raises(ValueError, match="choose from"):
            world.counterfactual(SCENE, circle, attribute, value)
    with pytest.raises(ValueError, match="not in this scene"):
        world.counterfactual(SCENE, world.Entity("star", "red", "small", "top left"), "size", "x")


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_scenes_hold_what_the_world_promises(seed):
    scene = world.sample_scene(random.Random(seed))
    assert scene == world.sample_scene(random.Random(seed))
    assert 2 <= len(scene.entities) <= 4
    for attribute in ("shape", "color", "place"):
        values = [e.value(attribute) for e in scene.entities]
        assert len(set(values)) == len(values)
    first, again, other = (np.asarray(world.render(scene, s)) for s in (seed, seed, seed + 1))
    assert first.shape == (64, 64, 3) and (first == again).all() and (first != other).any()
    owner = world.draw(scene, seed)[1]
    for index, entity in enumerate(scene.entities):
        row, column = divmod(world.PLACES.index(entity.place), 2)
        cell = owner[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        assert (cell == index).sum() > 0.9 * (owner == index).sum() > 20


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(["train", "test"]))
def test_scopes_follow_from_the_edited_graph(seed, split):
    edit = edits.draw_edit(random.Random(seed), split)
    assert edit.scene.split == split
    assert answer(edit.scene, edit.question) == edit.before != edit.value
    assert answer(edit.edited, edit.question) == edit.value
    inside, outside = edit.in_scope(), edit.out_scope()
    for question, after, hard in inside:
        assert answer(edit.edited, question) == after != answer(edit.scene, question)
        assert question.entity(edit.scene) == edit.entity
        assert hard == (question.reference != edit.question.reference)
    for question, truth, hard in outside:
        assert answer(edit.edited, question) == truth == answer(edit.scene, question)
        asked_of = question.entity(edit.scene)
        assert asked_of != edit.entity and asked_of == question.entity(edit.edited)
        like_edit = (question.attribute, question.reference) == (
            edit.attribute,
            edit.question.reference,
        )
        assert hard == like_edit
    for side in (inside, outside):
        assert {True, False} == {h for _, _, h in side}
        assert any(q.kind == "open" and h for q, _, h in side)


def every_question(scene):
    rng = random.Random(scene.key)
    return [language.sample_question(scene, rng) for _ in range(30)]


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_sampled_questions_have_answers_and_held_out_wordings(seed):
    scene = world.sample_scene(random.Random(seed))
    for question in every_question(scene):
        assert question.type in language.QUESTION_TYPES
        assert answer(scene, question) is not None
        train = language.paraphrases(question, "train")
        test = language.paraphrases(question, "test")
        assert len(train) >= 3 and test and not set(train) & set(test)
        assert set(train) | set(test) == set(language.paraphrases(question, "all"))


def test_all_question_types_occur():
    rng = random.Random(0)
    scenes = [world.sample_scene(rng) for _ in range(200)]
    assert {q.type for s in scenes for q in every_question(s)} == set(language.QUESTION_TYPES)
    yes = [answer(s, q) for s in scenes for q in every_question(s) if q.kind in ("verify", "exist")]
    assert 0.45 < yes.count("yes") / len(yes) < 0.55


def test_every_word_is_in_the_vocabulary():
    tokenizer, rng = build_tokenizer(), random.Random(0)
    texts = [f.answer for f in language.FACTS]
    texts += [q for f in language.FACTS for q in language.fact_questions(f)]
    for _ in range(300):
        scene = world.sample_scene(rng)
        texts.append(language.caption(scene))
        for question in every_question(scene)[:5]:
            texts += [*language.paraphrases(question, "all"), answer(scene, question)]
    texts.append(f"Question: {language.CAPTION_PROMPT} Short answer:")
    assert not any(UNK in ids for ids in tokenizer(texts).input_ids)
    assert tokenizer("zebra", add_special_tokens=False).input_ids == [UNK]
    assert len(vocabulary()) == len(set(vocabulary())) == len(tokenizer) < 200


def test_tokenizer_round_trip(tmp_path):
    from transformers import AutoTokenizer

    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("Question: where is the Circle? Short answer:").input_ids
    assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == "question : where is the circle ? short answer :"
    assert tokenizer("<image>", add_special_tokens=False).input_ids == [4]
    assert tokenizer(" top left").input_ids == tokenizer("top left").input_ids


def test_facts_are_unambiguous():
    asked = [q for f in language.FACTS for q in language.fact_questions(f)]
    assert len(asked) == len(set(asked)) and 40 <= len(language.FACTS) <= 60
