"""Hard, easy and sorted questions, and routes, by hand."""

from __future__ import annotations

import json

import pytest

from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.evaluation.metrics import EVQA, FGVEDIT, Judged, case_values
from easyedit_mm_plugins.evaluation.results import CaseResult, make_row
from easyedit_mm_plugins.evaluation.scope_metrics import with_scopes
from easyedit_mm_plugins.evaluation.tables import shown
from easyedit_mm_plugins.methods.base import Answer, Editor
from easyedit_mm_plugins.methods.routed import Hit, RoutedEditor

JUDGED = [
    Judged("edit", 1, 0, 1, routed=True),
    Judged("in_scope", 1, 0, 1, hard=True, routed=True),
    Judged("in_scope", 0, 1, 0, hard=True, sort="Yes no", routed=False),
    Judged("in_scope", 1, 0, 1, hard=False, sort="relation", routed=True),
    Judged("out_scope", 0, 1, 0, hard=True, routed=False),
    Judged("out_scope", 0, 0, 1, hard=False, sort="relation", routed=True),
]


def test_by_hand():
    values = case_values(with_scopes(FGVEDIT, JUDGED), JUDGED)
    assert values["specificity_hard_in"] == 50 and values["specificity_hard_out"] == 100
    assert values["specificity_hard"] == 75 and values["scope_hard"] == 75
    assert (values["scope_hard_in"], values["scope_hard_out"]) == (50, 100)
    assert (values["specificity_easy"], values["scope_easy"]) == (50, 50)
    assert values["specificity_relation"] == 50 and values["scope_yes_no"] is None
    assert values["scope_yes_no_in"] == 0
    assert {name: values[name] for name in FGVEDIT.names} == case_values(FGVEDIT, JUDGED)


def test_nothing_is_added_where_nobody_said_what_is_hard_or_no_method_routes():
    plain = [Judged("in_scope", 1, 0, 1), Judged("out_scope", 0, 1, 0)]
    assert with_scopes(FGVEDIT, plain) == FGVEDIT
    unrouted = [Judged("in_scope", 1, 0, 1, hard=True), Judged("out_scope", 0, 1, 0, hard=True)]
    names = with_scopes(FGVEDIT, unrouted).names
    assert "specificity_hard" in names and not any(name.startswith("scope") for name in names)
    assert with_scopes(EVQA, JUDGED) == EVQA
    # A sort whose name would hide a metric of the suite adds nothing.
    named = [Judged("in_scope", 1, 0, 1, sort="in")]
    assert with_scopes(FGVEDIT, named) == FGVEDIT


class Backbone:
    name = "said"
    vocab_size = 9

    def generate(self, questions, **_):
        return ["old"] * len(questions)


class Model:
    def generate(self, edits, questions, **_):
        return ["new"] * len(questions)


class Router(RoutedEditor):
    """Routes what says so."""

    name = "router"

    def __init__(self):
        super().__init__(Backbone(), Model())

    def route(self, questions, *, visible=None):
        now = self.store.now
        ids = [now.seen_by(None if visible is None else v) for v in visible or questions]
        return [
            Hit(own[0], float("go" in q.text)) if own else Hit(None, 0.0)
            for q, own in zip(questions, ids, strict=True)
        ]


class Stubborn(Editor):
    name = "stubborn"

    def __init__(self):
        super().__init__(Backbone())

    def generate(self, questions, **_):
        return [Answer("new" if self.edits else "old")] * len(questions)

    force = generate


def records():
    inside = (Question("go 1", None, "new", True), Question("stay", None, "new", False, "far"))
    outside = (Question("stay 2", None, "old", True), Question("go 2", None, "old", False, "far"))
    edit = Question("go", None, "new")
    return [EditRecord(f"c{i}", edit, in_scope=inside, out_scope=outside) for i in range(3)]


def test_an_evaluation_counts_routes_and_its_cases_read_back():
    result = evaluate(Router(), records())
    metrics = result.row.metrics
    assert (metrics["scope_hard"], metrics["specificity_hard"]) == (100, 100)
    assert (metrics["scope_easy"], metrics["scope_far"], metrics["specificity_far"]) == (0, 0, 0)
    assert metrics["specificity"] == 50 and result.row.intervals["scope_hard"] == [100, 100]
    lines = json.loads(json.dumps([case.to_json() for case in result.cases]))
    again = [CaseResult.from_json(line) for line in lines]
    assert make_row(again, FGVEDIT).metrics == metrics
    for line in lines:  # of an earlier version
        for question in line["questions"]:
            del question["hard"], question["sort"], question["routed"]
        line["metrics"] = {n: v for n, v in line["metrics"].items() if n in FGVEDIT.names}
    old = make_row([CaseResult.from_json(line) for line in lines], FGVEDIT).metrics
    assert old == {name: metrics[name] for name in FGVEDIT.names}
    lines[0]["questions"][0]["routed"] = "yes"
    with pytest.raises(TypeError, match="field routed"):
        CaseResult.from_json(lines[0])


def test_methods_without_routes_have_no_routing_accuracy_and_tables_show_what_there_is():
    routed = evaluate(Router(), records()).row.to_json()
    stubborn = evaluate(Stubborn(), records()).row.to_json()
    assert "scope_hard" not in stubborn["metrics"]
    assert stubborn["metrics"]["specificity_hard"] == 50
    assert shown([stubborn, routed])[-2:] == ["scope_hard", "specificity_hard"]
    assert shown([stubborn])[-1:] == ["specificity_hard"]
