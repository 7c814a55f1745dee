"""``evaluate`` and ``compare`` make the same editors and give the same cases, for every method."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.app import app
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.methods.factory import shipped_editor

BACKBONE, DATA, CASES = "scenes-blip2", "scenes-fgvedit", 3
LEFT_OUT = (
    *("lora", "grace", "wise"),  # EasyEdit HEAD's, on other base models: tests/methods/stock
    "t-patcher",  # trains for each edit, for seconds
)


def by_command(*words):
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def cases_of(folder):
    """Every case of a run, without what differs between two measurements of the same."""
    lines = [json.loads(line) for line in (folder / "cases.jsonl").open()]
    for line in lines:
        del line["seconds"], line["memory_mb"]
    return {(line["method"], line["case"]): line for line in lines}


def settings_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert "failed" not in summary
    return {row["method"]: row["settings"] for row in summary["rows"]}


@pytest.mark.slow
@pytest.mark.parametrize("easyedit", [False, True], ids=["own methods", "EasyEdit's methods"])
def test_both_commands_give_the_same_cases(easyedit, tmp_path, monkeypatch):
    pytest.importorskip("hydra")
    if easyedit:
        pytest.importorskip("easyeditor")
    methods = [METHODS.key(name) for name in METHODS.names() if needs(name) == easyedit]
    methods = [name for name in methods if name not in LEFT_OUT and can_answer(name)]
    monkeypatch.chdir(tmp_path)
    chosen = [word for method in methods for word in ("--method", method)]
    measured = ["--backbone", BACKBONE, "--data", DATA, "--limit", str(CASES), "--name", "one"]
    by_command("evaluate", *chosen, *measured)
    words = [f"method=[{','.join(methods)}]", f"backbone={BACKBONE}", f"data={DATA}"]
    by_command("compare", *words, f"eval.limit={CASES}", "out=grid")
    one, grid = cases_of(tmp_path / "runs" / "one"), cases_of(tmp_path / "grid")
    assert len(one) == CASES * len(methods) and one == grid
    assert settings_of(tmp_path / "runs" / "one") == settings_of(tmp_path / "grid")


def needs(name):
    return METHODS.get(name).needs_easyedit


def can_answer(name):
    """Whether it needs no training, or a trained editor is shipped."""
    return not METHODS.get(name).needs_training or shipped_editor(name, BACKBONE) is not None
