"""Targets that a model cannot say are told before long work begins."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import Protocol, evaluate
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.methods.dualedit import DualEditTrainer
from easyedit_mm_plugins.methods.mscke import MSCKETrainer
from easyedit_mm_plugins.methods.targets import _warn, check_targets, unsayable

from ..conftest import picture
from ..support import dualedit_tiny, mscke_tiny
from ..support.mscke_tiny import tiny_mscke, tiny_records


@pytest.fixture(autouse=True)
def _every_test_hears_its_warnings(caplog):
    caplog.set_level(logging.WARNING, "easyedit_mm_plugins")
    _warn.cache_clear()


def having(record: EditRecord, answer: str) -> EditRecord:
    return replace(record, edit=record.edit.with_answer(answer))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("red", None),
        (" Top LEFT. ", None),
        ("red, green", None),
        ("zebra", "lacks a word"),
        ("red zebra", "lacks a word"),
        ("red </s> green", "read 'red green'"),
        ("", "no token"),
        (" ", "no token"),
    ],
)
def test_why_an_answer_cannot_be_said(tiny_backbone, answer, why):
    found = unsayable(tiny_backbone, answer)
    assert found is None if why is None else why in found


def test_a_target_that_greedy_decoding_gives_is_no_suspect(tiny_backbone):
    """Whatever a model says, it can say."""
    asked = [r.edit for r in tiny_records()] + [Question("where?", picture(3))]
    said = [text for text in tiny_backbone.generate(asked) if text and "<" not in text]
    assert said and not any(unsayable(tiny_backbone, text) for text in said)


def test_an_evaluation_tells_once_how_many_which_and_what_helps(tiny_backbone, caplog):
    records = tiny_records(5)
    records[1], records[3] = having(records[1], "zebra"), having(records[3], "gnu")
    question = Question("what shape is it?", picture(0), "pear")
    records[3] = replace(records[3], in_scope=(question,), text_loc=(question,))
    for _ in range(2):  # two methods
        evaluate(Unedited(tiny_backbone), records)
    (line,) = caplog.messages
    assert line.startswith("tiny-llava cannot say 3 targets, in 2 of 5 records: record 1, field ed")
    assert "field edit: 'zebra' (the tokenizer lacks a word of it)" in line
    assert "record 3, field in_scope: 'pear'" in line and "text_loc" not in line
    assert "counts as missed: leave these records out, or take a model that has the words" in line


def test_many_are_counted_and_the_first_are_shown(tiny_backbone, caplog):
    records = [having(r, "zebra") for r in tiny_records(9)]
    check_targets(tiny_backbone, [*records, tiny_records(1)[0]], ["edit"])
    (line,) = caplog.messages
    assert "9 targets, in 9 of 10 records" in line and "; and 6 more" in line
    assert line.count("zebra") == 3


def test_no_target_that_can_be_said_is_an_error_before_the_model_runs(tiny_backbone, monkeypatch):
    records = [having(r, "zebra") for r in tiny_records(3)]
    monkeypatch.setattr(tiny_backbone, "generate", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match=r"record 0, field edit: tiny-llava cannot say 3 targets"):
        evaluate(Unedited(tiny_backbone), records)


def test_answers_that_end_too_early_for_their_targets_are_told(tiny_backbone, caplog):
    records = tiny_records(3)
    records[2] = having(records[2], "red green blue")
    evaluate(Unedited(tiny_backbone), records, Protocol(max_new_tokens=2))
    (line,) = caplog.messages
    assert "record 2, field edit: 'red green blue' (3 tokens)" in line
    assert "answers end after 2 tokens: raise max_new_tokens" in line
    evaluate(Unedited(tiny_backbone), records, Protocol(max_new_tokens=3))
    evaluate(Unedited(tiny_backbone), records, "teacher-forced")
    assert len(caplog.messages) == 1


def mscke(out, records, **changes):
    return MSCKETrainer(tiny_mscke(), records, [], mscke_tiny.hparams(**changes), out)


def dualedit(out, records):
    return DualEditTrainer(dualedit_tiny.tiny_dualedit(), records, [], dualedit_tiny.hparams(), out)


@pytest.mark.parametrize("trainer", [mscke, dualedit])
def test_a_training_tells_before_its_first_step(tmp_path, trainer, caplog):
    good = tiny_records(4)
    trainer(tmp_path, good)
    assert not caplog.messages
    trainer(tmp_path, [*good[:3], having(good[3], "zebra")])
    assert len(caplog.messages) == 1 and "record 3, field edit: 'zebra'" in caplog.messages[0]
    with pytest.raises(DataError, match="cannot say 4 targets"):
        trainer(tmp_path, [having(r, "zebra") for r in good])
    with pytest.raises(DataError, match=r"record 3, field edit: .*no token"):
        trainer(tmp_path, [*good[:3], having(good[3], " ")])


def test_only_what_a_training_reads_is_looked_at(tmp_path, caplog):
    mute = [having(r, "zebra") for r in tiny_records(4)]
    mscke(tmp_path, mute, train="scope")  # the classifier has a tokenizer of its own
    silent = [replace(r, text_loc=(Question("where?"),)) for r in tiny_records(4)]
    mscke(tmp_path, silent)
    with pytest.raises(DataError, match=r"record 0, field text_loc: .*no token"):
        dualedit(tmp_path, silent)
    assert not caplog.messages
