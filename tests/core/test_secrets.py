"""Keys and passwords are removed from messages, settings and logs; nothing else is."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.core.errors import DataError, EasyEditMMError
from easyedit_mm_plugins.core.loggers import LOGGERS, open_loggers
from easyedit_mm_plugins.core.processes import Screen
from easyedit_mm_plugins.core.secrets import hide, redact, redact_values
from easyedit_mm_plugins.evaluation.runs import RunFolder


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:pass-word@host/v1 failed", "https://***@host/v1 failed"),
        ("https://me:p%40ss@host:8000", "https://***@host:8000"),
        ("https://me:p@ss@host", "https://***@host"),
        ("Authorization: Bearer abcdef123456 refused", "Authorization: Bearer *** refused"),
        ("{'Authorization': 'Basic bWU6cGFzcw=='}", "{'Authorization': 'Basic ***'}"),
        ("wrong key sk-proj-0123456789abcdef0123", "wrong key ***"),
        ("hf_abcdefghijklmnopqrst is unknown", "*** is unknown"),
        ("GET /?api_key=0123&x=1", "GET /?api_key=***&x=1"),
    ],
)
def test_what_looks_like_a_secret_is_removed(text, kept):
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "record 3, field alt: is missing",
        "unknown token='<image>', max_tokens=8, a basic understanding",
        "image not found: /data/val2014/COCO_1.jpg; mail me@example.org",
        "see https://example.org/a?b=c#d",
        "it ski-jumped over hf_small and sk-learn",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_known_secrets_are_removed_wherever_they_are(monkeypatch):
    hide("correct horse battery")
    hide("a")  # too short to be told from a word
    monkeypatch.setenv("SOME_API_KEY", "0123abcd4567")
    monkeypatch.setenv("SSH_KEY", "/home/me/.ssh/id")
    text = "a correct horse battery at /home/me/.ssh/id with 0123abcd4567"
    assert redact(text) == "a *** at /home/me/.ssh/id with ***"


def test_every_error_of_ours_is_redacted():
    error = EasyEditMMError("https://me:secret@host says no", remedy="try http://me:secret@b")
    assert "secret" not in f"{error}{error.message}{error.remedy}{error!r}"
    assert "secret" not in str(DataError("cannot be fetched", file="https://me:secret@host/a.zip"))


def test_settings_keep_all_but_their_secrets():
    settings = {
        "max_tokens": 8,
        "image_token": "<image>",
        "headers": {"Authorization": "xyz", "X-Api-Key": "xyz"},
        "urls": ["http://me:secret@host", ("x", None)],
        "seed": 1,
    }
    assert redact_values(settings) == {
        "max_tokens": 8,
        "image_token": "<image>",
        "headers": {"Authorization": "***", "X-Api-Key": "***"},
        "urls": ["http://***@host", ("x", None)],
        "seed": 1,
    }


def test_loggers_and_the_screen_get_redacted_text(monkeypatch, tmp_path, capsys):
    shown = []

    class Logger:
        def __init__(self, folder, name, config):
            shown.append(config)

        def close(self):
            pass

    monkeypatch.setitem(LOGGERS, "json", Logger)
    config = {"hub": "https://me:secret@host", "steps": 3}
    with open_loggers(["json"], tmp_path, config=config):
        pass
    assert shown == [{"hub": "https://***@host", "steps": 3}]
    Screen(lambda label: lambda done, total: None).show("log", "at https://me:secret@host")
    assert capsys.readouterr().out == "at https://***@host\n"


def test_the_configuration_of_a_run_is_written_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HUB_TOKEN", "0123abcd4567")
    config = {"backbone": "x=https://me:secret@host/m", "note": "0123abcd4567", "limit": 3}
    RunFolder.open(tmp_path / "run", config)
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "secret" not in text and "0123abcd4567" not in text and "limit: 3" in text
