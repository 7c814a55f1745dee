"""Hostile records, images and image paths: refused by name, or read as what they mean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import FGVEditDataset, check_images, open_image
from easyedit_mm_plugins.data.evqa import EVQADataset
from easyedit_mm_plugins.data.record_files import record_files
from easyedit_mm_plugins.data.tools.construct.judge import image_digest, image_url
from easyedit_mm_plugins.data.tools.construct.tables import EVQASource, TableSource
from easyedit_mm_plugins.data.tools.pictures import look
from easyedit_mm_plugins.data.tools.preview import write_preview
from easyedit_mm_plugins.data.tools.verify import verify

from ..conftest import picture

ROOT = Path(__file__).parents[2]
LONG = "n" * 300 + ".png"
HALF = "half \ud83d a pair"
RECORD = {
    "src": "what color is the circle?",
    "alt": "green",
    "rephrase": "which color does the circle have?",
    "image": "a.png",
    "fg_gen_q": "what color is the thing in the top left?",
    "fg_gen_a": "green",
    "loc": "nq question: what is the capital of france",
    "loc_ans": "paris",
}
BAD_RECORDS = {
    "long image name": ({"image": LONG}, "image", "cannot be read"),
    "NUL in the image name": ({"image": "a\0.png"}, "image", "NUL"),
    "half a pair in the image name": ({"image": "\ud83d.png"}, "image", "not valid Unicode"),
    "half a pair in a text": ({"alt": HALF}, "alt", "not valid Unicode"),
    "half a pair in an extra question": (
        {"fg_extra": {"in": [{"q": HALF, "a": "x"}]}},
        "fg_extra",
        "not valid Unicode",
    ),
    "an empty extra question": ({"fg_extra": {"in": [{"q": " ", "a": "x"}]}}, "fg_extra", "look"),
    "half a pair in the id": ({"case_id": HALF}, "case_id", "not valid Unicode"),
    "a null id": ({"case_id": None}, "case_id", "NoneType"),
    "a list as id": ({"case_id": ["1"]}, "case_id", "list"),
    "an object as id": ({"case_id": {"a": 1}}, "case_id", "dict"),
    "a boolean as id": ({"case_id": True}, "case_id", "bool"),
    "two questions": ({"src": ["what?", "which?"]}, "src", "2 texts"),
    "two answers": ({"alt": ["red", "green"]}, "alt", "2 texts"),
    "two images": ({"image": ["a.png", "b.png"]}, "image", "2 texts"),
    "two other images": ({"m_loc": ["a.png", "b.png"]}, "m_loc", "2 texts"),
    "zero as another image": ({"m_loc": 0}, "m_loc", "int"),
    "an absolute image path": ({"image": "/etc/a.png"}, "image", "leads out of the image folder"),
    "a path that climbs": ({"image": "../a.png"}, "image", "leads out of the image folder"),
    "a path that climbs later": ({"image": "x/../../a.png"}, "image", "leads out"),
    "a rephrase path that climbs": ({"image_rephrase": "../a.png"}, "image_rephrase", "leads out"),
}


@pytest.fixture
def write(tmp_path):
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    picture(0).save(folder / "a.png")
    picture(1).save(folder / "b.png")
    picture(2).save(folder / "below" / "c.png")
    picture(3).save(tmp_path / "outside.png")

    def write(records, name="records.json"):
        path = folder / name
        path.write_text(records if isinstance(records, str) else json.dumps(records))
        return path

    return write


@pytest.mark.parametrize(("change", "field", "says"), BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_bad_input_is_named_and_skip_bad_leaves_it_out(write, change, field, says):
    path = write([RECORD, RECORD | change])
    with pytest.raises(DataError, match=says) as caught:
        FGVEditDataset(path, image_root=path.parent)
    error = caught.value
    assert (error.record, error.field) == (1, field) and error.remedy
    str(error).encode()  # it can be printed
    assert len(FGVEditDataset(path, image_root=path.parent, skip_bad=True)) == 1
    found = verify(path, path.parent, tokenizer=None, kind="fgvedit").errors
    assert {(f.record, f.field) for f in found} == {(1, field)}


@pytest.mark.parametrize("field", ["src", "image", "case_id", "fg_gen_a"])
def test_a_number_of_5000_digits_is_one_bad_record(write, field):
    text = json.dumps([RECORD, RECORD | {field: 123454321}])
    path = write(text.replace("123454321", "7" * 5000))
    with pytest.raises(DataError, match="is a float, not text") as caught:
        FGVEditDataset(path)
    assert caught.value.record == 1 and caught.value.field == field
    assert len(FGVEditDataset(path, skip_bad=True)) == 1
    assert {(f.record, f.field) for f in verify(path, kind="fgvedit").errors} == {(1, field)}


def test_one_text_in_a_list_is_that_text(write):
    record = FGVEditDataset(write([RECORD | {"src": ["what?"], "image": ["b.png"]}]))[0]
    assert record.edit.text == "what?" and Path(record.edit.image).name == "b.png"


def test_paths_stay_inside_unless_an_option_says_otherwise(write, tmp_path):
    outside, inside = tmp_path / "outside.png", tmp_path / "data" / "below" / "c.png"
    for name in ("../outside.png", str(outside)):
        path = write([RECORD | {"image": name}])
        for root in (None, path.parent):
            with pytest.raises(DataError, match="--allow-outside"):
                FGVEditDataset(path, image_root=root)
            read = FGVEditDataset(path, image_root=root, allow_outside=True)
            assert read[0].edit.image.resolve() == outside
    for name in ("below/c.png", "below/../below/c.png", str(inside)):
        assert FGVEditDataset(write([RECORD | {"image": name}]))[0].edit.image == inside
    (tmp_path / "data" / "link").symlink_to(tmp_path)  # the user's own link is no way out
    assert FGVEditDataset(write([RECORD | {"image": "link/outside.png"}]))


def test_without_a_root_images_may_lie_in_the_files_own_folder(write, tmp_path):
    path = write([RECORD | {"image": "../a.png"}])
    (path.parent / "images").mkdir()  # now the default root
    assert FGVEditDataset(path)[0].edit.image == path.parent / "a.png"
    with pytest.raises(DataError, match="leads out"):
        FGVEditDataset(path, image_root=path.parent / "images")


def test_each_image_field_stays_in_its_own_root(write, tmp_path):
    row = RECORD | {"image_rephrase": str(tmp_path / "data" / "b.png")}
    path = write([row])
    assert EVQADataset(path)[0].image_rephrase
    with pytest.raises(DataError, match="leads out") as caught:
        EVQADataset(path, rephrase_root=path.parent / "below")
    assert caught.value.field == "image_rephrase"
    assert EVQADataset(path, rephrase_root=path.parent / "below", allow_outside=True)


def test_the_data_commands_refuse_paths_that_lead_out(write, tmp_path):
    path, root = write([RECORD | {"image": "../outside.png"}]), str(tmp_path / "data")
    with pytest.raises(DataError, match="leads out") as caught:
        write_preview(path, tmp_path / "page.html", images=root)
    assert caught.value.record == 0 and not (tmp_path / "page.html").exists()
    run, page = CliRunner(), str(tmp_path / "page.html")
    arguments = ["preview", str(path), "--images", root, "--out", page, "--allow-outside"]
    assert run.invoke(app, arguments).exit_code == 0
    assert "image/jpeg;base64" in (tmp_path / "page.html").read_text()
    arguments = ["verify", str(path), "--images", root]
    assert "leads out" in run.invoke(app, arguments).output
    assert run.invoke(app, [*arguments, "--allow-outside"]).exit_code == 0


def test_sources_refuse_paths_that_lead_out(write, tmp_path):
    rows = [RECORD, RECORD | {"image": str(tmp_path / "outside.png")}]
    table = write(
        [{"image": r["image"], "question": "what?", "answer": "a"} for r in rows], "t.json"
    )
    images = tmp_path / "data"
    for source, file in ((EVQASource, write(rows)), (TableSource, table)):
        with pytest.raises(DataError, match="leads out") as caught:
            list(source(file, images).groups())
        assert str(caught.value.record) == "1" and caught.value.field == "image"
        assert len(list(source(file, images, allow_outside=True).groups())) == 2


@pytest.mark.parametrize("bad", [HALF, None, [], float("inf")])
def test_sources_name_texts_and_ids_that_are_none(write, bad):
    row = {"id": 3, "image": "a.png", "question": "what?", "answer": "a"}
    (group,) = TableSource(write([row])).groups()
    assert group.pairs[0].qid == "3"
    for field in ("question", "id") if bad is not None else ("question",):
        with pytest.raises(DataError) as caught:
            list(TableSource(write([row, row | {field: bad}])).groups())
        assert caught.value.record == "1" and caught.value.field == field


def bomb(path, side=20_000):
    """A PNG of a few bytes whose header promises 400 million pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def test_a_decompression_bomb_is_refused_everywhere(write, tmp_path):
    path = bomb(tmp_path / "data" / "bomb.png")
    for opening in (open_image, lambda p: image_url(p, 512)):
        with pytest.raises(DataError, match=r"bomb\.png: image is too large to be safe"):
            opening(path)
    assert "too large" in check_images([path])[str(path)] and "too large" in look(str(path)).problem
    records = write([RECORD | {"image": "bomb.png"}])
    with pytest.raises(DataError, match="too large"):
        FGVEditDataset(records)
    assert write_preview(records, tmp_path / "page.html", images=path.parent) == 1


