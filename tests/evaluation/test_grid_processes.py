"""Evaluation spread over real processes by torchrun: the same numbers as one process gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from easyedit_mm_plugins.core.distributed import Ranks
from easyedit_mm_plugins.core.errors import ConfigError

from ..support.grid_tools import save_tiny, write_cases

ROOT = str(Path(__file__).parents[2])
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def start(folder, *words, processes=1):
    """The command line in ``folder``, by one process or by two that a launcher starts."""
    launch = LAUNCH if processes == 2 else []
    here = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launch, "-m", "easyedit_mm_plugins", *map(str, words)],
        cwd=folder,
        env=here,
        capture_output=True,
        text=True,
        timeout=600,
    )


def rows(folder):
    found = json.loads((folder / "summary.json").read_text())["rows"]
    return [{k: v for k, v in r.items() if k not in ("seconds", "memory_mb")} for r in found]


def cases(folder):
    lines = [json.loads(line) for line in (folder / "cases.jsonl").open()]
    kept = ("method", "case", "metrics", "questions")
    return sorted(
        ({k: line[k] for k in kept} for line in lines), key=lambda c: (c["method"], c["case"])
    )


def test_two_processes_give_the_numbers_of_one(tmp_path):
    write_cases(tmp_path, 7)
    save_tiny(tmp_path / "tiny")
    asked = ["--method", "unedited", "--backbone", "tiny", "--data", "cases.json"]
    alone = start(tmp_path, "evaluate", *asked, "--name", "one")
    assert alone.returncode == 0, alone.stderr
    both = start(tmp_path, "evaluate", *asked, "--name", "two", processes=2)
    assert both.returncode == 0, both.stderr
    assert rows(tmp_path / "runs/two") == rows(tmp_path / "runs/one")
    assert cases(tmp_path / "runs/two") == cases(tmp_path / "runs/one")
    assert len(cases(tmp_path / "runs/two")) == 7
    assert both.stdout.count("written to") == 1  # one process speaks for both
    pytest.importorskip("hydra")
    words = ["compare", "method=[unedited,mscke]", "backbone=tiny", "data=cases.json", "out=grid"]
    grid = start(tmp_path, *words, processes=2)
    assert grid.returncode == 0, grid.stderr
    assert cases(tmp_path / "grid") == cases(tmp_path / "runs/one")
    summary = json.loads((tmp_path / "grid/summary.json").read_text())
    assert [row["n"] for row in summary["rows"]] == [7]
    assert [(f["method"], f["status"]) for f in summary["failed"]] == [("mscke", "failed")]
    states = [json.loads(line) for line in (tmp_path / "grid/status.jsonl").open()]
    assert {s["rank"] for s in states if s["state"] == "done"} == {0, 1}


@pytest.mark.parametrize(
    ("here", "found"),
    [
        ({}, Ranks()),
        ({"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}, Ranks(1, 3, 0)),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
            Ranks(1, 2, 1),
        ),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, Ranks()),  # nobody to meet: not a launch of ours
    ],
)
def test_the_environment_says_which_process_this_is(monkeypatch, here, found):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "PMI_RANK", "PMI_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    assert Ranks.here() == found


def test_all_shares_together_are_everything_once():
    items = list(range(10))
    shares = [Ranks(rank, 3).share(items) for rank in range(3)]
    assert sorted(i for share in shares for i in share) == items
    assert max(map(len, shares)) == 4
    assert Ranks().share(items) == items
    assert Ranks(1, 2, 1).device("cuda") == "cuda:1" and Ranks().device("cuda") == "cuda"
    assert Ranks(1, 2, 1).device("cpu") == "cpu"


@pytest.mark.parametrize("rank", ["two", "5"])
def test_a_wrong_environment_is_an_error(monkeypatch, rank):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="rank is"):
        Ranks.here()
