"""Hard pairs: texts and answers are the same on both sides, and only the picture tells them."""

import random
from collections import Counter, defaultdict

import pytest

from easyedit_mm_plugins.scenes.second import language
from easyedit_mm_plugins.scenes.second.pairs import draw_cases
from easyedit_mm_plugins.scenes.second.world import counterfactual


def _groups(split, n, novel=False):
    rng = random.Random(f"test {split}")
    return [list(draw_cases(rng, split, novel=novel)) for _ in range(n)]


@pytest.fixture(scope="module")
def groups():
    return _groups("train", 60)


def test_both_cases_of_a_pair_have_the_same_texts_and_swapped_scopes(groups):
    for group in groups:
        assert len({(c.text, c.rephrase, c.edit.value, c.edit.before) for c in group}) == 1
        for number in {c.pair for c in group}:
            first, second = (c for c in group if c.pair == number)
            assert first.edit.scene != second.edit.scene
            for (one, _, inside), (two, _, there) in zip(first.hard, second.hard, strict=True):
                assert one == two
                assert (inside == there) == (one.sort == "existence")


def test_the_right_answer_before_the_edit_is_the_same_on_both_sides(groups):
    for group in groups:
        answers = defaultdict(set)
        for case in group:
            for query, after, inside in case.hard:
                before = language.answer(case.edit.scene, query.question)
                answers[query.text].add(before)
                edited = counterfactual(
                    case.edit.scene, case.edit.entity, case.edit.attribute, case.edit.value
                )
                assert after == language.answer(edited, query.question)
                assert (after != before) is inside
        assert all(len(found) == 1 for found in answers.values())


def test_every_picture_has_queries_of_both_labels_in_equal_numbers_of_main_ones(groups):
    for group in groups:
        for case in group:
            assert sorted(inside for _, _, inside in case.hard[:2]) == [False, True]
            assert {inside for _, _, inside in case.easy} == {True, False}


def test_the_question_after_the_old_value_is_in_scope_in_one_pair_and_out_in_the_other():
    found = Counter()
    for group in _groups("train", 150):
        for case in group:
            found.update((case.pair, inside) for q, _, inside in case.hard if q.sort == "existence")
    assert set(found) == {(0, False), (1, True)} and len(set(found.values())) == 1


def test_nothing_about_the_two_things_tells_which_one_is_edited(groups):
    """Either could have been edited: the edit's manner of naming fits both, in both pictures."""
    for group in groups:
        for case in group:
            reference = case.edit.question.reference
            for query, _, _ in case.hard[:2]:
                about = query.question.entity(case.edit.scene)
                assert case.edit.scene.find(reference, about.value(reference)) == about


def test_novel_pairs_name_both_things_and_stand_in_no_training_picture():
    for group in _groups("test", 6, novel=True):
        for case in group:
            assert case.novel
            about = {q.question.entity(case.edit.scene) for q, _, _ in case.hard[:2]}
            assert len(about) == 2 and all(entity.novel for entity in about)
    for group in _groups("train", 20):
        assert not any(e.novel for case in group for e in case.edit.scene.entities)


def test_splits_hold_other_scenes():
    for split in ("train", "test"):
        scenes = [case.edit.scene for group in _groups(split, 5) for case in group]
        assert {scene.split for scene in scenes} == {split}
