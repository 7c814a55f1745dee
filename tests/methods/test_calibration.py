"""Thresholds from held-back records: many edits in force, the worst of them, a bound a kind."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from easyedit_mm_plugins.core.errors import ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.calibration import calibrate, choose
from easyedit_mm_plugins.methods.routed import Hit

from ..support.mscke_tiny import tiny_mscke, tiny_records


class Known:
    """Scores by (edit's text, question's text); the nearest edit in force is found."""

    def __init__(self, scores: dict[tuple[str, str], float], newer=None) -> None:
        self.scores, self.in_force, self.most = scores, {}, 0
        self.store = SimpleNamespace(now=SimpleNamespace(newer=newer or {}))

    @contextmanager
    def edited(self, edits):
        self.in_force = {f"e{i}": edit for i, edit in enumerate(edits, 1)}
        self.most = max(self.most, len(edits))
        yield list(self.in_force)
        self.in_force = {}

    def route(self, questions):
        found = []
        for question in questions:
            near = {
                i: self.scores.get((e.text, question.text), 0.0) for i, e in self.in_force.items()
            }
            best = max(near, key=lambda i: near[i])
            found.append(Hit(best, near[best]))
        return found


def record(name: str) -> EditRecord:
    edit = Question(name, None, "a")
    inside, outside = (Question(f"{name} {side}", None, "b") for side in ("in", "out"))
    return EditRecord(name, edit, in_scope=(inside,), out_scope=(outside,))


RECORDS = [record(name) for name in "pqr"]
SCORES = {(n, n): 1.0 for n in "pqr"} | {(n, f"{n} in"): 0.8 for n in "pqr"}
SCORES |= {("q", "p out"): 0.6, ("r", "q in"): 0.9, ("more", "r out"): 0.7}


def test_with_many_edits_in_force_the_worst_counts_and_another_edits_answer_is_wrong():
    alone = calibrate(Known(SCORES), RECORDS)
    assert alone.scores["out_scope"] == [0.0] * 3 and alone.balanced_accuracy == 1
    assert alone.threshold == pytest.approx(0.4) and alone.edits == 1 and alone.auc == 1
    editor = Known(SCORES)
    two = calibrate(editor, RECORDS, edits=2)
    assert editor.most == 2 and two.scores["out_scope"] == [0.6, 0.0, 0.0]
    assert two.scores["in_scope"] == [0.8, 0.8, 0.8]  # r's edit is not in force beside q's
    more = [Question("more", None, "a")]
    four = calibrate(Known(SCORES), RECORDS, edits=4, more=more)
    assert four.scores["out_scope"] == [0.6, 0.0, 0.7]
    assert four.scores["in_scope"] == [0.8, float("-inf"), 0.8]
    assert four.fires == {"edit": 1, "in_scope": pytest.approx(2 / 3), "out_scope": 0}
    with pytest.raises(ConfigError, match="5 edits are to be in force, but there are 4"):
        calibrate(Known(SCORES), RECORDS, edits=5, more=more)


def test_an_edit_that_answers_for_an_older_one_of_its_meaning_is_the_right_one():
    given = {"edits": 3, "kinds": ("edit", "in_scope", "out_scope")}
    assert calibrate(Known(SCORES), RECORDS, **given).scores["in_scope"][1] == float("-inf")
    newer = {"e2": ("e3",)}
    assert calibrate(Known(SCORES, newer), RECORDS, **given).scores["in_scope"][1] == 0.9


def test_each_kind_of_question_out_of_scope_is_bounded_by_itself():
    scores = {
        "edit": [0.9] * 100,
        "in_scope": [0.5] * 60 + [0.9] * 40,
        "text_loc": [0.1] * 1000,
        "out_scope": [0.6] * 10 + [0.1] * 90,
    }
    assert choose(scores)[0] == pytest.approx(0.3)
    threshold, accuracy = choose(scores, at_most=0.05)
    assert threshold == pytest.approx(0.75) and accuracy == pytest.approx((0.7 + 1) / 2)
    three = scores | {"rephrase": [0.9] * 100}  # what the scope questions weigh, the others share
    assert choose(three, at_most=0.05)[1] == pytest.approx(((0.4 + 1) / 2 + 1) / 2)
    assert choose(scores | {"image_loc": [1.0] * 100}, at_most=0.05) == (
        1.0,
        0.0,
    )  # none is allowed
    with pytest.raises(ConfigError, match="at_most is -1"):
        calibrate(Known(SCORES), RECORDS, at_most=-1)
    with pytest.raises(DataError, match="no question that is in scope"):
        choose({"edit": [1.0]})


def test_an_editors_own_threshold_is_set_and_nothing_stays_in_force():
    editor, records = tiny_mscke(), tiny_records(4)
    found = editor.calibrate(records, edits=3, at_most=0.0)
    assert editor.threshold == found.threshold and found.edits == 3
    assert not editor.edits and all(found.fires[k] == 0 for k in ("out_scope", "text_loc"))
    with editor.edited([r.edit for r in records[:3]]):
        hit = editor.route(records[0].out_scope[:1])[0]
    assert found.scores["out_scope"][0] == pytest.approx(hit.score, abs=1e-6)
