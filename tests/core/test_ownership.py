"""A folder has one owner, by name, until it lets go or dies."""

from __future__ import annotations

import gc
import platform
import signal
import subprocess
import sys

import pytest

from easyedit_mm_plugins.core.errors import RunError
from easyedit_mm_plugins.core.ownership import own_folder

HOLD = """
import sys, time
from easyedit_mm_plugins.core.ownership import own_folder
lock = own_folder(sys.argv[1])
print("mine", flush=True)
time.sleep(60)
"""


@pytest.fixture
def stranger(tmp_path):
    """Another process that owns the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_that_another_process_owns_is_refused_by_its_name(tmp_path, stranger):
    with pytest.raises(RunError) as caught:
        own_folder(tmp_path, patience=0.1)
    text = str(caught.value)
    assert f"process {stranger.pid} on {platform.node()} since 20" in text and "remedy" in text


def test_a_killed_owner_leaves_the_folder_free(tmp_path, stranger):
    stranger.send_signal(signal.SIGKILL)
    own_folder(tmp_path).release()


def test_an_owner_without_a_readable_note_is_still_an_owner(tmp_path, stranger):
    (tmp_path / ".owner.json").write_text("[]")
    with pytest.raises(RunError, match="in use by another process"):
        own_folder(tmp_path, patience=0.1)


def another_process_gets(folder):
    script = "import sys; from easyedit_mm_plugins.core.ownership import own_folder\n"
    script += "own_folder(sys.argv[1], patience=0.1)"
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, timeout=60)
    return done.returncode == 0


def test_one_process_may_own_a_folder_twice_and_frees_it_last(tmp_path):
    first, second = own_folder(tmp_path), own_folder(tmp_path)
    first.release()
    assert not another_process_gets(tmp_path)
    second.release()
    assert another_process_gets(tmp_path)
    forgotten = own_folder(tmp_path)
    del first, second, forgotten
    gc.collect()
    assert another_process_gets(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write"):
        own_folder(tmp_path / "file")
