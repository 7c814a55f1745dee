"""Records of the second edition: FGVEdit's schema, pairs, and novelty that training never shows."""

import json
import random

import pytest
from PIL import Image

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.scenes.second import language
from easyedit_mm_plugins.scenes.second.records import make_records, write_scenes
from easyedit_mm_plugins.scenes.second.world import draw


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), n_train=24, n_test=20)


def test_records_read_as_fgvedit_and_pairs_are_whole(files):
    records = FGVEditDataset(files.test, image_root=files.images, extra=True).records
    assert len(records) == 20
    for first, second in zip(records[::2], records[1::2], strict=True):
        assert first.pair == second.pair is not None
        assert first.edit.text == second.edit.text and first.edit.image != second.edit.image
        texts = {q.text for q in (first.in_scope[0], first.out_scope[0])}
        assert texts == {q.text for q in (second.in_scope[0], second.out_scope[0])}
        assert first.in_scope[0].text == second.out_scope[0].text
        assert first.in_scope[0].hard and first.out_scope[0].hard
        assert {q.sort for q in first.in_scope} >= {"easy"}


def test_pictures_differ_as_they_say(files):
    raw = json.loads(files.test.read_text())
    _, pictures = make_records("test", 20)
    assert set(pictures) == {
        record[field]
        for record in raw
        for field in ("image", "image_rephrase", "image_far", "m_loc_near")
    }
    for record in raw:
        scene, drawing = pictures[record["image"]]
        with Image.open(files.images / record["image"]) as image:
            assert image.size == drawing.size
        assert pictures[record["image_rephrase"]][0] == scene == pictures[record["image_far"]][0]
        assert pictures[record["image_far"]][1].far
        near = pictures[record["m_loc_near"]][0]
        assert len(set(near.entities) ^ set(scene.entities)) == 2
        assert draw(scene, drawing)[0].shape[:2] == drawing.size[::-1]


def test_text_only_questions_of_the_test_are_unseen_by_editors(files):
    def facts(path):
        return {record["loc"] for record in json.loads(path.read_text())}

    assert not facts(files.train) & facts(files.test)
    known = {language.FACT_PREFIX + q for f in language.UNSEEN_FACTS for q in f.questions}
    assert facts(files.test) <= known


def test_the_same_seed_gives_the_same_records_and_pictures_are_never_shared():
    records, _ = make_records("train", 12)
    assert make_records("train", 12)[0] == records
    assert make_records("train", 12, seed=1)[0] != records
    rng = random.Random(0)
    rng.shuffle(records)
    assert len({r["image"] for r in records}) == 12


def test_a_finished_set_is_found_and_another_is_refused(files):
    before = files.test.stat().st_mtime_ns
    assert write_scenes(files.root, n_train=24, n_test=20).test.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="other settings"):
        write_scenes(files.root, n_train=25, n_test=20)
