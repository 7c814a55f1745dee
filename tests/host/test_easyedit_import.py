"""EasyEdit is imported in a process of its own; what stops it is said with a possible remedy."""

from __future__ import annotations

import sys

import pytest

from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.host import easyedit
from easyedit_mm_plugins.host.requirements import inspect_host

WRONG = {
    "import transformers.no_such_module": ("No module named", "pip install 'transformers"),
    "from transformers import no_such_name": ("cannot import", "pip install 'transformers"),
    "import no_such_package.part": ("No module named", "beginning with no_such_package"),
    "raise RuntimeError('torchvision::nms')": ("torchvision::nms", "pip install 'transformers"),
    "import os, sys; sys.stderr.write('gone'); os._exit(9)": ("code 9: gone", "faulthandler"),
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Makes a checkout of the HEAD generation whose editor module is the given code."""

    def make(code: str):
        for room in ("util", "editors", "trainer"):
            (tmp_path / "easyeditor" / room).mkdir(parents=True)
            (tmp_path / "easyeditor" / room / "__init__.py").touch()
        (tmp_path / "easyeditor/__init__.py").touch()
        tables = "ALG_MULTIMODAL_DICT = {}\nMULTIMODAL_DS_DICT = {}\n"
        (tmp_path / "easyeditor/util/alg_dict.py").write_text(tables)
        (tmp_path / "easyeditor/editors/multimodal_editor.py").write_text(code)
        (tmp_path / "easyeditor/trainer/MultimodalTrainer.py").write_text("print('loud')")
        monkeypatch.setenv("EASYEDIT_ROOT", str(tmp_path))
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in [n for n in sys.modules if n.split(".")[0] == "easyeditor"]:
            monkeypatch.delitem(sys.modules, name)

    return make


@pytest.mark.parametrize("code", WRONG)
def test_what_stops_the_import_is_said_with_a_possible_remedy(
    checkout, tmp_path, monkeypatch, code
):
    message, remedy = WRONG[code]
    monkeypatch.setitem(easyedit.TRANSFORMERS, "head", "<4")  # seen by this process alone
    checkout(code)
    if "_exit" not in code:
        with pytest.raises(BridgeError, match=message) as error:
            easyedit.load()
        assert str(tmp_path) not in sys.path
        assert remedy in error.value.remedy
        assert "pip install what it imports" not in str(error.value)
    info = inspect_host(try_import=True)
    assert info.generation == "head" and message in info.problem and info.remedy
    assert not [name for name in sys.modules if name.startswith("easyeditor")]


def test_an_import_that_works_or_takes_too_long(checkout, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    checkout("open('left-behind', 'w').close()")
    assert easyedit.import_problem() is None
    assert not any(here.iterdir())
    editor = tmp_path / "easyeditor/editors/multimodal_editor.py"
    editor.write_text("import time; time.sleep(60)")
    assert "within 1 seconds" in str(easyedit.import_problem(timeout=1))
