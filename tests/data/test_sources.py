"""Sources of questions, counterfactual answers, locality questions: real formats, any input."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import ConfigError, DataError, UnknownNameError
from easyedit_mm_plugins.data.tools.construct import QA, ImageGroup, open_source
from easyedit_mm_plugins.data.tools.construct.answers import AnswerPool
from easyedit_mm_plugins.data.tools.construct.nq import deal, read_nq
from easyedit_mm_plugins.data.tools.construct.sources import guess_types
from easyedit_mm_plugins.scenes.source import ScenesSource

from ..support.vqa_files import write_vqav2

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mmedit"
real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real annotation files are absent")
ANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def test_vqav2_files_are_read_in_order_with_types_and_answers(tmp_path):
    scenes = ScenesSource(tmp_path / "scenes", n=4, questions=5)
    questions, annotations, root = write_vqav2(scenes, tmp_path / "coco")
    found = list(
        open_source("vqav2", questions=[questions], annotations=[annotations], images=root).groups()
    )
    given = list(scenes.groups())
    assert [[(p.question, p.answer) for p in g.pairs] for g in found] == [
        [(p.question, p.answer) for p in g.pairs] for g in given
    ]
    assert found[0].image == "train2014/COCO_train2014_000000000100.jpg"
    assert (root / found[0].image).is_file()
    assert found[0].pairs[0].question_type == given[0].pairs[0].question_type
    assert found[0].pairs[0].accepted == (given[0].pairs[0].answer,)


def test_vqav2_needs_files_that_belong_together(tmp_path):
    a = write_vqav2(ScenesSource(tmp_path / "s", n=1, questions=3), tmp_path / "a")
    content = json.loads(a[1].read_text())
    for item in content["annotations"]:
        item["question_id"] += 1_000_000
    a[1].write_text(json.dumps(content))
    with pytest.raises(DataError, match="no question has an annotation"):
        list(open_source("vqav2", questions=a[0], annotations=a[1], images=a[2]).groups())


def test_easy_vqa_is_a_source():
    pytest.importorskip("easy_vqa")
    source = open_source("easy-vqa", split="test")
    groups = list(source.groups())
    assert len(groups) == 1000 and sum(len(g.pairs) for g in groups) == 48_248 - 38_575
    assert (source.image_root / groups[0].image).is_file()
    kinds = Counter(p.answer_type for g in groups for p in g.pairs)
    assert set(kinds) == {"yes/no", "other"}


@real_files
def test_e_vqas_real_files_are_grouped_by_image():
    source = open_source(
        "e-vqa", files=[SHARED / "vqa_train.json", SHARED / "vqa_eval.json"], images=SHARED
    )
    groups = list(source.groups())
    assert sum(len(g.pairs) for g in groups) == 8438
    assert all(pair.rephrase for group in groups for pair in group.pairs)
    pool = AnswerPool(groups)
    drawn = [(g.pairs[0], pool.draw(g.pairs[0], 0)) for g in groups[:300]]
    assert all(alt and alt.lower() != pair.answer.lower() for pair, alt in drawn)
    kinds = [guess_types(p.question, p.answer)[1] == guess_types("", alt)[1] for p, alt in drawn]
    assert sum(kinds) / len(kinds) > 0.99  # yes for no, a number for a number


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'image,question,answer\nx.png,"what, then?",red\nx.png,how many?,2\n'),
        ("a.tsv", "image\tquestion\tanswer\nx.png\twhat, then?\tred\nx.png\thow many?\t2\n"),
        (
            "a.jsonl",
            '{"image": "x.png", "question": "what, then?", "answer": "red"}\n\n'
            '{"image": "x.png", "question": "how many?", "answer": 2}\n',
        ),
    ],
)
def test_a_users_own_table(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (group,) = open_source("table", files=[tmp_path / name]).groups()
    assert [p.question for p in group.pairs] == ["what, then?", "how many?"]
    assert [p.answer_type for p in group.pairs] == ["other", "number"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "image,question\nx.png,why?\n", "field answer"),
        ("a.csv", 'image,question,answer\n"x.png', "not valid CSV"),
        ("a.jsonl", '{"image": "x"', "line 1"),
        ("a.jsonl", "[1]\n", "not an object"),
        ("a.jsonl", "", "no rows"),
    ],
)
def test_a_bad_table_is_named(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        list(open_source("table", files=[tmp_path / name]).groups())
    assert str(tmp_path / name) in str(caught.value)


def test_unknown_sources_and_options():
    with pytest.raises(UnknownNameError, match="vqav2"):
        open_source("vqa2")
    with pytest.raises(ConfigError, match="files"):
        open_source("e-vqa", images="x")


@ANY
@given(content=json_values, part=st.sampled_from(["whole", "list", "item"]), which=st.booleans())
def test_any_json_as_vqav2_is_groups_or_a_clear_error(tmp_path, content, part, which):
    question = {"image_id": 1, "question": "what?", "question_id": 5}
    annotation = {"question_id": 5, "image_id": 1, "multiple_choice_answer": "red"}
    files = {
        "questions": {"data_subtype": "val2014", "questions": [question]},
        "annotations": {"annotations": [annotation]},
    }
    name = "questions" if which else "annotations"
    if part == "whole":
        files[name] = content
    elif part == "list":
        files[name] = files[name] | {name: content}
    else:
        item = files[name][name][0]
        changed = item | (content if isinstance(content, dict) else {k: content for k in item})
        files[name] = files[name] | {name: [changed]}
    for key, value in files.items():
        (tmp_path / f"{key}.json").write_text(json.dumps(value))
    try:
        paths = {key: tmp_path / f"{key}.json" for key in files}
        groups = list(open_source("vqav2", **paths, images=tmp_path).groups())
    except DataError as error:
        assert str(tmp_path) in str(error)
    else:
        assert all(p.question and p.answer for g in groups for p in g.pairs)


@ANY
@given(content=st.binary(max_size=80), suffix=st.sampled_from([".csv", ".jsonl", ".json", ".tsv"]))
def test_any_bytes_as_a_table_are_groups_or_a_clear_error(tmp_path, content, suffix):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    for read in (lambda: list(open_source("table", files=[path]).groups()), lambda: read_nq(path)):
        try:
            read()
        except DataError as error:
            assert str(path) in str(error)


@ANY
@given(
    row=st.dictionaries(
        st.sampled_from(
            [
                "question_text",
                "annotations",
                "document_text",
                "question",
                "answer",
                "loc",
                "loc_ans",
            ]
        ),
        json_values,
    )
)
def test_any_row_as_nq(tmp_path, row):
    path = tmp_path / "nq.jsonl"
    path.write_text(json.dumps(row) + "\n")
    try:
        assert all(q and a for q, a in read_nq(path))
    except DataError as error:
        assert str(path) in str(error)


def test_nq_in_its_forms(tmp_path):
    rows = [
        {"question": "who sang it", "answer": ["Elvis", "Presley"]},
        {
            "question_text": "when was it",
            "document_text": "it was in May 1969 they say",
            "annotations": [
                {"short_answers": [{"start_token": 3, "end_token": 5}], "yes_no_answer": "NONE"}
            ],
        },
        {
            "question_text": "no answer",
            "document_text": "x",
            "annotations": [{"short_answers": [], "yes_no_answer": "NONE"}],
        },
        {"loc": "nq question: where is it", "loc_ans": "here"},
    ]
    path = tmp_path / "nq.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert read_nq(path) == [
        ("who sang it", "Elvis"),
        ("when was it", "May 1969"),
        ("where is it", "here"),
    ]


@real_files
def test_nq_out_of_e_vqa():
    questions = read_nq(SHARED / "vqa_eval.json")
    assert len(questions) == 2093 and not questions[0][0].startswith("nq question")


@given(n=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 9))
def test_locality_questions_repeat_only_when_all_are_used(n, size, seed):
    dealt = deal([(str(i), "a") for i in range(size)], n, seed)
    counts = Counter(q for q, _ in dealt)
    assert (len(dealt) == n and max(counts.values()) - min(counts.values()) <= 1) or n < size
    assert max(counts.values()) <= -(-n // size)


def pool_of(*pairs):
    return AnswerPool([ImageGroup("i", "i", tuple(pairs))])


def test_counterfactual_answers_follow_the_question_types_distribution():
    pairs = [QA(f"r{i}", "q", "red", "what color", "other") for i in range(90)]
    pairs += [QA(f"b{i}", "q", "blue", "what color", "other") for i in range(30)]
    pairs += [QA(f"g{i}", "q", "green", "what color", "other") for i in range(10)]
    pairs += [QA("d", "q", "dog", "what animal", "other"), QA("n", "q", "3", "how many", "number")]
    pool = pool_of(*pairs)
    drawn = Counter(
        pool.draw(QA(str(i), "q", "red", "what color", "other"), 0) for i in range(2000)
    )
    assert set(drawn) == {"blue", "green"} and 2.4 < drawn["blue"] / drawn["green"] < 3.8
    lone = QA("d", "q", "dog", "what animal", "other")
    assert pool.draw(lone, 0) in {"red", "blue", "green"}  # no other animal: same answer type
    assert pool.draw(QA("n", "q", "3", "how many", "number"), 0) is None
    assert pool.draw(QA("y", "q", "Yes", "is", "yes/no"), 0) == "no"


def test_what_any_annotator_said_is_no_counterfactual_answer():
    pairs = [QA(str(i), "q", a, "t", "other") for i, a in enumerate(("cup", "mug", "vase"))]
    asked = QA("0", "q", "cup", "t", "other", accepted=("cup", "Mug"))
    assert {pool_of(*pairs).draw(asked, seed) for seed in range(20)} == {"vase"}
    assert pool_of(*pairs).draw(asked, 3) == pool_of(*pairs).draw(asked, 3)
