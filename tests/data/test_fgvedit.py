"""The FGVEdit reader: real field names in, clear errors out."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import FGVEditDataset, check_images

from ..conftest import picture

RECORD = {
    "src": "what color is the circle?",
    "alt": "green",
    "rephrase": "which color does the circle have?",
    "image": "a.png",
    "fg_gen_q": "what color is the thing in the top left?",
    "fg_gen_a": "green",
    "fg_loc_q": "what color is the square?",
    "fg_loc_a": "red",
    "loc": "nq question: what is the capital of france",
    "loc_ans": "paris",
}


@pytest.fixture
def write(tmp_path):
    picture(0).save(tmp_path / "a.png")

    def write(records, name="records.json"):
        path = tmp_path / name
        path.write_text(records if isinstance(records, str) else json.dumps(records))
        return path

    return write


def test_a_released_record_is_read_whole(write, tmp_path):
    record = FGVEditDataset(write([RECORD]))[0]
    assert record.edit.text == RECORD["src"] and record.edit.answer == "green"
    assert record.edit.image == tmp_path / "a.png"
    assert [q.answer for q in record.rephrase] == ["green"]
    assert record.in_scope[0].text == RECORD["fg_gen_q"]
    assert record.out_scope[0].answer == "red"
    assert record.text_loc[0].image is None
    assert record.image_loc == record.image_rephrase == ()


def test_lists_extra_questions_and_e_vqa_fields(write):
    record = RECORD | {
        "fg_gen_q": ["a?", "b?"],
        "fg_gen_a": ["green", "yes"],
        "fg_extra": {"in": [{"q": "is it green?", "a": "yes"}], "out": []},
        "image_rephrase": "a.png",
        "m_loc": "a.png",
        "m_loc_q": "how many?",
        "m_loc_a": "two",
    }
    path = write([record])
    plain, extra = FGVEditDataset(path)[0], FGVEditDataset(path, extra=True)[0]
    assert len(plain.in_scope) == 2 and len(extra.in_scope) == 3
    assert plain.image_rephrase[0].text == RECORD["src"]
    assert plain.image_loc[0].answer == "two"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"alt": ""}, "alt", "is empty"),
        ({"alt": None}, "alt", "is missing"),
        ({"src": 5}, "src", "not text"),
        ({"image": "gone.png"}, "image", "image not found"),
        ({"image": "broken.png"}, "image", "cannot be decoded"),
        ({"image": "cut.png"}, "image", "cannot be decoded"),
        (
            {f"fg_{side}_{x}": "" for side in ("gen", "loc") for x in "qa"},
            "fg_gen_q",
            "both missing",
        ),
        ({"fg_loc_q": None}, "fg_loc_q", "is missing"),
        ({"fg_gen_a": []}, "fg_gen_a", "is empty"),
        ({"fg_gen_q": ["a", "b"]}, "fg_gen_a", "1 answers for 2"),
        ({"fg_extra": {"in": ["x"]}}, "fg_extra", "must look like"),
        ({"m_loc": "a.png"}, "m_loc_q", "is missing"),
    ],
)
def test_a_bad_record_is_named_and_can_be_left_out(write, tmp_path, change, field, says):
    (tmp_path / "broken.png").write_bytes(b"this is no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    path = write([RECORD, RECORD | change])
    with pytest.raises(DataError, match=says) as caught:
        FGVEditDataset(path)
    assert caught.value.record == 1 and caught.value.field == field
    assert str(path) in str(caught.value) and "remedy" in str(caught.value)
    kept = FGVEditDataset(path, skip_bad=True)
    assert len(kept) == 1 and len(kept.skipped) == 1


@pytest.mark.parametrize("field", ["src", "alt", "rephrase", "image", "loc", "loc_ans"])
def test_a_missing_field_is_named(write, field):
    with pytest.raises(DataError, match="is missing") as caught:
        FGVEditDataset(write([{k: v for k, v in RECORD.items() if k != field}]))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"src": "a', "cut short"),
        ("{}", "not a list"),
        ("[]", "no usable record"),
        ("[3]", "not an object"),
    ],
)
def test_a_broken_file_is_named(write, text, says):
    with pytest.raises(DataError, match=says):
        FGVEditDataset(write(text))


def test_duplicate_case_ids_and_absent_files(write, tmp_path):
    with pytest.raises(DataError, match="appears twice"):
        FGVEditDataset(write([RECORD | {"case_id": 1}] * 2))
    with pytest.raises(DataError, match="does not exist"):
        FGVEditDataset(tmp_path / "none.json")


def test_easyedit_config_gives_the_image_root(write, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    picture(1).save(tmp_path / "elsewhere" / "a.png")

    class Config:
        coco_image = str(tmp_path / "elsewhere")

    assert "elsewhere" in str(FGVEditDataset(write([RECORD]), config=Config())[0].edit.image)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changes=st.dictionaries(st.sampled_from([*RECORD, "fg_extra", "m_loc", "case_id"]), json_values)
)
def test_any_json_is_a_dataset_or_a_clear_error(write, changes):
    path = write([RECORD | changes])
    try:
        records = FGVEditDataset(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(q.text.strip() for group in records[0].questions().values() for q in group)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=64), prefix=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF8"]))
def test_any_bytes_as_an_image_are_a_named_problem(tmp_path, content, prefix):
    path = tmp_path / "any.png"
    path.write_bytes(prefix + content)
    assert set(check_images([path])) <= {str(path)}
