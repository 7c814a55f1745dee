"""The papers' printed numbers."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.core.errors import UnknownNameError
from easyedit_mm_plugins.evaluation.metrics import SUITES
from easyedit_mm_plugins.papers.published import content, find, notes, published, value


@pytest.mark.parametrize(
    ("table", "backbone", "method", "metric", "keys", "printed"),
    [
        ("mscke-table1", "blip2-opt", "mscke", "specificity", {}, 61.60),
        ("mscke-table1", "blip2-opt", "ike", "locality", {}, 48.49),
        ("mscke-table1", "minigpt4", "MSCKE_MEND", "specificity", {}, 71.98),
        ("mscke-table1", "minigpt4", "ft-llm", "generality", {}, 93.35),
        ("mscke-table3", "blip2-opt", "mscke", "specificity", {}, 64.60),
        ("mscke-table3", "minigpt4", "mscke", "generality", {"classifier": "transferred"}, 93.11),
        ("mscke-table4", "blip2-opt", "mscke", "inference_ms", {"part": "classifier"}, 36),
        ("dualedit-table2", "llava-1.5", "serac", "m_loc", {"dataset": "e-ic"}, 7.63),
        ("dualedit-table2", "blip2-opt", "dualedit", "average", {"dataset": "e-vqa"}, 98.82),
        (
            "dualedit-table3",
            "blip2-opt",
            "dualedit",
            "average",
            {"dataset": "e-ic", "t_layer": 16, "v_layer": 19, "gating": False},
            96.38,
        ),
        (
            "dualedit-table1",
            "blip2-opt",
            "dualedit",
            "m_loc",
            {"t_layer": None, "v_layer": 17},
            76.14,
        ),
        (
            "dualedit-figure5",
            "blip2-opt",
            "dualedit",
            "reliability",
            {"t_layer": 19, "v_layer": 18},
            98.18,
        ),
    ],
)
def test_numbers_are_found_as_printed(table, backbone, method, metric, keys, printed):
    assert value(table, backbone, method, metric, **keys) == printed


def test_tables_are_complete():
    """Rows times columns as the papers print them."""
    sizes = {}
    for number in published():
        sizes[number.table] = sizes.get(number.table, 0) + 1
    assert sizes == {
        "mscke-table1": 7 * 8,
        "mscke-table2": 6,
        "mscke-table3": 7 * 4,
        "mscke-table4": 6,
        "dualedit-table1": 8 * 6,
        "dualedit-table2": 20 * 12,
        "dualedit-table3": 9 * 12,
        "dualedit-figure5": 16,
    }
    assert {n.unit for n in published() if n.table != "mscke-table4"} == {"%"}
    assert {n.unit for n in find("mscke-table4")} == {"ms", "GB"}


def test_averages_are_those_of_their_row_and_names_are_ours():
    """Guards the transcription: every printed average is the mean of its five metrics."""
    suite = SUITES["evqa"]
    rows = {}
    for n in published():
        key = (n.table, n.backbone, n.dataset, n.method, tuple(n.variant.items()))
        rows.setdefault(key, {})[n.metric] = n.value
    checked = 0
    for key, row in rows.items():
        if "average" in row:
            parts = [row[part] for part in suite.derived[0].parts]
            assert sum(parts) / 5 == pytest.approx(row["average"], abs=0.00501), key
            checked += 1
    assert checked == 8 + 40 + 18
    metrics = {n.metric for n in published() if n.unit == "%"}
    assert metrics <= {*SUITES["fgvedit"].names, *suite.names}


def test_what_the_papers_contradict_is_noted():
    assert any("64.60" in note and "64.73" in note for note in notes("mscke-table1"))
    assert any("81.77" in note for note in notes("dualedit-table3"))
    assert all(isinstance(table["notes"], list) for table in content()["tables"])


def test_unknown_and_ambiguous_names_say_what_would_do():
    with pytest.raises(UnknownNameError, match="did you mean mscke-table1"):
        value("mscke-tabel1", "blip2-opt", "mscke", "specificity")
    with pytest.raises(UnknownNameError, match="no published table"):
        notes("table 1")
    with pytest.raises(UnknownNameError, match=r"2 rows of mscke on minigpt4.*transferred"):
        value("mscke-table3", "minigpt4", "mscke", "specificity")
    assert value("mscke-table1", "llava-1.5", "mscke", "specificity") is None
    assert find("mscke-table1", method="dualedit") == []
    assert [n.value for n in find("mscke-table2", fusion="cross-attention")] == [64.45, 64.35]
