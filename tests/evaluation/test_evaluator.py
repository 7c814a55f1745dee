"""The evaluator on editors whose right numbers are known, over real (tiny) backbones."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import Protocol, evaluate
from easyedit_mm_plugins.evaluation.evaluator import fresh_answers
from easyedit_mm_plugins.methods.base import Unedited

from ..conftest import picture
from ..support.evaluation_fakes import Failing, FakeBackbone, OneByOne, Remembering, make_records

PROTOCOLS = ("generated", "teacher-forced", "released")
IMAGES = [picture(i) for i in range(4)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(IMAGES):
        image.save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(4)]


@pytest.fixture
def records(paths):
    return make_records(4, paths)


def speaking(backbone, special: float = -1e4):
    """Bias a random model to speak: no special token. With a bias upwards, it is silent."""
    head = backbone.language_model.get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    bias[:5] = special
    bias[2] *= 2  # the end token before all
    head.bias = torch.nn.Parameter(bias)
    return backbone


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_oracle_scores_100_everywhere(backbone, records, protocol):
    result = evaluate(Remembering(speaking(backbone), records), records, protocol)
    assert result.metrics.pop("generality_target") == 100
    assert result.metrics == dict.fromkeys(result.metrics, 100.0)
    assert result.row.n == 4 and result.row.protocol == protocol
    assert evaluate(
        Remembering(backbone, records), records, protocol, suite="evqa"
    ).metrics == dict.fromkeys(("reliability", "t_gen", "v_gen", "t_loc", "m_loc", "average"), 100)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_unedited_model_is_perfectly_local(backbone, records, protocol):
    metrics = evaluate(Unedited(speaking(backbone)), records, protocol).metrics
    assert metrics["locality"] == metrics["specificity_out"] == 100.0
    assert metrics["reliability"] < 100


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_untouched_model_that_says_nothing_has_not_changed(backbone, records, protocol):
    editor = Unedited(speaking(backbone, special=1e4))
    assert backbone.generate([r.edit for r in records]) == [""] * 4
    found = evaluate(editor, records, protocol).metrics
    assert found["locality"] == found["specificity_out"] == 100.0
    assert found["reliability"] == found["specificity_in"] == found["generality_target"] == 0.0
    found = evaluate(editor, records, protocol, suite="evqa").metrics
    assert found["t_loc"] == found["m_loc"] == 100.0
    assert found["reliability"] == found["t_gen"] == found["v_gen"] == 0.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("editor", [Remembering, OneByOne])
def test_the_same_numbers_at_batch_1_and_32_and_one_by_one(tiny_backbone, paths, protocol, editor):
    records, backbone = make_records(7, paths), speaking(tiny_backbone)
    half = ("edit", "in_scope")  # knows only some of what follows: numbers between 0 and 100
    single = evaluate(editor(backbone, records, half), records, protocol, batch_size=1)
    batched = evaluate(Remembering(backbone, records, half), records, protocol, batch_size=32)
    assert single.metrics == batched.metrics
    assert single.row.intervals == batched.row.intervals
    for one, many in zip(single.cases, batched.cases, strict=True):
        assert one.metrics == many.metrics and one.questions == many.questions


def test_batches_are_shared_between_cases_only_where_rows_are_isolated(tiny_backbone, records):
    shared = Remembering(tiny_backbone, records)
    evaluate(shared, records, batch_size=8)
    assert len(shared.asked) == -(-sum(shared.asked) // 8)  # all full but the last
    alone = OneByOne(tiny_backbone, records)
    evaluate(alone, records, batch_size=8)
    assert sum(alone.asked) == sum(shared.asked) and len(alone.asked) == len(records)


def test_every_question_tells_route_score_and_both_answers(tiny_backbone, records):
    editor = Remembering(speaking(tiny_backbone), records)
    cases = evaluate(editor, records).cases
    by_kind = {question.kind: question for question in cases[1].questions}
    assert by_kind["rephrase"].route == "c1" and by_kind["rephrase"].score == 1.0
    assert by_kind["rephrase"].after == by_kind["rephrase"].target == "green"
    assert by_kind["out_scope"].route == "base" and by_kind["out_scope"].score == 0.0
    assert by_kind["out_scope"].before == by_kind["out_scope"].after != ""
    assert by_kind["edit"].image.endswith("1.png") and by_kind["text_loc"].image is None
    assert cases[2].metrics["specificity_in"] is None  # has no in-scope question
    assert cases[2].metrics["specificity_out"] == 100.0


def test_unedited_answers_are_asked_once_for_all_methods(paths):
    records, backbone = make_records(6, paths), FakeBackbone()
    shared = fresh_answers(Unedited(backbone), "generated")
    evaluate(Remembering(backbone, records), records, base_answers=shared)
    first = shared.asked
    # Every case asks the same text question; it was put to the model once.
    distinct = {
        (q.text, str(q.image))
        for r in records
        for kind in ("edit", "rephrase", "in_scope", "out_scope", "text_loc")
        for q in r.questions()[kind]
    }
    assert first == len(distinct) == len(shared)
    evaluate(Unedited(backbone), records, base_answers=shared)
    assert shared.asked == first


def test_an_exception_leaves_editor_and_backbone_without_the_edits(tiny_backbone, records):
    before = copy.deepcopy(tiny_backbone.model.state_dict())
    editor = Failing(tiny_backbone, records, after=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate(editor, records, batch_size=4)
    assert editor.edits == {}
    after = tiny_backbone.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_edits_that_were_there_before_stay_and_are_hidden(tiny_backbone, records):
    editor = Remembering(speaking(tiny_backbone), records)
    alone = evaluate(editor, records)
    kept = editor.add([records[0].edit])
    crowded = evaluate(editor, records)
    assert list(editor.edits) == kept
    assert crowded.metrics == alone.metrics
    visible_to_all = OneByOne(tiny_backbone, records)
    visible_to_all.add([records[0].edit])
    with pytest.raises(ConfigError, match="already holds 1 edits"):
        evaluate(visible_to_all, records)


def test_the_callers_random_numbers_are_not_touched(records):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    evaluate(Unedited(FakeBackbone()), records)
    assert torch.equal(torch.rand(3), expected)


def test_progress_counts_up_to_the_end(records):
    seen = []
    evaluate(
        Unedited(FakeBackbone()),
        records,
        batch_size=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 4), (3, 4), (4, 4)]


class Silenced(Unedited):
    """Says nothing as soon as it has been edited."""

    def generate(self, questions, **kwargs):
        answers = super().generate(questions, **kwargs)
        return [replace(a, text="") for a in answers] if self.edits else answers


def test_an_edit_that_silences_the_model_has_changed_it(records):
    metrics = evaluate(Silenced(FakeBackbone()), records).metrics
    assert set(metrics.values()) == {0.0}


def test_bad_input_is_named_before_any_model_runs(records):
    backbone = FakeBackbone()
    editor = Unedited(backbone)
    empty = EditRecord("x9", Question("what color ?", None, " "))
    with pytest.raises(DataError, match=r"record x9, field edit: .*empty answer"):
        evaluate(editor, [*records, empty])
    with pytest.raises(DataError, match=r"record c0, field case_id: .*twice"):
        evaluate(editor, [*records, records[0]])
    with pytest.raises(DataError, match="no record"):
        evaluate(editor, [])
    with pytest.raises(ConfigError, match="batch size is 0"):
        evaluate(editor, records, batch_size=0)
    # A locality question needs no answer when answers are compared, but does when they are forced.
    bare = EditRecord("b", records[0].edit, text_loc=(Question("what is it ?"),))
    assert evaluate(editor, [bare]).metrics["locality"] == 100
    with pytest.raises(DataError, match="field text_loc"):
        evaluate(editor, [bare], Protocol("teacher-forced"))
    assert backbone.calls > 0