@pytest.mark.parametrize("name", [LONG, "a\0.png", "\ud83d.png"])
def test_names_that_no_file_can_have(tmp_path, name):
    path = tmp_path / name
    assert look(str(path)).problem.startswith("image cannot be read")
    assert str(path) in check_images([path]) and str(path) in check_images([path], decode=False)
    for opening in (open_image, image_digest):
        with pytest.raises(DataError):
            opening(path)
    with pytest.raises(DataError, match=r"cannot be read|does not exist"):
        record_files(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("scale", [256, 257])
def test_sixteen_bits_become_eight(tmp_path, suffix, scale):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values * scale).save(path)
    assert check_images([path]) == {} and look(str(path)).problem is None
    with Image.open(path) as opened:
        for read in (open_image(path), open_image(opened)):
            assert read.mode == "RGB"
            assert (np.asarray(read) == values[..., None]).all()


def test_pixels_of_unknown_range_are_refused(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    with pytest.raises(DataError, match="unknown range"):
        open_image(path)
    assert "unknown range" in check_images([path])[str(path)]
    assert "unknown range" in look(str(path)).problem


def test_a_command_prints_what_no_terminal_can_show(write):
    path = write([RECORD | {"alt": HALF}])
    for arguments in (["stats", str(path)], ["stats", str(path), "--json"]):
        code = "from easyedit_mm_plugins.cli.app import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "data", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "half \\ud83d a pair" in done.stdout
