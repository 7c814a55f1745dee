"""Training shared by real processes under torchrun: what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from easyedit_mm_plugins.core.distributed import Ranks
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.core.processes import run_parallel
from easyedit_mm_plugins.methods.mend.sharing import merge_statistics, read_statistics
from easyedit_mm_plugins.methods.mscke import MSCKETrainer

from ..evaluation.test_grid_processes import LAUNCH, ROOT
from ..support.mend_tiny import tiny_mend
from ..support.mscke_tiny import hparams, tiny_mscke, tiny_records
from ..support.parallel_worker import worker
from ..support.training_worker import trainer


def test_two_processes_learn_what_one_learns(tmp_path):
    here = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        *LAUNCH,
        "-m",
        "tests.support.training_worker",
        str(tmp_path / "two"),
    ]
    both = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, timeout=600)
    assert both.returncode == 0, both.stderr
    for method in ("mscke", "mend"):
        alone = trainer(method, tmp_path / "one")
        final = alone.run()
        two = tmp_path / "two" / method
        histories = [alone.history, json.loads((two / "history.json").read_text())]
        # log lines between optimiser steps wait for the other process's batches
        judged = [[line for line in h if any("_val" in key for key in line)] for h in histories]
        assert len(judged[0]) == len(judged[1]) == 3
        for one, other in zip(*judged, strict=True):
            assert other == pytest.approx(one, abs=1e-5)
        last = [[line for line in h if "grad" in line][-1] for h in histories]
        assert last[1]["step"] == last[0]["step"] == 7
        assert last[1]["grad"] == pytest.approx(last[0]["grad"], rel=1e-4)
        one, other = (
            load_file(folder / "resume.safetensors") for folder in (tmp_path / "one" / method, two)
        )
        assert set(one) == set(other)
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
        start = [
            p for m in trainer(method, tmp_path / "x").modules.values() for p in m.parameters()
        ]
        learned = [p for m in alone.modules.values() for p in m.parameters()]
        assert any(not torch.equal(a, b) for a, b in zip(start, learned, strict=True))
        assert final and (two / "best/config.json").is_file()


def test_a_step_that_cannot_be_shared_evenly_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="accumulate_bs is 3, which 2 processes"):
        MSCKETrainer(tiny_mscke(), tiny_records(2), [], hparams(accumulate_bs=3))


def test_a_worker_of_one_process_trains_alone(monkeypatch, tmp_path):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert Ranks.here() == Ranks(0, 2, 0)
    run_parallel(worker, {"one": ("says its rank", str(tmp_path / "said"))})
    assert (tmp_path / "said").read_text() == repr(Ranks())
    assert Ranks.here() == Ranks(0, 2, 0)


class Gathered:
    """Ranks whose other process has counted ``other``."""

    def __init__(self, other):
        self.other = other

    def gather(self, value):
        return [value, self.other]


def test_statistics_of_two_processes_are_those_of_one():
    torch.manual_seed(0)
    networks = [tiny_mend().network for _ in range(3)]
    tokens = 3 * torch.randn(40, 200) + 5
    for network in networks:
        network.train()

    def count(network, rows):
        for module in network.mend.values():
            x, delta = module.u_mean.numel(), module.v_mean.numel()
            module.observe(tokens[rows, :x], 1e-3 * tokens[rows, -delta:])

    first, second, whole = networks
    for network in networks:
        count(network, slice(0, 10))
    before = read_statistics(first)
    count(first, slice(10, 18))
    count(second, slice(18, 40))
    count(whole, slice(10, 18))
    count(whole, slice(18, 40))
    mine, others = read_statistics(first), read_statistics(second)
    merge_statistics(first, before, Gathered(others))
    merge_statistics(second, before, Gathered(mine))
    for one, two, both in zip(*(n.buffers() for n in networks), strict=True):
        torch.testing.assert_close(one, both, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(two, both, rtol=1e-4, atol=1e-7)
