"""Attackers on files: what texts tell, what they do not, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from easyedit_mm_plugins.cli.data import app
from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.data.tools.attackers import Attacker, scoped
from easyedit_mm_plugins.data.tools.blind import Base, blind, by_texts
from easyedit_mm_plugins.data.tools.card import card
from easyedit_mm_plugins.data.tools.stats import describe, markdown

from ..conftest import picture
from ..support.blind_records import leaky, paired


@pytest.fixture
def write(tmp_path):
    def write(records, name="records.json"):
        (tmp_path / name).write_text(json.dumps(records))
        return tmp_path / name

    return write


def test_texts_that_tell_the_scope_are_found_out(write):
    train, test = write(leaky(120)), write(leaky(60, seed=1), "test.json")
    for found in (blind(train, test), blind(train)):
        assert found.of("text").accuracy == found.of("rule").accuracy == 100
        assert found.of("constant").accuracy == 50 and found.of("constant").inside == 100
        assert found.of("text", "yes no").n == found.of("text", "easy").n
        assert found.verdict().startswith("texts alone reach 100.0 % on hard questions: this file")
        assert found.verdict().endswith("without looking at the picture")
    assert found.tested == "cross-validated" and found.of("text").n == (120, 120)


def test_pairs_with_swapped_scopes_tell_nothing(write):
    """Also not by remembering the other half of a pair, which would put them below 50."""
    found = blind(write(paired(150)))
    for name in ("text", "query", "rule"):
        finding = found.of(name)
        assert 42 < finding.accuracy < 58 and finding.interval[0] <= 50 <= finding.interval[1]
    assert found.verdict().endswith("this file cannot be passed so")


def test_a_pair_is_never_divided(write):
    records = FGVEditDataset(write(paired(3)), check="off").records
    groups = [one.group for one in scoped(records)]
    assert groups == [g for g in "012" for _ in range(4)]


def test_a_base_model_whose_answers_tell_is_found_out(write, tmp_path):
    records = paired(40)
    for i in range(80):
        picture(i).save(tmp_path / f"{i}.png")
    inside = {(r["image"], r["fg_gen_q"]) for r in records}

    def answers(questions):
        return ["small" if (q.image.name, q.text) in inside else "large" for q in questions]

    looked = []

    def pictures(images):
        looked.append(len(images))
        return [np.full(5, int(image.stem) % 7, float) for image in images]

    found = blind(write(records), base=Base("told", pictures, answers))
    assert found.of("answers").accuracy > 95 > 65 > found.of("text").accuracy
    assert found.of("picture") and found.of("query-picture")
    assert looked == [80]  # for both of them
    assert "base model's answers reach" in found.verdict()
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match=r"record 3, field image: image not found"):
        blind(tmp_path / "records.json", base=Base("told", pictures, answers))
    assert blind(tmp_path / "records.json").findings  # texts need no pictures


def test_what_is_wrong_is_said_with_its_place(write):
    records = leaky(20)
    records[4]["fg_gen_q"] = 7
    with pytest.raises(DataError, match=r"records.json, record 4, field fg_gen_q: is a int"):
        blind(write(records))
    few = r"fewer than 10 pictures with questions in and out of scope.*\n.*give more records"
    with pytest.raises(DataError, match=few):
        blind(write(leaky(9)))
    one_side = [{k: v for k, v in r.items() if not k.startswith("fg_loc")} for r in leaky(20)]
    for record in one_side:
        record["fg_extra"]["out"] = []
    with pytest.raises(DataError, match="nothing can be learned"):
        blind(write(one_side))
    with pytest.raises(ConfigError, match="unknown attacker 'texts'; did you mean text"):
        Attacker("texts")
    with pytest.raises(ConfigError, match="all are on one side"):
        Attacker("text").fit(scoped(FGVEditDataset(write(one_side), check="off").records))


def test_hardness_sorts_and_pairs_are_read_and_checked(write):
    record = leaky(1)[0] | {"pair": 3, "fg_loc_hard": False}
    record["fg_extra"]["in"][0]["hard"] = True
    read = FGVEditDataset(write([record]), check="off", extra=True)[0]
    assert [(q.hard, q.sort) for q in read.in_scope] == [(True, ""), (True, "yes no")]
    assert [(q.hard, q.sort) for q in read.out_scope] == [(False, ""), (False, "yes no")]
    assert read.pair == "3" and read.edit.hard is None
    for wrong, message in (
        ({"pair": 1.5}, "field pair: is a float"),
        ({"fg_gen_hard": "yes"}, "field fg_gen_hard: is 'yes', must be true or false"),
        ({"fg_extra": {"in": [{"q": "a", "a": "b", "kind": 3}]}}, "fg_extra: has kind 3, must be"),
        ({"fg_extra": {"out": [{"q": "a", "a": "b", "hard": 1}]}}, "fg_extra: has hard 1, must be"),
    ):
        with pytest.raises(DataError, match=message):
            FGVEditDataset(write([record | wrong]), check="off")


def test_the_command_the_statistics_and_the_card(write, tmp_path):
    train = write(leaky(40), "train.json")
    out = tmp_path / "out" / "a.json"
    shown = CliRunner().invoke(app, ["blind", str(train), "--json", str(out)])
    assert shown.exit_code == 0 and "hard: 40 questions in, 40 out of scope" in shown.output
    assert "texts alone reach 100.0 %" in shown.output
    kept = json.loads(out.read_text())
    assert kept["verdict"] in shown.output.replace("\n", " ")
    assert {f["attacker"] for f in kept["attackers"]} == {"constant", "rule", "query", "text"}
    stats = describe(train)
    assert json.loads(json.dumps(stats["train"]["blind"])) == kept
    rows = [line for line in markdown(stats).splitlines() if line.startswith("|")]
    assert "| hard questions: edit, answer and query | 100.0 (100.0 to 100.0) |" in rows
    assert "- train: texts alone reach 100.0 %" in card(train)
    assert describe(write(leaky(3)))["records"]["blind"] is None
    assert by_texts(write([{"src": "a", "alt": "b", "loc": "c"}] * 20)) is None
