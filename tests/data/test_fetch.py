"""Fetching, against real HTTP servers on this machine that cut, refuse and change."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import DataError, UnknownNameError
from easyedit_mm_plugins.data.tools import download as module
from easyedit_mm_plugins.data.tools.download import download, unpack
from easyedit_mm_plugins.data.tools.fetch import SETS, DataSet, Remote, fetch

from ..support.file_server import FileServer, Hub

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    for name in ("EASYEDIT_MM_OFFLINE", "EASYEDIT_MM_MIRROR", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


@pytest.fixture
def known():
    made = []

    def add(*files, **more):
        SETS.register("for-test", DataSet("for-test", "test", files, **more), replace=True)
        made.append("for-test")
        return "for-test"

    yield add
    for name in made:
        SETS.unregister(name)


def archive(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def test_a_cut_download_goes_on_where_it_ended(tmp_path):
    seen = []
    with FileServer({"/a.bin": DATA}, cuts=3, cut_after=2000) as server:
        download(f"{server.url}/a.bin", tmp_path / "a.bin", progress=lambda *x: seen.append(x))
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [r for _, _, r in server.log] == [None, "bytes=2000-", "bytes=4000-", "bytes=6000-"]
    assert seen[-1] == ("a.bin", len(DATA), len(DATA))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin"]


def test_a_stopped_download_is_completed_by_the_next_call(tmp_path):
    with FileServer({"/a.bin": DATA}, cuts=1, cut_after=3000) as server:
        with pytest.raises(DataError, match="connection lost"):
            download(f"{server.url}/a.bin", tmp_path / "a.bin", retries=0)
        assert not (tmp_path / "a.bin").exists()
        download(f"{server.url}/a.bin", tmp_path / "a.bin", retries=0)
    assert server.log[-1][2] == "bytes=3000-" and (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_that_changed_in_between_is_not_mixed(tmp_path):
    with FileServer({"/a.bin": DATA}, cuts=1, cut_after=3000) as server:
        with pytest.raises(DataError):
            download(f"{server.url}/a.bin", tmp_path / "a.bin", retries=0)
        server.files["/a.bin"] = new = DATA[::-1]
        download(f"{server.url}/a.bin", tmp_path / "a.bin", retries=0)
    assert (tmp_path / "a.bin").read_bytes() == new


def test_server_errors_are_tried_again_and_refusals_are_not(tmp_path):
    with FileServer({"/a.bin": DATA}, errors=[503, 429, 500]) as server:
        download(f"{server.url}/a.bin", tmp_path / "a.bin")
        assert len(server.log) == 4
        with pytest.raises(DataError, match="the server says 404") as caught:
            download(f"{server.url}/none.bin", tmp_path / "none.bin")
        assert len(server.log) == 5 and "by hand" in caught.value.remedy
    with pytest.raises(DataError, match="cannot be fetched"):
        download(f"{server.url}/a.bin", tmp_path / "b.bin", retries=1)
    with pytest.raises(DataError, match="no http"):
        download("file:///etc/hostname", tmp_path / "c")


def test_an_archive_is_checked_unpacked_and_not_fetched_twice(tmp_path, known):
    packed = archive({"pics/1.jpg": b"one", "pics/2.jpg": b"two"})
    md5 = hashlib.md5(packed).hexdigest()
    with FileServer({"/p.zip": packed}) as server:
        name = known(Remote("p.zip", f"{server.url}/p.zip", md5, unpack=True, holds="pics"))
        assert fetch(name, tmp_path) == [tmp_path / "pics"]
        assert (tmp_path / "pics" / "2.jpg").read_bytes() == b"two"
        assert not (tmp_path / "p.zip").exists()
        fetch(name, tmp_path)
        assert len(server.log) == 1


def test_a_wrong_checksum_is_refused(tmp_path, known):
    with FileServer({"/a.bin": DATA}) as server:
        name = known(Remote("a.bin", f"{server.url}/a.bin", "0" * 32))
        with pytest.raises(DataError, match="has the MD5"):
            fetch(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unpacking_that_was_stopped_is_done_again(tmp_path, known):
    packed = archive({"pics/1.jpg": b"one", "pics/2.jpg": b"two"})
    (tmp_path / "pics").mkdir()
    (tmp_path / ".p.zip.unpacking").touch()  # as after a kill in the middle
    (tmp_path / "p.zip").write_bytes(packed)
    name = known(Remote("p.zip", unpack=True, holds="pics"), where="nowhere")
    fetch(name, tmp_path)
    assert (tmp_path / "pics" / "1.jpg").read_bytes() == b"one"


def test_archives_that_lead_out_or_are_damaged(tmp_path):
    (tmp_path / "out.zip").write_bytes(archive({"../evil.txt": b"x"}))
    with pytest.raises(DataError, match="leads out"):
        unpack(tmp_path / "out.zip", tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()
    (tmp_path / "bad.zip").write_bytes(archive({"a": b"x" * 500})[:300])
    with pytest.raises(DataError, match="is damaged"):
        unpack(tmp_path / "bad.zip", tmp_path / "in")


def test_offline_folders_and_mirrors(tmp_path, known, monkeypatch):
    name = known(Remote("sub/a.json", "http://127.0.0.1:9/a.json"))
    store = tmp_path / "store"
    store.mkdir()
    with pytest.raises(DataError, match="offline folder has no a"):
        fetch(name, tmp_path / "x", offline=store)
    (store / "a.json").write_bytes(b"[]")
    monkeypatch.setenv("EASYEDIT_MM_OFFLINE", str(store))
    assert fetch(name, tmp_path / "x")[0].read_bytes() == b"[]"
    monkeypatch.delenv("EASYEDIT_MM_OFFLINE")
    with FileServer({"/m/a.json": b"[1]"}) as server:
        assert fetch(name, tmp_path / "y", mirror=f"{server.url}/m")[0].read_bytes() == b"[1]"


def test_fgvedit_comes_from_the_hub(tmp_path, monkeypatch):
    files = {"train_data.json": b"[1]", "test_data.json": b"[2]"}
    cache = "huggingface_hub.constants.HF_HUB_CACHE"
    monkeypatch.setattr(cache, str(tmp_path / "cache"))
    with Hub({"ZhenZeng/FGVEdit": files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        paths = fetch("fgvedit", tmp_path / "fgvedit")
        assert [p.read_bytes() for p in paths] == [b"[1]", b"[2]"]
        assert any(path.endswith("train_data.json") for _, path, _ in hub.log)
        hub.repos.clear()
        monkeypatch.setattr(cache, str(tmp_path / "other"))
        with pytest.raises(DataError, match="cannot be fetched from the Hub"):
            fetch("fgvedit", tmp_path / "again")


def test_what_a_person_has_to_get_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot be fetched by a program") as caught:
        fetch("e-vqa", tmp_path)
    assert "vqa_train.json" in caught.value.remedy and "drive.google.com" in caught.value.remedy
    assert str(tmp_path / "vqa" / "vqa_train.json") in str(caught.value)
    for part in ("train", "eval"):
        path = tmp_path / "vqa" / f"vqa_{part}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([]))
    assert len(fetch("e-vqa", tmp_path)) == 2  # put there by hand, it is found
    with pytest.raises(UnknownNameError, match="coco2014"):
        fetch("coco", tmp_path)


def test_every_source_says_where_it_is_from():
    for name in SETS.names():
        data = SETS.get(name)
        for remote in data.files:
            assert remote.url or data.hub or data.where, name
            assert remote.holds or not remote.unpack
    listed = CliRunner().invoke(app, ["fetch"])
    assert all(name in listed.stdout for name in ("fgvedit", "e-vqa", "e-ic", "coco2014"))
