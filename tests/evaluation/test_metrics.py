"""The equations, answer matching and protocols."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import ConfigError, UnknownNameError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.evaluation import Protocol, normalise, same_answer
from easyedit_mm_plugins.evaluation.metrics import (
    EVQA,
    FGVEDIT,
    Judged,
    case_values,
    suite_named,
    summarise,
)
from easyedit_mm_plugins.evaluation.protocol import Reply, token_accuracy, token_agreement

from ..support.exact import binomial_interval

KINDS = ("edit", "rephrase", "in_scope", "out_scope", "text_loc", "image_rephrase", "image_loc")
UNIT = st.floats(0, 1)
JUDGED = st.builds(Judged, st.sampled_from(KINDS), UNIT, UNIT, UNIT)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Red.", "red"),
        ("the  top left", "Top left"),
        ("A dog!", "dog"),
        ("don't", "dont"),
        ("1,000", "1000"),
        ("t-shirt", "T shirt"),
        ("ﬁve", "five"),
        ("STRASSE", "straße"),
        ("\u200byes", "yes"),
        ("a", "A"),
        ("?", "?"),
        ("", ""),
        (" ", ""),
        ("\u200b", ""),
    ],
)
def test_the_same_answer_written_differently(first, second):
    assert same_answer(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("red", ""),
        ("", "?"),
        ("cafe", "café"),
        ("2.5", "25"),
        ("two", "2"),
        ("1,2", "12"),
    ],
)
def test_different_answers(first, second):
    assert not same_answer(first, second)


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_normalising_is_idempotent_and_an_answer_agrees_with_itself(text):
    assert normalise(normalise(text)) == normalise(text)
    assert same_answer(text, text)


def test_each_equation_reads_its_own_questions():
    """One case by hand; every number below is counted on paper."""
    judged = [
        Judged("edit", target=1, before=0, edit=1),
        Judged("rephrase", target=1, before=0, edit=0.5),
        Judged("rephrase", target=0, before=1, edit=0),
        Judged("in_scope", target=1, before=0, edit=0),
        Judged("in_scope", target=0, before=1, edit=0),
        Judged("out_scope", target=0, before=1, edit=0),
        Judged("text_loc", target=0, before=1, edit=0),
        Judged("image_rephrase", target=1, before=0, edit=0),
        Judged("image_loc", target=1, before=0, edit=0),
    ]
    assert case_values(FGVEDIT, judged) == {
        "reliability": 100.0,  # eq. 15
        "generality": 25.0,  # eq. 17: agreement with the edited model's own answer
        "locality": 100.0,  # eq. 16: agreement with the unedited model
        "specificity": 75.0,  # eq. 12
        "specificity_in": 50.0,  # eq. 13
        "specificity_out": 100.0,  # eq. 14
        "generality_target": 50.0,
    }
    assert case_values(EVQA, judged) == {
        "reliability": 100.0,
        "t_gen": 50.0,
        "v_gen": 100.0,
        "t_loc": 100.0,
        "m_loc": 0.0,
        "average": 70.0,
    }


def test_a_missing_half_is_missing_and_not_zero():
    only_in = case_values(FGVEDIT, [Judged("edit", 1, 0, 1), Judged("in_scope", 1, 0, 0)])
    assert only_in["specificity_in"] == 100.0
    assert only_in["specificity_out"] is None and only_in["specificity"] is None
    only_out = case_values(FGVEDIT, [Judged("edit", 1, 0, 1), Judged("out_scope", 0, 0, 0)])
    metrics, intervals = summarise(FGVEDIT, [only_in, only_out])
    assert metrics["specificity_in"] == 100.0 and metrics["specificity_out"] == 0.0
    assert metrics["specificity"] == 50.0  # half the sum of the two means (eq. 12)
    assert metrics["locality"] is None and intervals["locality"] is None


@given(st.lists(st.lists(JUDGED, max_size=6), min_size=1, max_size=12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_metrics_stay_in_range_and_do_not_depend_on_the_order_of_cases(cases, seed):
    values = [case_values(FGVEDIT, judged) for judged in cases]
    metrics, intervals = summarise(FGVEDIT, values, seed=seed, samples=50)
    again, _ = summarise(FGVEDIT, values[::-1], seed=seed, samples=50)
    for name in FGVEDIT.names:
        if metrics[name] is None:
            assert intervals[name] is None and again[name] is None
            continue
        low, high = intervals[name]
        assert -1e-9 <= low <= high <= 100 + 1e-9
        assert again[name] == pytest.approx(metrics[name])
        known = [v[name] for v in values if v[name] is not None]
        if name != "specificity":
            assert metrics[name] == pytest.approx(np.mean(known))


@given(st.lists(JUDGED, min_size=1, max_size=12), st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_a_better_answer_never_lowers_a_metric(judged, at):
    at %= len(judged)
    better = [*judged[:at], Judged(judged[at].kind, 1, 1, 1), *judged[at + 1 :]]
    before, after = case_values(FGVEDIT, judged), case_values(FGVEDIT, better)
    assert all(v is None or after[k] >= v - 1e-9 for k, v in before.items())


def test_the_interval_is_seeded_narrows_with_cases_and_covers_the_truth():
    rng = np.random.default_rng(3)
    hits = [{"reliability": 100.0 * x} for x in rng.random(400) < 0.8]
    _, wide = summarise(FGVEDIT, hits[:40], seed=1)
    metrics, narrow = summarise(FGVEDIT, hits, seed=1)
    assert summarise(FGVEDIT, hits, seed=1)[1] == narrow
    assert summarise(FGVEDIT, hits, seed=2)[1] != narrow
    low, high = narrow["reliability"]
    assert low < metrics["reliability"] < high and low < 80 < high
    assert high - low < wide["reliability"][1] - wide["reliability"][0]
    # The normal approximation of a proportion's interval, 2 x 1.96 standard errors.
    share = metrics["reliability"] / 100
    assert high - low == pytest.approx(392 * np.sqrt(share * (1 - share) / 400), rel=0.15)


def test_the_interval_holds_95_percent_of_the_resampled_means():
    cases = [{"reliability": 100.0}] * 320 + [{"reliability": 0.0}] * 80
    _, intervals = summarise(FGVEDIT, cases, samples=4000)
    assert intervals["reliability"] == pytest.approx(binomial_interval(400, 0.8, 0.95), abs=0.3)
    assert binomial_interval(400, 0.8, 0.90) != pytest.approx(intervals["reliability"], abs=0.5)
    _, narrow = summarise(FGVEDIT, cases, samples=4000, level=0.9)
    assert narrow["reliability"] == pytest.approx(binomial_interval(400, 0.8, 0.90), abs=0.3)


def test_certain_outcomes_have_certain_intervals():
    _, intervals = summarise(FGVEDIT, [{"locality": 100.0}] * 7)
    assert intervals["locality"] == [100.0, 100.0]


def test_token_metrics_by_hand():
    assert token_accuracy([[1, 9], [2, 9], [3, 9]], [1, 5, 3]) == pytest.approx(2 / 3)
    assert token_accuracy([], []) == 0.0
    assert token_agreement([[1, 2], [3, 4]], [[1, 5], [4, 3]]) == 0.5
    # Rank by rank, as the release counts it: the same two tokens in another order disagree.
    assert token_agreement([[1, 2], [3, 4]], [[1, 5], [4, 3]], ranks=2) == 0.25
    assert token_agreement([[1], [2]], [[1]]) == 0.5
    assert token_agreement([[1], [2]], []) == 0.0
    assert token_agreement([], []) == 1.0  # nothing differs


IDS = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=5)


@given(IDS, IDS, st.integers(1, 3))
def test_token_agreement_is_symmetric_and_full_with_itself(first, second, ranks):
    assert token_agreement(first, second, ranks) == token_agreement(second, first, ranks)
    assert token_agreement(first, first, ranks) == 1.0
    assert 0 <= token_agreement(first, second, ranks) <= 1


TEXTS = st.text(max_size=12) | st.sampled_from(["", " ", "\n", "\u200b", "?", "...", "the", "Ⅳ"])


@st.composite
def replies(draw):
    """Any reply: a text, and up to three positions with their ten best tokens."""
    ranked = st.lists(st.integers(0, 99), min_size=10, max_size=10)
    top = draw(st.lists(ranked, max_size=3))
    return Reply(draw(TEXTS), [draw(st.integers(0, 99)) for _ in top], top)


@pytest.mark.parametrize("name", ["generated", "teacher-forced", "released"])
@given(st.lists(st.tuples(st.sampled_from(KINDS), TEXTS, replies()), min_size=1), replies())
@settings(max_examples=150, deadline=None)
def test_what_has_not_changed_counts_100_whatever_it_is(name, asked, edit):
    """A model that says of every question what it said before: all that must stay has stayed."""
    protocol = Protocol(name)
    judged = [
        protocol.judge(kind, Question("q", None, target), reply, copy.deepcopy(reply), edit)
        for kind, target, reply in asked
    ]
    kinds = {kind for kind, _, _ in asked}
    unmoved = {"locality": "text_loc", "specificity_out": "out_scope"}
    for suite, stays in ((FGVEDIT, unmoved), (EVQA, {"t_loc": "text_loc", "m_loc": "image_loc"})):
        values = case_values(suite, judged)
        metrics, intervals = summarise(suite, [values, values], samples=5)
        for metric, kind in stays.items():
            assert values[metric] == metrics[metric] == (100.0 if kind in kinds else None)
            assert intervals[metric] == ([100.0, 100.0] if kind in kinds else None)


@pytest.mark.parametrize("silence", ["", " ", "\u200b"])
def test_silence_meets_no_target_and_no_edit_generalises_to_it(silence):
    asked = [Question("q", None, target) for target in ("red", silence)]
    for question in asked:
        judged = Protocol().judge("rephrase", question, Reply("red"), Reply(silence), Reply(""))
        assert (judged.target, judged.before, judged.edit) == (0, 0, 0)


def test_protocols_judge_as_their_names_say():
    question = Question("q", None, "red")
    edit = Reply(target_ids=[7], top_ids=[[8, 1]])
    before = Reply(target_ids=[7], top_ids=[[8, 2]])
    after = Reply(target_ids=[7], top_ids=[[8, 3]])
    plain = Protocol("teacher-forced").judge("out_scope", question, before, after, edit)
    assert (plain.target, plain.before, plain.edit) == (0, 1, 1)
    released = Protocol("released", locality_top_k=2)
    ranked = released.judge("out_scope", question, before, after, edit)
    assert ranked.before == 0.5
    assert released.judge("text_loc", question, before, after, edit).before == 1
    assert released.judge("rephrase", question, before, after, edit).edit == 0  # against y_e
    spoken = Protocol("generated").judge(
        "rephrase", question, Reply("Green"), Reply("the red."), Reply("RED")
    )
    assert (spoken.target, spoken.before, spoken.edit) == (1, 0, 1)


def test_protocol_defaults_and_bad_values():
    assert Protocol("released").locality_top_k == 10
    assert Protocol("teacher-forced").locality_top_k == 1
    assert Protocol.of("generated") == Protocol()
    with pytest.raises(UnknownNameError, match="did you mean teacher-forced"):
        Protocol("teacher_forced")
    with pytest.raises(ConfigError, match="max_new_tokens"):
        Protocol(max_new_tokens=0)
    with pytest.raises(ConfigError, match="compares texts"):
        Protocol("generated", locality_top_k=10)
    with pytest.raises(UnknownNameError, match="did you mean evqa"):
        suite_named("e-vqa")
