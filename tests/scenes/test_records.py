"""Scenes on disk: schema, disjoint splits, resuming."""

import json

import pytest
from PIL import Image

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data.fgvedit import FGVEditDataset
from easyedit_mm_plugins.scenes import records
from easyedit_mm_plugins.scenes.world import make_scene

FIELDS = (
    "src pred alt rephrase image image_rephrase fg_gen_q fg_gen_a fg_loc_q fg_loc_a loc loc_ans"
    " m_loc m_loc_q m_loc_a"
).split()


@pytest.fixture(scope="module")
def made():
    return {split: records.make_records(split, 150) for split in ("train", "test")}


def test_records_have_the_schema(made):
    for rows, images in made.values():
        assert len(images) == 300
        for row in rows:
            assert all(isinstance(row[f], str) and row[f] for f in FIELDS)
            assert row["alt"] != row["pred"] and row["rephrase"] != row["src"]
            assert {row["image"], row["image_rephrase"], row["m_loc"]} <= set(images)
            assert row["m_loc"] != row["image"]
            for side, q in (("in", "fg_gen_q"), ("out", "fg_loc_q")):
                extra = row["fg_extra"][side]
                assert 3 <= len(extra) <= 6 and any(e["hard"] for e in extra)
                assert all(set(e) == {"q", "a", "hard"} and e["a"] for e in extra)
                assert row[q] not in (row["src"], row["rephrase"])
            assert row["src"] not in [e["q"] for e in row["fg_extra"]["out"]]


def test_splits_are_disjoint_by_graph_and_wording(made):
    keys = {s: {make_scene(sc.entities).key for sc, _ in made[s][1].values()} for s in made}
    assert len(keys["train"]) == len(keys["test"]) == 150
    assert not keys["train"] & keys["test"]
    questions = {s: {r["src"] for r in made[s][0]} for s in made}
    rephrased = {r["rephrase"] for r in made["test"][0]}
    assert questions["train"] & questions["test"]  # edits are asked in familiar words
    train_words = questions["train"] | {r["rephrase"] for r in made["train"][0]}
    assert not rephrased & train_words


def test_yes_no_is_a_minority(made):
    for rows, _ in made.values():
        for field in ("fg_gen_a", "fg_loc_a"):
            share = sum(r[field] in ("yes", "no") for r in rows) / len(rows)
            assert 0.15 < share < 0.45


def test_written_once_found_again_and_completed(tmp_path):
    files = records.write_scenes(tmp_path / "s", 6, 4)
    whole = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    assert len(whole) == 3 + 2 * 10
    stamps = {p: p.stat().st_mtime_ns for p in whole}
    assert records.ensure_scenes(tmp_path / "s", 6, 4) == files
    assert {p: p.stat().st_mtime_ns for p in whole} == stamps

    (files.images / "train" / "00002.png").unlink()  # as after a kill
    files.test.write_text(files.test.read_text()[:40])
    records.write_scenes(tmp_path / "s", 6, 4)
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == whole
    with pytest.raises(DataError, match="other settings"):
        records.write_scenes(tmp_path / "s", 6, 5)


def test_the_common_reader_reads_them(tmp_path):
    files = records.write_scenes(tmp_path, 3, 3, seed=5)
    raw = json.loads(files.test.read_text())
    data = FGVEditDataset(files.test, image_root=files.images)
    extra = FGVEditDataset(files.test, extra=True)
    assert len(data) == 3 and [r.case_id for r in data] == [r["case_id"] for r in raw]
    for row, record, more in zip(raw, data, extra, strict=True):
        assert (record.edit.text, record.edit.answer) == (row["src"], row["alt"])
        assert Image.open(record.edit.image).size == (64, 64)
        assert len(record.in_scope) == len(record.out_scope) == len(record.text_loc) == 1
        assert record.image_rephrase[0].answer == row["alt"]
        assert record.image_loc[0].answer == row["m_loc_a"]
        assert len(more.in_scope) == 1 + len(row["fg_extra"]["in"])
