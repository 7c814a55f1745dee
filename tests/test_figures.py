"""The measured figures in README.md and docs/ are those of the committed runs."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.core.files import read_json
from easyedit_mm_plugins.report.layout import heading
from scripts.figures import __main__ as figures
from scripts.figures import rows
from scripts.figures.registry import SOURCES, TABLES, Source
from scripts.figures.tables import Column, Table, caption, fill, tables_in

ROWS = [
    {"method": "unedited", "backbone": "scenes-llava", "specificity": 50.0, "n": 9},
    {"method": "mscke", "backbone": "scenes-llava", "specificity": 97.04, "n": 9}
    | {"intervals": {"specificity": [95.86, 98.0]}},
    {"method": "another", "backbone": "scenes-llava", "specificity": 99.2, "n": 9},
    {"method": "mscke", "backbone": "scenes-new", "specificity": 96.9, "n": 9},
]


# The documents --------------------------------------------------------------------------------


def test_every_table_is_written_from_its_committed_figures():
    assert not figures.changes(), "make tables"


def test_pictures_and_pages_are_of_the_run_that_the_figures_are_of():
    assert not figures.other_copies(), "make standing"


NOT_MEASURED_YET = {"full-size", "full-size-trial", "lifelong"}  # the documents say so


def test_every_figures_file_has_a_source_and_every_table_a_place():
    files = {path.stem for path in figures.FIGURES.glob("*.json")}
    assert files <= set(SOURCES)
    placed = [name for path in figures.documents() for name in tables_in(path.read_text("utf-8"))]
    assert len(placed) == len(set(placed)) and set(placed) <= set(TABLES)
    assert {TABLES[name].source for name in placed} - files <= NOT_MEASURED_YET
    shown = {table.source for table in TABLES.values()}
    assert {TABLES[name].source for name in placed} >= files & shown
    assert {"demo", "standing-specificity", "dualedit-gates"} <= set(placed)


def test_no_table_of_figures_is_written_by_hand():
    """Outside the marked places no table has a line of which most cells are figures."""
    figure = re.compile(r"\**[-+]?[\d,]*\.\d+\**( ?%| \(.*\))?")
    for path in figures.documents():
        text = fill(path.read_text("utf-8"), lambda name: "")
        for line in (line for line in text.splitlines() if line.startswith("|")):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found = sum(bool(figure.fullmatch(cell)) for cell in cells)
            assert found < 2, f"{path.name}: {line}"


# Of trainings that are over: the same by chance.
TOLD = {"reproduce-mscke.md": {"96.1"}, "mend.md": {"95.0"}}


def test_prose_repeats_no_figure_of_a_table():
    """A figure stands in a table alone, where it is written by a command."""
    figure = re.compile(r"(?<![\d.])\d\d\.\d(?![\d.])")
    for path in figures.documents():
        text = path.read_text("utf-8")
        shown = {found for name in tables_in(text) for found in figure.findall(figures.block(name))}
        prose = re.sub(r"```.*?```|`[^`]*`", "", fill(text, lambda name: ""), flags=re.S)
        assert shown & set(figure.findall(prose)) <= TOLD.get(path.name, set()), path.name


def test_a_changed_figure_is_found(monkeypatch):
    real = figures.figures_of

    def other(source):
        found = real(source)
        if source == "demo":
            row = next(row for row in found["rows"] if row["method"] == "mscke")
            row["reliability"] -= 0.1
        return found

    monkeypatch.setattr(figures, "figures_of", other)
    assert {path.name for path in figures.changes()} == {"README.md"}
    assert figures.main(["check"]) == 1


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.commands])
def test_the_commands_of_a_source_are_known(name, tmp_path):
    """Experiments, configurations, scripts and their options; nothing is measured."""
    pytest.importorskip("hydra")
    from easyedit_mm_plugins.cli.compare.compose import compose_all
    from easyedit_mm_plugins.papers import EXPERIMENTS

    for _, *words in figures.commands(SOURCES[name], tmp_path, 2):
        if words[0] != "-m":
            script, options = figures.ROOT / words[0], words[1:]
            sources = [script.read_text("utf-8"), (script.parent / "common.py").read_text("utf-8")]
            known = set(re.findall(r'"(--[\w-]+)"', "".join(sources)))
        else:
            command, *options = words[2:]
            if command == "compare":
                assert compose_all(options)
                continue
            if command == "reproduce":
                EXPERIMENTS.check(options[0])
            known = {"--out", "--limit", "--backbone", "--title", "--cases"}
        assert {word for word in options if word.startswith("--")} <= known
    assert list(figures.results(SOURCES[name], tmp_path))


# Tables ---------------------------------------------------------------------------------------


def test_methods_backbones_and_metrics_come_from_the_rows():
    shown = Table("s", ("method",), [Column("specificity", best=True)], across="backbone")
    assert shown.markdown(ROWS).splitlines() == [
        "|  | `scenes-llava` | `scenes-new` |",
        "| --- | ---: | ---: |",
        "| Unedited | 50.0 |  |",
        "| MSCKE | 97.0 | 96.9 |",
        "| another | **99.2** |  |",
    ]
    rows = [{**row, "scope_hard": 53.0} for row in ROWS]
    assert f" {heading('scope_hard')} |" in Table("s", ("backbone", "method")).markdown(rows)


def test_a_cell_has_its_interval_and_what_stands_beside_it():
    column = Column("specificity", interval=True)
    assert column.text(ROWS[1]) == "97.0 (95.9 to 98.0)"
    row = {"specificity_hard": 92.0, "specificity_hard_in": 90.0, "specificity": 97.0}
    headline = Column(
        "specificity_hard|specificity", beside=("specificity_hard_in|specificity_in",)
    )
    known = headline.known([row])
    assert known is not None and known.text(row) == "92.0 (90.0)"
    assert headline.known([{"specificity": 1.0}]).metric == "specificity"
    assert headline.known([{"reliability": 1.0}]) is None


def test_the_unedited_model_and_a_single_rival_are_not_best():
    shown = Table("s", ("method",), [Column("specificity", best=True)])
    assert "**" not in shown.markdown(ROWS[:2])


def test_lines_can_be_columns_and_repeated_labels_are_printed_once():
    flipped = Table("s", ("backbone", "method"), [Column("specificity")], flipped=True)
    assert flipped.markdown(ROWS[:2]).splitlines()[2] == "| Specificity | 50.0 | 97.0 |"
    lines = Table("s", ("backbone", "method"), [Column("specificity")]).markdown(ROWS)
    assert lines.splitlines()[3] == "|  | MSCKE | 97.0 |"
    apart = Table("s", ("method", "backbone"), [Column("specificity")]).markdown(ROWS)
    assert apart.splitlines()[4] == "|  | `scenes-new` | 96.9 |"


def test_two_rows_for_one_cell_and_no_row_at_all_are_refused():
    with pytest.raises(ConfigError, match="two rows"):
        Table("s", ("method",), [Column("specificity")]).markdown(ROWS)
    with pytest.raises(ConfigError, match="no row"):
        Table("s", ("method",), [Column("reliability")]).markdown(ROWS)


def test_a_caption_says_what_was_entered_by_hand():
    about = {"date": "2026-11-21", "commit": "abc", "protocol": "generated", "seed": 0}
    made = {"name": "x", "source": "run", "measured": about, "rows": ROWS}
    assert caption(made).startswith("*9 cases, protocol `generated`, seed 0; measured 2026-11-21")
    assert "by hand" in caption({**made, "source": "transcribed"})


# Rows -----------------------------------------------------------------------------------------


def measured(method, **metrics):
    """A row of ``summary.json``."""
    labels = {"backbone": "scenes-llava", "dataset": "scenes", "protocol": "generated", "n": 5}
    intervals = {name: [value - 1, value + 1] for name, value in metrics.items()}
    return {"method": method, **labels, "metrics": metrics, "intervals": intervals}


def test_a_variants_name_says_its_layers_and_gate():
    names = ("t1-v4", "t1-v4-gated", "v0", "t7-gated", "trained-to-the-end-no-gate")
    found = {"rows": [measured(f"dualedit/{name}", reliability=90.0) for name in names]}
    assert [(row["text"], row["visual"], row["gate"]) for row in rows.variants([found])] == [
        (1, 4, "none"), (1, 4, "prompt-end"), (None, 0, "none"), (7, None, "prompt-end"),
        (None, None, "none"),
    ]  # fmt: skip


def test_a_moved_classifier_is_one_line_with_both_figures():
    kinds = {"mscke/own": 95.0, "mscke-mend/transferred": 94.0, "mscke-mend/retrained": 96.0}
    gap = {"method": "mscke-mend", "backbone": "scenes-llava", "metric": "specificity_hard"}
    found = {
        "rows": [measured(name, specificity_hard=value) for name, value in kinds.items()],
        "differences": [{**gap, "difference": -2.0, "interval": [-3.0, -1.0]}],
    }
    home, moved = rows.mscke_table3([found])
    assert home["transferred"] == 95.0 and "retrained" not in home
    assert (moved["transferred"], moved["retrained"], moved["difference"]) == (94.0, 96.0, -2.0)
    assert moved["intervals"]["retrained"] == [95.0, 97.0]
    assert "-2.0 (-3.0 to -1.0)" in TABLES["mscke-table3"].markdown([home, moved])


def test_a_step_and_a_gate_are_rows_of_their_own():
    steps = {"straightforward": 0.5, "first": 0.25, "again": 0.1}
    gate = {"learned, batch 1, new picture": 1.04, "prompt-end, batch 1, new picture": 1.02}
    found = rows.dualedit_speed([{"backbone": "scenes-llava", "steps": steps, "gate": gate}])
    assert found[0]["again_times"] == 5.0 and found[0]["first"] == 250.0
    assert [(row["gate"], row["batch 1, new picture"]) for row in found[1:]] == [
        ("learned", 4.0), ("prompt-end", 2.0),
    ]  # fmt: skip


def test_costs_are_a_line_for_each_batch_and_situation():
    parts = {"classifier": {"time_ms": 2.0, "share_of_base": 20.0}}
    parts["base"] = {"time_ms": 10.0, "share_of_base": 100.0}
    cost = {"backbone": "scenes-llava", "batch": 1, "situation": "benchmark", "rounds": 3}
    (row,) = rows.mscke_table4([{"costs": [{**cost, "parts": parts}]}])
    assert (row["classifier"], row["base"], row["share"]) == (2.0, 10.0, 20.0)


# Measuring ------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository with one source, one table and one document, and a command that counts."""
    (tmp_path / "docs/figures").mkdir(parents=True)
    (tmp_path / "docs/page.md").write_text("<!-- table: t -->\n<!-- end of table -->\n")
    (tmp_path / "README.md").write_text("nothing\n")
    script = tmp_path / "measure.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "seen = pathlib.Path(__file__).with_name('seen')\n"
        "seen.write_text(seen.read_text() + 'x' if seen.is_file() else 'x')\n"
        "row = {'method': 'mscke', 'specificity': float(sys.argv[2]), 'protocol': 'generated'}\n"
        "pathlib.Path(sys.argv[1]).write_text(json.dumps({'rows': [row]}))\n"
        "print('measured')\n"
    )
    source = Source(
        (f"python {script} {{out}}/found.json {{cases}}",), ("found.json",),
        lambda results: results[0]["rows"], 1, cases=7,
    )  # fmt: skip
    for name, value in (
        ("ROOT", tmp_path), ("FIGURES", tmp_path / "docs/figures"), ("RUNS", tmp_path / "runs"),
        ("SOURCES", {"s": source}), ("TABLES", {"t": Table("s", ("method",))}),
        ("weights", lambda: "w"),
    ):  # fmt: skip
        monkeypatch.setattr(figures, name, value)
    seen = tmp_path / "seen"
    return SimpleNamespace(
        root=tmp_path, script=script, times=lambda: len(seen.read_text()) if seen.exists() else 0
    )


