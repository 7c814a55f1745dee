"""E-VQA's records, and reading a file of FGVEdit's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.core.registry import resolve
from easyedit_mm_plugins.data import DATASETS, FGVEditDataset
from easyedit_mm_plugins.data.evqa import EICDataset, EVQADataset

from ..conftest import picture

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
    assert resolve(DATASETS.get("E-VQA").reader) is EVQADataset
    assert resolve(DATASETS.get("eic").reader) is EICDataset
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
