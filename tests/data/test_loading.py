"""Images are opened when needed, kept in bounded memory, by worker processes if asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import DATASETS, FGVEditDataset
from easyedit_mm_plugins.data.evqa import EVQADataset
from easyedit_mm_plugins.data.loading import PreparedRecords, TensorCache

from ..conftest import picture, tiny_image_processor

ROOT = Path(__file__).parents[2]
ROW = {
    "src": "what is it?",
    "pred": "no",
    "rephrase": "what can be seen?",
    "alt": "a cat",
    "image": "a.png",
    "image_rephrase": "r.png",
    "loc": "nq question: who",
    "loc_ans": "me",
    "m_loc": "b.png",
    "m_loc_q": "how many?",
    "m_loc_a": "two",
}


def to_tensor(image):
    array = np.asarray(image).copy()
    return torch.from_numpy(array).permute(2, 0, 1).float() / 255


@pytest.fixture
def records(tmp_path):
    for i, name in enumerate("abr"):
        picture(i).save(tmp_path / f"{name}.png")
    rows = [ROW | {"image": f"{'ab'[i % 2]}.png"} for i in range(6)]
    (tmp_path / "vqa.json").write_text(json.dumps(rows))
    return EVQADataset(tmp_path / "vqa.json")


def test_e_vqa_records(records, tmp_path):
    record = records[0]
    assert record.edit.answer == "a cat" and record.rephrase[0].text == ROW["rephrase"]
    assert record.image_rephrase[0].image == tmp_path / "r.png"
    assert record.image_rephrase[0].text == ROW["src"]
    assert record.image_loc[0].answer == "two" and record.in_scope == record.out_scope == ()
    assert DATASETS.get("E-VQA") is EVQADataset and issubclass(DATASETS.get("eic"), EVQADataset)
    with pytest.raises(DataError, match="both missing"):
        FGVEditDataset(tmp_path / "vqa.json")


def test_rephrased_images_may_lie_elsewhere(records, tmp_path):
    (tmp_path / "other").mkdir()
    picture(5).save(tmp_path / "other" / "r.png")

    class Config:
        coco_image = str(tmp_path)
        rephrase_image = str(tmp_path / "other")

    found = EVQADataset(tmp_path / "vqa.json", config=Config())
    assert found[0].image_rephrase[0].image == tmp_path / "other" / "r.png"
    assert found[0].image_loc[0].image == tmp_path / "b.png"
    (tmp_path / "other" / "r.png").unlink()
    with pytest.raises(DataError, match="image not found"):
        EVQADataset(tmp_path / "vqa.json", config=Config())


def test_the_cache_keeps_to_its_bound():
    cache = TensorCache(max_bytes=1000)
    for i in range(10):
        cache.get(str(i), lambda: torch.zeros(100))  # 400 bytes each
        assert cache.bytes <= 1000
    assert len(cache) == 2 and cache.misses == 10
    cache.get("8", lambda: 1 / 0)
    cache.get("10", lambda: torch.zeros(100))
    assert cache.hits == 1
    cache.get("8", lambda: 1 / 0)  # used last, so it is still there
    cache.get("large", lambda: torch.zeros(10_000))
    assert len(cache) == 2
    with pytest.raises(ConfigError):
        TensorCache(-1)


def test_pictures_are_prepared_when_asked_for_and_once(records):
    opened = []

    def prepare(image):
        opened.append(image.size)
        return to_tensor(image)

    prepared = PreparedRecords(records, prepare)
    assert opened == []
    one = prepared[0]
    assert set(one.images) == {"edit", "image_rephrase", "image_loc"} and len(opened) == 3
    assert torch.equal(one.images["edit"], to_tensor(picture(0)))
    for i in range(6):
        assert prepared[i].record.case_id == str(i)
    assert len(opened) == 3  # three files in all
    nothing = PreparedRecords(records, prepare, cache_bytes=0)
    assert nothing[0].images["edit"].shape == (3, 32, 32) and len(nothing.cache) == 0


def test_a_hugging_face_processor_does_it_too(records):
    image = PreparedRecords(records, tiny_image_processor())[0].images["edit"]
    assert image.shape == (3, 32, 32) and image.min() < 0


def test_worker_processes_give_the_same(records):
    prepared = PreparedRecords(records, to_tensor, cache_bytes=1 << 20)
    alone = [x for batch in prepared.loader(2) for x in batch]
    by_workers = [x for batch in prepared.loader(2, workers=2) for x in batch]
    assert [x.record for x in alone] == [x.record for x in by_workers] == list(records)
    for a, b in zip(alone, by_workers, strict=True):
        assert all(torch.equal(a.images[k], b.images[k]) for k in a.images)


def test_loading_many_records_takes_seconds_and_megabytes(tmp_path):
    fields = {"fg_gen_q": "is it?", "fg_gen_a": "yes", "fg_loc_q": "how many?", "fg_loc_a": "two"}
    rows = [
        ROW | fields | {"src": f"what is thing number {i}?", "image": f"val2014/{i}.jpg"}
        for i in range(8334)
    ]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    code = f"""
import resource, sys, time
from easyedit_mm_plugins.data import FGVEditDataset
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
records = FGVEditDataset({str(tmp_path / "train.json")!r}, check="off")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(records), time.process_time() - start, (after - before) / 1024, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    n, seconds, megabytes, torch_loaded = done.stdout.split()
    assert int(n) == 8334 and float(seconds) < 5 and float(megabytes) < 120
    assert torch_loaded == "False"