def test_make_measures_keeps_and_writes_and_does_not_measure_twice(house, capsys):
    assert figures.main(["make"]) == 0 and figures.main(["make"]) == 0
    assert "| MSCKE | 7.0 |" in (house.root / "docs/page.md").read_text()
    kept = read_json(house.root / "docs/figures/s.json")
    assert kept["source"] == "run" and kept["weights"] == "w"
    assert kept["measured"]["protocol"] == "generated" and kept["measured"]["torch"]
    assert house.times() == 1 and "measured already" in capsys.readouterr().out
    assert figures.main(["make", "--again"]) == 0 and house.times() == 2
    assert figures.main(["check"]) == 0


def test_other_weights_are_measured_anew(house, monkeypatch):
    assert figures.main(["make"]) == 0 and figures.stands("s") == ""
    monkeypatch.setattr(figures, "weights", lambda: "others")
    assert figures.stands("s") == "older"
    assert figures.main(["make"]) == 0 and house.times() == 2


def test_a_trial_leaves_the_documents_alone(house, capsys):
    assert figures.main(["make", "--cases", "2"]) == 0
    assert "| MSCKE | 2.0 |" in capsys.readouterr().out
    assert not list((house.root / "docs/figures").iterdir())


def test_a_command_that_fails_is_said_with_its_last_words(house, capsys):
    house.script.write_text("raise SystemExit('no room left')")
    assert figures.main(["make"]) == 1
    assert "no room left" in capsys.readouterr().out


def test_a_line_a_minute_says_how_far_a_command_is(house, capsys, monkeypatch):
    monkeypatch.setattr(figures, "MINUTE", 0.3)
    command = [sys.executable, "-u", "-c", "import time; print('half'); time.sleep(1.5)"]
    figures.run("s", command, house.root / "log.txt")
    assert "half" in capsys.readouterr().out
