"""Files are whole or absent, and a file that cannot be read is a clear error."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from easyedit_mm_plugins.core.errors import DataError, EasyEditMMError
from easyedit_mm_plugins.core.files import (
    atomic_path,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)


def test_a_number_too_long_for_python_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "long.json"
    path.write_text('{"seed": ' + "9" * 5000 + "}")
    with pytest.raises(DataError, match="not valid JSON") as caught:
        read_json(path)
    assert str(path) in str(caught.value) and "remedy" in str(caught.value)


@pytest.mark.parametrize("name", ["n" * 300 + ".json", "nul\0.json"])
def test_a_name_that_no_file_can_have_is_an_error(tmp_path, name):
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / name)


def test_bytes_that_are_not_utf8_are_an_error(tmp_path):
    (tmp_path / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "latin.json")


def test_half_a_surrogate_pair_is_written_and_read_back(tmp_path):
    value = {"answer": "a \ud83d b", "é": "\udcff"}
    write_json(tmp_path / "half.json", value)
    assert read_json(tmp_path / "half.json") == value
    write_text(tmp_path / "half.md", "| \ud83d |")
    assert (tmp_path / "half.md").read_text() == "| \\ud83d |"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept.json"
    write_json(path, 1)
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(TypeError):
        write_json(path, object())
    assert json.loads(path.read_text()) == 1 and [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(sys.platform == "win32", reason="names have other limits")
def test_a_path_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    with pytest.raises(EasyEditMMError, match="cannot write"):
        write_text(tmp_path / ("n" * 300), "text")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from easyedit_mm_plugins.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "table.md"
    path.write_text("kept")
    done = subprocess.run([sys.executable, "-c", script, path], timeout=60)
    assert done.returncode == -signal.SIGKILL
    others = {"table.md", ".table.md.bak", "xtable.md.abcd1234", ".table.mdx.abcd1234"}
    for name in others - {"table.md"}:
        (tmp_path / name).touch()
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    remove_leftovers(path)
    assert {p.name for p in tmp_path.iterdir()} == others and path.read_text() == "kept"
