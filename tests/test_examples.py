"""Every example runs as it stands, with the shipped models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from easyedit_mm_plugins.bridge import host
from easyedit_mm_plugins.errors import BridgeError
from easyedit_mm_plugins.scenes.records import write_scenes

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a few scenes where ``ensure_scenes`` looks for them."""
    folder = tmp_path_factory.mktemp("examples")
    write_scenes(folder / "data/scenes", n_train=2, n_test=4)
    return folder


@pytest.mark.parametrize(
    ("name", "says"), [("scenes", ["->", "base"]), ("easyedit_project", ["pre", "post"])]
)
def test_example(folder, name, says):
    if name.startswith("easyedit"):
        try:
            host.locate()
        except BridgeError as error:
            pytest.skip(f"EasyEdit: {error.message}")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = (
        (ROOT / "examples" / f"{name}.py")
        .read_text()
        .replace("ensure_scenes()", "ensure_scenes(n_train=2, n_test=4)")
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(word in done.stdout for word in says)
