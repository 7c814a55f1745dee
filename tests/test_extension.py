"""Somebody else's package beside ours: its method, backbone and data set work everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """What the commands gave, run in a process that has the extension."""
    folder = tmp_path_factory.mktemp("extension")
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    source = folder / "source"
    subprocess.run(["cp", "-r", str(ROOT / "examples/extension"), str(source)], check=True)
    subprocess.run(
        [*install, "--target", str(site), str(source)], check=True, capture_output=True, timeout=300
    )
    here = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "tests/support/extension_walk.py")
    done = subprocess.run(
        [sys.executable, script, str(folder)],
        cwd=folder,
        env=here,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_commands_know_its_names(walked):
    assert "sticky-notes" in walked["methods"]
    assert "alg_name: STICKY-NOTES" in walked["settings"] and "share: null" in walked["settings"]
    quiet = [line for line in walked["doctor"].splitlines() if "quiet-llava" in line]
    assert len(quiet) == 1 and quiet[0].startswith("runs") and "sticky-notes" in quiet[0]
    assert "answered by" in walked["asked"]


def test_its_method_is_trained_and_measured(walked):
    assert "training sticky-notes for quiet-llava on 12 records, 4 kept" in walked["training"]
    metrics = walked["evaluated"]["sticky-notes"]
    assert metrics["reliability"] == 100 and walked["evaluated"]["unedited"]["reliability"] < 50
    assert metrics["locality"] == 100  # a question without the picture shares no picture


def test_evaluate_and_compare_give_the_same(walked):
    assert walked["evaluated"] == walked["compared"]


def test_the_report_calls_it_by_its_title(walked):
    assert "| Sticky notes |" in walked["report"]


def test_easyedit_edits_with_it(walked):
    pytest.importorskip("easyeditor", exc_type=ImportError)
    assert walked["easyedit"]["rewrite"] == 1.0
    assert walked["easyedit"]["share"] in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
