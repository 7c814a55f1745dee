"""Measuring scope classifiers, their cost, and what tables 2 to 4 and figure 4 share."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError, RunError
from easyedit_mm_plugins.papers import ExperimentSettings, full_size
from easyedit_mm_plugins.papers.classifiers import training_records
from easyedit_mm_plugins.papers.cost import in_turns, profile, share, weight_bytes
from easyedit_mm_plugins.papers.mscke_figure4 import confusion, text_task
from easyedit_mm_plugins.papers.scope_study import (
    ScoredCase,
    ScoreFile,
    accuracy,
    balanced,
    difference,
)

from ..support.mscke_tiny import tiny_mscke, tiny_records


def case(name: str, inside: list[float], outside: list[float]) -> ScoredCase:
    return ScoredCase(name, "x", inside, outside, 0.5)


def test_right_decisions_are_counted_by_case_and_side():
    cases = [case("a", [0.9, 0.5, 0.4], [0.1]), case("b", [0.2], [0.5, 0.49]), case("c", [0.9], [])]
    assert [c.right() for c in cases] == [
        {"in": pytest.approx(200 / 3), "out": 100.0},
        {"in": 0.0, "out": 50.0},
        {"in": 100.0, "out": None},
    ]
    values, intervals = accuracy(cases)
    assert values["in"] == pytest.approx((200 / 3 + 0 + 100) / 3)
    assert values["out"] == 75.0  # a case without such a question counts neither way
    assert values["balanced"] == pytest.approx((values["in"] + values["out"]) / 2)
    assert intervals["in"][0] <= values["in"] <= intervals["in"][1]
    assert balanced(cases) == [pytest.approx(250 / 3), 25.0, None]
    assert confusion(cases) == [[3, 2], [1, 2]]


def test_differences_are_taken_case_by_case():
    better = [90.0, 80.0, 100.0, None, 70.0]
    worse = [80.0, 70.0, 90.0, 10.0, 60.0]
    gap, (low, high) = difference(better, worse)
    assert gap == low == high == 10.0  # always ten apart, however far the cases are
    gap, (low, high) = difference([0.0, 100.0] * 20, [100.0, 0.0] * 20)
    assert low < gap < high and gap == 0.0


def test_scores_are_the_routes_own_and_are_not_asked_for_twice(tmp_path, monkeypatch):
    editor, records = tiny_mscke(), tiny_records(5)
    steps = []
    file = ScoreFile(tmp_path / "scores.jsonl")
    found = file.score("x", editor, records[:3], batch=2, progress=lambda *at: steps.append(at))
    assert steps == [(2, 3), (3, 3)] and not editor.edits
    record = records[1]
    with editor.edited([record.edit]):
        hits = editor.route([*record.in_scope, *record.out_scope])
    expected = [pytest.approx(hit.score, abs=1e-5) for hit in hits]
    assert found[1].inside + found[1].outside == expected
    asked = []
    route = editor.route
    monkeypatch.setattr(editor, "route", lambda q, **kw: asked.append(len(q)) or route(q, **kw))
    again = ScoreFile(tmp_path / "scores.jsonl").score("x", editor, records)
    assert [c.case for c in again] == [r.case_id for r in records]
    assert asked == [8] and again[:3] == found  # the two that were missing


def test_the_text_task_has_no_pictures():
    edit, inside, outside = text_task(tiny_records(1)[0])
    assert edit.image is None and edit.answer == "red"
    assert [q.image for q in (*inside, *outside)] == [None, None]


def test_parts_take_turns_and_are_compared_round_by_round():
    seen = []
    parts = {name: lambda n=name: seen.append(n) for name in "ab"}
    timings = in_turns(parts, {"a": lambda: seen.append("before a")}, rounds=4, warm_up=1)
    assert seen.count("a") == seen.count("b") == seen.count("before a") == 5
    assert all(seen[i - 1] == "before a" for i, name in enumerate(seen) if name == "a")
    assert len(timings["a"].wall) == 4
    timings["a"].work, timings["b"].work = [1.0, 2.0, 9.0], [10.0, 10.0, 10.0]
    assert share(timings["a"], timings["b"]) == 20.0
    with pytest.raises(ValueError, match="round"):
        in_turns(parts, {}, rounds=0)


def test_the_profiler_tells_how_much_memory_a_call_held_at_once():
    def two_at_once_then_one():
        first = torch.ones(250, 1000)  # 1 MB
        second = first + 1
        del first
        third = second * 2
        return third.sum()

    found = profile(two_at_once_then_one)
    assert found.peak_mb == pytest.approx(2.0, abs=0.01)
    assert found.operations >= 4 and len(found.slowest) == 3
    calls = []
    profile(lambda: calls.append("part"), lambda: calls.append("before"), warm_up=False)
    assert calls == ["before", "part"]
    linear = torch.nn.Linear(10, 10)
    assert weight_bytes(linear, linear, "no module") == 440


def test_a_folder_of_other_records_is_not_continued(tmp_path):
    settings = ExperimentSettings("x", out=tmp_path / "run")
    settings.open_folder({"n": 1}, ("scores.jsonl",))
    (settings.out / "scores.jsonl").write_text("")
    settings.open_folder({"n": 1}, ("scores.jsonl",))
    with pytest.raises(RunError, match="n: 1 there, 2 now"):
        settings.open_folder({"n": 2}, ("scores.jsonl",))
    settings.overwrite = True
    settings.open_folder({"n": 2}, ("scores.jsonl",))
    assert not (settings.out / "scores.jsonl").exists()


def test_training_records_lie_beside_the_test_records(tmp_path):
    settings = ExperimentSettings("x", data=str(tmp_path / "test_data.json"), out=tmp_path)
    with pytest.raises(ConfigError, match="no training records beside"):
        training_records(settings)


def test_the_full_size_model_has_its_layout_at_any_size():
    backbone = full_size.build_backbone(
        torch.float32,
        "cpu",
        hidden_size=16,
        intermediate_size=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        encoder_hidden_size=16,
        word_embed_proj_dim=16,
        vocab_size=300,
        image_size=28,
    )
    record = tiny_records(1)[0]
    with torch.no_grad():
        logits = backbone.answer_logits([record.edit, record.text_loc[0]])
    assert [row.shape[-1] for row in logits] == [300, 300]
    assert backbone.image_features([record.edit.image]).shape == (1, 32, 16)
