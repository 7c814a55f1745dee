"""README's Python runs as it is printed: in a clone, from a wheel, in an EasyEdit checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"```python\n(.*?)```(?:\s*prints\s*```\n(.*?)```)?", re.S)
# Each snippet and the output that is printed below it, if any.
SNIPPETS = [(found[1], found[2]) for found in _BLOCK.finditer(TEXT)]
needs_easyedit = pytest.mark.skipif(
    find_spec("easyeditor") is None, reason="EasyEdit is not installed"
)


def run(code: str, folder: Path, path: Path) -> str:
    """What ``code`` prints in ``folder``, where the package is found in ``path``."""
    here = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    here.pop("EASYEDIT_ROOT", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=here, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder in which the scenes are drawn once."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package installed from a wheel, outside the clone."""
    made, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    source = made / "source"  # setuptools writes into the folder that it builds from
    names = ["easyedit_mm_plugins", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip"]
    quiet = {"check": True, "capture_output": True, "timeout": 300}
    options = ["--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*pip, "wheel", *options, "-w", str(made), str(source)], **quiet)
    built = next(made.glob("*.whl"))
    assert built.stat().st_size < 100 << 20
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(site), str(built)], **quiet)
    return site


def test_the_readme_has_snippets():
    assert len(SNIPPETS) >= 2 and any("MultimodalEditor" in code for code, _ in SNIPPETS)
    assert any(printed for _, printed in SNIPPETS)


@needs_easyedit
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_in_a_clone(number, folder):
    code, printed = SNIPPETS[number]
    out = run(code, folder, ROOT)
    if printed:
        assert [line.rstrip() for line in out.splitlines()] == [
            line.rstrip() for line in printed.splitlines()
        ]


@needs_easyedit
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs_from_a_wheel(number, folder, wheel):
    code, _ = SNIPPETS[number]
    check = "import easyedit_mm_plugins as _p; assert {!r} in _p.__file__, _p.__file__\n"
    run(check.format(str(wheel)) + code, folder, wheel)


@needs_easyedit
def test_the_easyedit_snippet_runs_in_an_easyedit_checkout(folder, wheel):
    """EasyEdit's users start Python in the checkout, whose folder ``easyeditor`` is then found."""
    package = Path(find_spec("easyeditor").origin).parent
    checkout = folder / "EasyEdit"
    checkout.mkdir()
    (checkout / "easyeditor").symlink_to(package)
    (checkout / "data").symlink_to(folder / "data")
    code = next(code for code, _ in SNIPPETS if "MultimodalEditor" in code)
    where = "import easyeditor; assert 'EasyEdit' in easyeditor.__file__, easyeditor.__file__\n"
    assert "rewrite_acc" in run(where + code, checkout, wheel)
