"""Verification: every kind of damage is found, named, and cleaned up on request."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.core.registry import resolve
from easyedit_mm_plugins.data import DATASETS, FGVEditDataset
from easyedit_mm_plugins.data.tools.pictures import look, look_at_all
from easyedit_mm_plugins.data.tools.verify import verify

from ..conftest import picture

SHARED = Path(__file__).parents[3] / "shared" / "data" / "mmedit"
real_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real annotation files are absent")
RECORD = {
    "src": "what color is the circle?",
    "pred": "red",
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
    picture(1).save(tmp_path / "b.png")

    def write(records, name="records.json"):
        (tmp_path / name).write_text(json.dumps(records))
        return tmp_path / name

    return write


def checks(report):
    return {(f.level, f.check, f.record, f.field) for f in report.findings}


def test_a_good_file_is_fit_for_use(write, tmp_path):
    report = verify(write([RECORD]), tmp_path)
    assert report.findings == [] and report.exit_code(strict=True) == 0
    assert report.images == {"files": 1, "good": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"alt": ""}, ("error", "schema", 0, "alt")),
        ({"alt": 3}, ("error", "schema", 0, "alt")),
        ({"loc": []}, ("error", "schema", 0, "loc")),
        ({"fg_extra": {"in": [{"q": "x"}]}}, ("error", "schema", 0, "fg_extra")),
        ({"fg_gen_a": ["a", "b"]}, ("error", "pairs", 0, "fg_gen_a")),
        ({"alt": "Red."}, ("warning", "no-change", 0, "alt")),
        ({"rephrase": "What color is the circle"}, ("warning", "rephrase", 0, None)),
        ({"fg_loc_q": RECORD["fg_gen_q"]}, ("error", "contradiction", 0, "fg_loc_q")),
        ({"fg_loc_q": RECORD["src"]}, ("error", "contradiction", 0, "fg_loc_q")),
        ({"fg_gen_q": RECORD["src"], "fg_gen_a": "red"}, ("error", "contradiction", 0, "fg_gen_a")),
        ({"image": "gone.png"}, ("error", "image", 0, "image")),
        ({"src": "why " * 90}, ("warning", "tokens", 0, "src")),
    ],
)
def test_damage_within_a_record(write, tmp_path, change, expected):
    report = verify(write([RECORD | change]), tmp_path)
    assert expected in checks(report)
    assert report.exit_code() == (expected[0] == "error")
    assert report.exit_code(strict=True) == 1


def test_a_record_without_any_scope_question(write, tmp_path):
    bare = {k: v for k, v in RECORD.items() if not k.startswith("fg_")}
    assert ("error", "scopes", 0, "fg_gen_q") in checks(verify(write([bare]), kind="fgvedit"))


def test_duplicates_contradictions_and_leakage(write, tmp_path):
    other = RECORD | {"alt": "blue", "fg_gen_a": "blue"}
    train = write([RECORD, RECORD, other], "train.json")
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    test = write([RECORD | {"image": "copy.png"}, RECORD, RECORD | {"image": "b.png"}], "test.json")
    report = verify([train, test], tmp_path)
    found = Counter((f.check, Path(f.file).name, f.record) for f in report.findings)
    assert found["duplicate", "train.json", 1] == 1
    assert found["contradiction", "train.json", 2] == 1
    assert found["leakage", "test.json", 0] == found["leakage", "test.json", 1] == 1
    assert ("leakage", "test.json", 2) not in found
    by_name = verify([train, test])  # without images, names are all there is
    assert {f.record for f in by_name.findings if f.check == "leakage"} == {1}


def test_counts_are_those_of_the_published_files(write):
    (found,) = verify(write([RECORD], "test_data.json")).findings
    assert found.check == "count" and "2,778" in found.message
    assert verify(write([RECORD], "mine_test.json")).findings == []


def test_pictures_of_every_odd_kind(tmp_path):
    good = picture(0, 64)
    good.save(tmp_path / "rgb.jpg")
    good.convert("L").save(tmp_path / "grey.jpg")
    good.convert("CMYK").save(tmp_path / "cmyk.jpg")
    good.convert("P").save(tmp_path / "palette.png")
    good.convert("RGBA").save(tmp_path / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    good.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (8000, 6000)).save(tmp_path / "huge.png")
    whole = (tmp_path / "rgb.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    reports = {Path(r.path).stem: r for r in look_at_all(tmp_path.iterdir())}
    odd = {name: r.oddities for name, r in reports.items() if r.problem is None}
    assert odd == {
        "rgb": (),
        "grey": ("grey",),
        "cmyk": ("cmyk",),
        "palette": ("palette",),
        "alpha": ("alpha",),
        "turned": ("exif-rotated",),
        "huge": ("grey", "huge"),
    }
    bad = {name: r.problem for name, r in reports.items() if r.problem}
    assert set(bad) == {"cut", "empty", "text"}
    assert "cannot be decoded" in bad["cut"] and bad["empty"] == "image file is empty"


def test_many_pictures_are_looked_at_by_processes(tmp_path):
    for i in range(320):
        (tmp_path / f"{i}.png").write_bytes(b"broken" if i == 7 else b"")
    picture(0).save(tmp_path / "8.png")
    reports = look_at_all(tmp_path.iterdir(), workers=2)
    assert reports == [look(r.path) for r in reports] and len(reports) == 320
    assert [Path(r.path).name for r in reports if r.problem is None] == ["8.png"]


def test_a_tokenizer_of_ones_own(write, tmp_path):
    from ..conftest import tiny_tokenizer

    tiny_tokenizer().save_pretrained(tmp_path / "tok")
    report = verify(
        write([RECORD | {"src": "what is the gizmo?"}]), tokenizer=str(tmp_path / "tok")
    )
    (found,) = [f for f in report.findings if f.field == "src"]
    assert "does not know" in found.message
    short = verify(write([RECORD]), tokenizer=str(tmp_path / "tok"), max_tokens=4)
    assert "limit is 4" in next(f.message for f in short.findings if f.field == "src")
    with pytest.raises(ConfigError, match="cannot load the tokenizer"):
        verify(write([RECORD]), tokenizer=str(tmp_path / "none"))


def test_fix_writes_a_copy_that_can_be_used(write, tmp_path):
    bad = [
        RECORD | {"alt": " "},
        RECORD | {"image": "gone.png"},
        RECORD | {"src": "  what   color is the star? "},
        RECORD,
        RECORD,
    ]
    path = write(bad, "train.json")
    before = path.read_bytes()
    report = verify(path, tmp_path, fix=tmp_path / "clean")
    assert [i for i, _ in report.dropped[str(path)]] == [0, 1, 4]
    assert path.read_bytes() == before
    kept = FGVEditDataset(tmp_path / "clean" / "train.json", image_root=tmp_path)
    assert [r.edit.text for r in kept] == ["what color is the star?", RECORD["src"]]
    assert verify(tmp_path / "clean" / "train.json", tmp_path).errors == []
    with pytest.raises(ConfigError, match="overwrite"):
        verify(path, tmp_path, fix=tmp_path)


def test_the_command_reports_and_exits(write, tmp_path):
    path = write([RECORD, RECORD | {"image": "gone.png"}])
    run = CliRunner()
    found = run.invoke(app, ["verify", str(path), "--images", str(tmp_path), "--json", "-"])
    report = json.loads(found.stdout)
    assert found.exit_code == 1 and report["counts"]["error"] == {"image": 1}
    assert report["findings"][0]["record"] == 1 and not report["ok"]
    clean = tmp_path / "clean"
    arguments = ["verify", str(path), "--images", str(tmp_path), "--fix", str(clean)]
    found = run.invoke(app, arguments)
    assert "not fit for use: 1 errors" in found.stdout and "1 records left out" in found.stdout
    found = run.invoke(app, ["verify", str(clean / path.name), "--images", str(tmp_path)])
    assert found.exit_code == 0, found.output


def test_files_that_are_none(tmp_path, write):
    (tmp_path / "no.json").write_text('[{"src": ')
    report = verify(tmp_path / "no.json")
    assert [f.check for f in report.errors] == ["file"] and report.exit_code() == 1
    with pytest.raises(DataError, match="does not exist"):
        verify(tmp_path / "gone.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no JSON file"):
        verify(tmp_path / "empty")


@real_files
@pytest.mark.parametrize(
    ("train", "test", "name"),
    [
        ("vqa_train.json", "vqa_eval.json", "e-vqa"),
        ("caption_train_edit.json", "caption_eval_edit.json", "e-ic"),
    ],
)
def test_the_real_files_are_as_published(train, test, name):
    report = verify([SHARED / train, SHARED / test])
    assert {about["kind"] for about in report.files.values()} == {name}
    assert not [f for f in report.findings if f.check in ("count", "schema")]
    # What the files are known to hold: two edits twice in E-VQA's training, one in its test part.
    twice = [f for f in report.findings if f.check == "duplicate"]
    assert len(twice) == {"e-vqa": 3, "e-ic": 0}[name]
    reader = resolve(DATASETS.get(name).reader)
    records = reader(SHARED / test, check="off", image_root=SHARED / "images")
    assert len(records) == report.files[str(SHARED / test)]["records"]
    assert records[0].image_rephrase and records[0].image_loc and not records[0].in_scope


@real_files
def test_real_pictures_that_are_there_and_that_are_not(tmp_path):
    there = {p.name for p in (SHARED / "images" / "val2014").iterdir()}
    rows = json.loads((SHARED / "vqa_train.json").read_text())
    some = [r for r in rows if Path(r["image"]).name in there][:5] + rows[:3]
    (tmp_path / "vqa.json").write_text(json.dumps(some))
    report = verify(tmp_path / "vqa.json", SHARED / "images")
    good = {r["image"] for r in some if Path(r["image"]).name in there}
    assert report.images["good"] >= len(good) and report.exit_code() == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
ANY = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))


@ANY
@given(
    changes=st.dictionaries(
        st.sampled_from([*RECORD, "fg_extra", "m_loc", "m_loc_q", "case_id"]), json_values
    )
)
def test_verify_and_the_reader_agree_on_any_record(write, tmp_path, changes):
    path = write([RECORD | changes])
    report = verify(path, tmp_path, tokenizer=None, kind="fgvedit")
    if not report.errors:
        assert len(FGVEditDataset(path)) == 1


@ANY
@given(content=json_values)
def test_any_json_is_verified_without_a_traceback(write, content):
    path = write(content)
    report = verify(path)
    if not isinstance(content, list) or not content:
        assert report.errors


@ANY
@given(content=st.binary(max_size=200), cut=st.integers(0, 400))
def test_any_bytes_as_a_picture(tmp_path, content, cut):
    path = tmp_path / "x.png"
    picture(0).save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[:cut] + content + raw[cut + len(content) :])
    report = look(str(path))
    assert report.problem is None or report.problem.startswith("image ")
