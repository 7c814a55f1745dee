"""Logging to TensorBoard and Weights & Biases: off by default, and what it writes."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.app import app
from easyedit_mm_plugins.core.errors import ConfigError, UnknownNameError
from easyedit_mm_plugins.core.loggers import open_loggers

from ..support.report_runs import make_cases, make_run


class FakeWandb:
    """Notes what a run of Weights & Biases is given."""

    def __init__(self):
        self.started, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.started.append(settings)

        def finish():
            self.finished += 1

        return SimpleNamespace(
            log=lambda values, step: self.logged.append((step, values)), finish=finish
        )


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    importing(monkeypatch, lambda: fake)
    return fake


def importing(monkeypatch, give):
    """What the loggers get for wandb; other packages look into ``sys.modules`` and stay as is."""
    monkeypatch.setattr(
        "easyedit_mm_plugins.core.optional.import_module",
        lambda name: give() if name == "wandb" else import_module(name),
    )


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "r", make_cases(4, tmp_path / "images"), ["unedited", "mscke"]).path


def test_nothing_is_imported_or_written_unless_asked_for(tmp_path):
    with open_loggers([], tmp_path / "run") as loggers:
        loggers.log(1, {"loss": 2.0})
    assert not (tmp_path / "run").exists()
    code = (
        "import sys, easyedit_mm_plugins.core.loggers, easyedit_mm_plugins.methods.training_run;"
        "sys.exit(any(m in sys.modules for m in ('wandb', 'tensorboard')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_a_missing_package_and_a_wrong_name_are_said_before_the_work(tmp_path, monkeypatch, run):
    def absent():
        raise ModuleNotFoundError("No module named 'wandb'", name="wandb")

    importing(monkeypatch, absent)
    missing = pytest.raises(ConfigError, match=r"wandb needs the package(.|\n)*plugins\[wandb\]")
    with missing, open_loggers(["wandb"], tmp_path):
        raise AssertionError("opened")
    wrong = pytest.raises(UnknownNameError, match="did you mean tensorboard")
    with wrong, open_loggers(["tensorbord"], tmp_path):
        raise AssertionError("opened")
    for command in (
        ["evaluate", "--method", "unedited"],
        ["train", "--out", str(tmp_path / "t")],
        ["report", str(run)],
    ):
        result = CliRunner().invoke(app, [*command, "--log", "wandb"])
        assert isinstance(result.exception, ConfigError), command
    assert not (tmp_path / "t").exists() and not (run / "report").exists()


def test_a_run_of_weights_and_biases_gets_settings_and_every_number(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    opened = open_loggers(["wandb"], tmp_path / "one", config={"lr": 0.1})
    with pytest.raises(RuntimeError), opened as loggers:
        loggers.log(3, {"loss": 2.0, "name": "x", "missing": None, "n": 1, "flag": True})
        loggers.log(4, {"name": "no number"})
        raise RuntimeError
    assert wandb.started == [
        {"project": "mine", "name": "one", "config": {"lr": 0.1}, "dir": str(tmp_path / "one")}
    ]
    assert wandb.logged == [(3, {"loss": 2.0, "n": 1.0})]
    assert wandb.finished == 1  # also when the work fails


def test_a_report_can_log_the_metrics_of_its_runs(run, wandb):
    result = CliRunner().invoke(app, ["report", str(run), "--log", "wandb"])
    assert result.exit_code == 0, result.output
    ((step, values),) = wandb.logged
    assert step == 4 and values["scenes/scenes-blip2/mscke/specificity"] == 100.0
    assert values["scenes/scenes-blip2/unedited/reliability"] == 0.0
    assert values["scenes/scenes-blip2/mscke/seconds_per_case"] >= 0
    assert wandb.started[0]["config"]["protocol"]["name"] == "generated"


def test_training_is_logged_as_it_goes(tmp_path, wandb):
    """By the listener that every trainer has; the same numbers as in its history."""
    from easyedit_mm_plugins.methods.mscke import MSCKETrainer

    from ..support.mscke_tiny import hparams, tiny_mscke, tiny_records

    records = tiny_records()
    settings = hparams(max_iters=4, log_interval=2)
    trainer = MSCKETrainer(tiny_mscke(), records[:4], records[4:], settings, tmp_path / "out")
    with open_loggers(["wandb"], trainer.out_dir) as loggers:
        trainer.listeners.append(loggers.log)
        trainer.run()
    assert [{"step": step, **values} for step, values in wandb.logged] == trainer.history
    assert len(trainer.history) >= 2 and "loss/total" in trainer.history[0]


def test_tensorboard_holds_the_points_and_drops_what_comes_again(tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps in ((1, 2, 3), (3, 4)):  # killed after 3, went on from 2
        with open_loggers(["tensorboard"], tmp_path, config={"lr": 0.1}) as loggers:
            for step in steps:
                loggers.log(step, {"loss/total": float(10 * len(steps) + step)})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = [(point.step, point.value) for point in events.Scalars("loss/total")]
    assert points == [(1, 31.0), (2, 32.0), (3, 23.0), (4, 24.0)]
