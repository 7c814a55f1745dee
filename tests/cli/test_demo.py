"""The demo's machinery: workers that report, and the picture. The demo itself is run by make."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from easyedit_mm_plugins.cli import demo_run as demo
from easyedit_mm_plugins.cli.example_picture import draw_example
from easyedit_mm_plugins.core import processes as parallel
from easyedit_mm_plugins.core.errors import RunError

from ..conftest import picture
from ..support.evaluation_fakes import FakeBackbone, Remembering, make_records
from ..support.parallel_worker import worker


def test_workers_report_progress_and_notes(tmp_path, capsys):
    parallel.run_parallel(
        worker, {"a": ("good", str(tmp_path / "a")), "b": ("good", str(tmp_path / "b"))}
    )
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()
    out = capsys.readouterr().out
    assert "good: 2/2" in out and "a note" in out


@pytest.mark.parametrize(
    ("what", "message"), [("bad", r"f\.json: is broken"), ("dies", "ended with code 9")]
)
def test_a_failing_worker_stops_the_others_and_is_named(tmp_path, what, message):
    late = tmp_path / "late"
    start = time.monotonic()
    with pytest.raises(RunError, match=message) as error:
        parallel.run_parallel(worker, {"x": (what, ""), "y": ("slow", str(late))})
    assert time.monotonic() - start < 50 and not late.exists()
    assert error.value.remedy


def test_no_worker_outlives_a_killed_command(tmp_path):
    file, started = tmp_path / "late", tmp_path / "late.started"
    root = Path(demo.__file__).parents[2]
    here = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(root / "tests/support/parallel_worker.py"), str(file)]
    with subprocess.Popen(command, env=here) as parent:
        deadline = time.monotonic() + 60
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.kill()
    assert started.exists()
    time.sleep(3)
    assert not file.exists()


def test_the_example_shows_every_kind_of_question_and_draws_them(tmp_path):
    record = make_records(1, [picture(0)])[0]
    lines = demo.judged_lines(Remembering(FakeBackbone(), [record]), record)
    kinds = [line.note for line in lines]
    assert kinds == ["the edit", "reworded", "in scope", "in scope", "out of scope", "text only"]
    assert all(line.right for line in lines)
    assert [line.route for line in lines] == ["e1"] * 4 + [None] * 2
    draw_example(tmp_path / "example.png", record, lines, "a fake")
    with Image.open(tmp_path / "example.png") as drawn:
        assert drawn.width > 1000 and len(drawn.convert("RGB").getcolors(10**6)) > 100
