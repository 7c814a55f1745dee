"""Attackers keep the contract of editing methods, and route as their classifiers say."""

from __future__ import annotations

import json

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import FGVEditDataset, Question
from easyedit_mm_plugins.methods import METHODS, make_editor
from easyedit_mm_plugins.methods.blind import BlindHyperParams, BlindText

from ...conftest import build_tiny, picture
from ...support.blind_records import leaky
from ...support.mscke_tiny import tiny_mscke

ATTACKERS = [entry.name for entry in METHODS if entry.kind == "attacker"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Training records, their pictures, and a tiny MSCKE."""
    folder = tmp_path_factory.mktemp("blind")
    (folder / "train.json").write_text(json.dumps(leaky(30)))
    for i in range(30):
        picture(i).save(folder / f"{i}.png")
    tiny_mscke().save_pretrained(folder / "mscke", half=False)
    return folder


def make(name, folder, **settings):
    given = {"train": str(folder / "train.json"), "archive": str(folder / "mscke"), **settings}
    return make_editor(name, build_tiny("llava"), settings=given)


def asked(folder):
    records = FGVEditDataset(folder / "train.json", extra=True).records[:4]
    questions = [q for r in records for q in (r.edit, *r.in_scope, *r.out_scope, *r.text_loc)]
    return [r.edit for r in records], questions


@pytest.mark.parametrize("name", ATTACKERS)
def test_the_contract(name, folder):
    editor = make(name, folder)
    edits, questions = asked(folder)
    before = editor.generate(questions)
    assert [a.text for a in before] == editor.backbone.generate(questions)
    ids = editor.add(edits)
    own = [ids[i // 6 % 4] for i in range(len(questions))]
    together = editor.route(questions, visible=[[i] for i in own])
    alone = [editor.route([q], visible=[[i]])[0] for q, i in zip(questions, own, strict=True)]
    assert [h.id for h in together] == [h.id for h in alone] == own
    assert [h.score for h in together] == pytest.approx([h.score for h in alone], abs=1e-4)
    # The edit asked again opens the gate, whatever the attacker thinks; without edits nothing does.
    again = editor.route(edits, visible=[[i] for i in ids])
    assert [h.score for h in again] == [1.0] * 4
    same = Question(edits[0].text, picture(0))  # the same pixels, not from the same file
    assert editor.route([same], visible=[[ids[0]]])[0].score == 1.0
    assert editor.route(questions[:2], visible=[[], []]) == [(None, 0.0), (None, 0.0)]
    editor.remove(ids)
    after = editor.generate(questions)
    assert after == before
    told = editor.describe()
    assert told["kind"] == "attacker" and told["records"] == 30 and editor.name == name


def test_texts_route_what_texts_tell_and_the_counterfactual_model_answers(folder):
    editor = make("blind-text", folder)
    records = FGVEditDataset(folder / "train.json").records[:6]
    ids = editor.add([r.edit for r in records])
    for side, inside in (("in_scope", True), ("out_scope", False)):
        questions = [getattr(r, side)[0] for r in records]
        answers = editor.generate(questions, visible=[[i] for i in ids])
        assert [a.route for a in answers] == (ids if inside else [None] * 6)
        if inside:
            given = [r.edit for r in records]
            assert [a.text for a in answers] == editor.counterfactual.generate(given, questions)
    kept = editor.counterfactual.state_dict()
    trained = tiny_mscke().counterfactual.state_dict()
    assert all(torch.equal(kept[n], trained[n]) for n in trained)


@pytest.mark.parametrize("name", ["blind-query-picture", "blind-text"])
def test_no_question_without_a_picture_is_in_scope_of_an_edit_with_one(name, folder):
    editor = make(name, folder)
    edits, _ = asked(folder)
    first, second = editor.add([edits[0], Question("what size is the star?", None, "small")])
    bare = Question("what size is the red thing?")
    assert editor.route([bare], visible=[[first]])[0].score == 0
    both_bare = editor.route([bare], visible=[[second]])[0].score
    assert (both_bare > 0) is (name == "blind-text")  # which needs no picture


def test_memory_is_written_and_read(folder, tmp_path):
    editor = make("blind-answers", folder, answered=10)
    edits, questions = asked(folder)
    editor.add(edits)
    editor.save_memory(tmp_path / "memory")
    other = make("blind-answers", folder, answered=10)
    other.load_memory(tmp_path / "memory")
    assert [h.id for h in other.route(questions)] == [h.id for h in editor.route(questions)]
    assert editor.describe()["records"] == 10


def test_they_are_marked_and_say_what_is_missing(folder):
    assert len(ATTACKERS) == 6 and METHODS.get("mscke").kind == "method"
    assert all(METHODS.get(n).alg == "BLIND" and not METHODS.get(n).easyedit for n in ATTACKERS)
    with pytest.raises(CheckpointError, match=r"no MSCKE is shipped for tiny-llava"):
        BlindText(build_tiny("llava"), str(folder / "train.json"))
    read = BlindHyperParams.from_hparams("BLIND/scenes-llava")
    assert read.train == "scenes" and read.archive is None
    with pytest.raises(ConfigError, match="records is 0"):
        make("blind-text", folder, records=0)
