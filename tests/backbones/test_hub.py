"""A hub that does not answer is asked once, and then only the cache is looked at."""

from __future__ import annotations

import http.server
import socket
import threading
import time

import pytest

from easyedit_mm_plugins.backbones import check_backbones, hub, load_backbone
from easyedit_mm_plugins.backbones.entries import is_hub_id
from easyedit_mm_plugins.core.errors import BackboneError, UnknownNameError


@pytest.fixture
def ask_hub(monkeypatch):
    """Sets the hub's address and forgets what was answered before."""
    from huggingface_hub import constants

    def at(url: str, *, offline: bool = False) -> bool:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        hub.hub_answers.cache_clear()
        return hub.hub_answers()

    yield at
    hub.hub_answers.cache_clear()


def test_any_answer_counts_and_silence_does_not_take_long(ask_hub, monkeypatch):
    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert ask_hub(url)
        assert not ask_hub(url, offline=True)
        server.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not ask_hub(f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setattr(hub, "PATIENCE", 0.3)
        free.listen()  # takes connections and never answers
        start = time.monotonic()
        assert not ask_hub(f"http://127.0.0.1:{free.getsockname()[1]}")
        assert time.monotonic() - start < 3


def test_a_hub_name_without_a_hub_is_one_clear_error_soon(ask_hub, tmp_path):
    ask_hub("http://127.0.0.1:9", offline=True)
    assert hub.from_where(tmp_path) == {}
    start = time.monotonic()
    with pytest.raises(
        BackboneError, match=r"nobody/nothing is no folder .* hub cannot be reached"
    ):
        load_backbone("llava", "nobody/nothing")
    assert time.monotonic() - start < 5


def test_what_the_cache_holds_is_loaded_from_there(ask_hub, monkeypatch):
    ask_hub("http://127.0.0.1:9", offline=True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: "/a/config.json")
    assert hub.from_where("a/b") == {"local_files_only": True}


def test_a_hub_id_is_a_base_model_and_a_mistyped_name_is_not(ask_hub, tmp_path, monkeypatch):
    ask_hub("http://127.0.0.1:9", offline=True)
    assert is_hub_id("Qwen/Qwen2.5-VL-3B-Instruct")
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("models/qwen", "llava", "a/b/c", "/a", "a/", "../a", "scenes-llava"):
        assert not is_hub_id(name), name
    check_backbones("Qwen/Qwen2.5-VL-3B-Instruct", str(tmp_path))
    with pytest.raises(UnknownNameError):
        check_backbones("models/qwen")
    with pytest.raises(BackboneError, match=r"Qwen2\.5-VL-3B-Instruct is no folder here"):
        load_backbone("Qwen/Qwen2.5-VL-3B-Instruct")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: "/a/config.json")
    held = str(tmp_path / "config.json")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *names, **options: held)
    with pytest.raises(BackboneError, match="holds a 'bert' model"):
        load_backbone("nobody/bert")
