"""``easyedit-mm reproduce lifelong``: what is in force, what is asked, and what comes of it."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.data import load_records
from easyedit_mm_plugins.evaluation import RunFolder
from easyedit_mm_plugins.evaluation.protocol import Protocol
from easyedit_mm_plugins.methods.base import Answer, Unedited
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.methods.ft import FTLLM, FTConfig, FTVisual
from easyedit_mm_plugins.papers import ExperimentSettings, lifelong
from easyedit_mm_plugins.papers.lifelong_editors import Block, InSequence, standing
from easyedit_mm_plugins.papers.lifelong_records import make_tasks, several, spread
from easyedit_mm_plugins.scenes import records as first_edition
from easyedit_mm_plugins.scenes.questions import names
from easyedit_mm_plugins.scenes.records import write_scenes
from easyedit_mm_plugins.scenes.second.world import sample_scene
from scripts.figures import rows as figures
from scripts.figures.registry import TABLES

from ..cli.test_cli import run
from ..conftest import build_tiny, picture
from ..support.grid_tools import here
from ..support.mscke_tiny import tiny_mscke, tiny_records

assert here and run  # fixtures
COLORS = ("green", "red", "yellow")


class Notebook(Unedited):
    """The newest edit with a question's words and picture answers it."""

    name = "notebook"
    stops_after: int | None = None

    def generate(self, questions, *, visible=None, max_new_tokens=8, **kwargs):
        if self.stops_after is not None:
            if type(self).stops_after == 0:
                raise KeyboardInterrupt
            type(self).stops_after -= 1
        base = self.backbone.generate(questions)
        answers = []
        for row, question in enumerate(questions):
            seen = self.edits if visible is None else visible[row]
            hits = [i for i, edit in self.edits.items() if i in seen
                    and (edit.text, edit.image) == (question.text, question.image)]  # fmt: skip
            route = hits[-1] if hits else None
            answers.append(Answer(self.edits[route].answer if route else base[row], route))
        return answers


class OneByOne(Notebook):
    """The same, but all its edits show in every answer."""

    name = "one-by-one"
    isolates_rows = False


@pytest.fixture
def cases(here, tmp_path):
    """Twelve records on pictures of their own, and methods that know what they were told."""
    for i in range(13):
        picture(i).save(tmp_path / f"{i}.png")
    records = json.loads((tmp_path / "cases.json").read_text())
    made = [
        {**records[i % 5], "case_id": f"c{i}", "image": f"{i}.png", "pred": "blue",
         "alt": COLORS[i % 3], "image_rephrase": f"{i + 1}.png"}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(made))
    for method in (Notebook, OneByOne):
        METHODS.add(name=method.name, editor=method)
        method.stops_after = None
    yield here
    for method in (Notebook, OneByOne):
        METHODS.unregister(method.name)


def asked(**changes) -> ExperimentSettings:
    values = {"backbones": ["one"], "data": "cases.json", "limit": 4, "edits": [1, 4, 10]}
    return ExperimentSettings("lifelong", **{**values, **changes})


def rows_of(settings: ExperimentSettings, **labels) -> list[dict]:
    rows = json.loads((settings.out / "summary.json").read_text())["rows"]
    return [r for r in rows if all(r.get(key) == value for key, value in labels.items())]


# What is in force, and what is asked ----------------------------------------------------------


def test_asked_edits_are_spread_evenly_in_their_order():
    assert spread("ab", "1234567") == list("12a345b67")
    found = spread("abcd", [str(i) for i in range(96)])
    assert [found.index(x) for x in "abcd"] == [12, 37, 62, 87] and len(found) == 100
    assert spread("abc", "") == list("abc")


def test_the_same_records_are_asked_at_every_size_and_none_is_in_force_elsewhere(cases):
    records = load_records("cases.json")
    tasks, notes = make_tasks(records, (1, 2, 10, 100), 4, None)
    by_name = {task.name: task for task in tasks}
    assert set(by_name) == {
        "1", "2", "10", "again", "again-undone", "again-reworded", "again-reworded-undone",
    }  # fmt: skip
    assert any("100 edits" in note for note in notes)
    for size in (1, 2, 10):
        task = by_name[str(size)]
        assert [r.case_id for b in task.blocks for r in b.asked[""]] == ["c0", "c1", "c2", "c3"]
        assert all(len(b.edits) == size == len(set(b.edits)) for b in task.blocks)
        assert all(r.edit in b.edits for b in task.blocks for r in b.asked[""])
    ten = by_name["10"].blocks[0]
    in_force = {edit.image for edit in ten.edits}
    others = [r.image_loc[0] for r in ten.asked[""] if r.image_loc]
    assert others and not in_force & {q.image for q in others}
    assert {r.edit for r in ten.asked["-last"]} == {ten.edits[-1]}
    record = ten.asked[""][1]
    (again,) = record.image_rephrase
    assert (again.text, again.image.name) == ("the circle is what color?", "2.png")


def test_an_edit_again_has_a_third_answer(cases):
    tasks, _ = make_tasks(load_records("cases.json"), (1,), 8, None)
    again, undone = (next(t for t in tasks if t.name == name) for name in ("again", "again-undone"))
    (block,), (gone,) = again.blocks, undone.blocks
    half = len(block.edits) // 2
    for old, new in zip(block.edits[:half], block.edits[half:], strict=True):
        assert (old.text, old.image) == (new.text, new.image)
        assert new.answer not in (old.answer, "blue")
    assert list(gone.undone) == list(block.edits[half:]) and list(gone.edits) == block.edits[:half]


def test_several_edits_of_one_picture_mean_the_same_before_and_after():
    for seed in range(40):
        rng = random.Random(seed)
        scene = sample_scene(rng, max_entities=4)
        while len(scene.entities) < 4:
            scene = sample_scene(rng, max_entities=4)
        made = several(scene, 8, rng)
        if not made:  # no value was free
            continue
        assert len(made) == 8 and len({m["rephrase"] for m in made}) == 8
        for m in made:
            assert m["alt"] != m["pred"] and m["fg_gen_a"] and m["fg_loc_a"]
            assert m["fg_gen_a"] in (m["alt"], "yes", "no")
        # A thing whose every value is edited can still be named by its place.
        assert all(any(n[0] == "place" for n in names(scene, e)) for e in scene.entities)
    assert several(replace(scene, entities=scene.entities[:2]), 6, rng) == []


def test_scenes_are_drawn_further_none_of_them_a_test_picture(tmp_path):
    write_scenes(tmp_path / "set", n_train=2, n_test=6, seed=7)
    records = load_records(str(tmp_path / "set/test.json"), images=tmp_path / "set/images")
    told: list[str] = []
    tasks, _ = make_tasks(records, (12,), 4, tmp_path / "out", told.append)
    task = next(t for t in tasks if t.name == "12")
    files = [e.image for e in task.blocks[0].edits]
    assert len(files) == 12 and all(f.is_file() for f in files) and len(told) == 2
    drawn = {f.name for f in files if "out/further/" in f.as_posix()}
    raw, pictures = first_edition.make_records("test", 29, 9)
    known = {s.key for s in first_edition.scenes_of("test", 6, 7)}
    scenes = [pictures[r["image"]][0] for r in raw if r["image"].rpartition("/")[2] in drawn]
    assert len(scenes) == 6 and all(len(s.entities) > 2 and s.key not in known for s in scenes)
    assert {t.edits for t in tasks if t.table == "one picture"} == {2, 4, 8}
    again, _ = make_tasks(records, (12,), 4, tmp_path / "out")
    assert again == tasks


# Editors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [FTLLM, FTVisual])
def test_edits_in_sequence_are_those_of_the_model_that_each_finds(method, tmp_path):
    backbone = build_tiny("llava")
    edits = []
    for i, record in enumerate(tiny_records(3)):
        record.edit.image.save(tmp_path / f"{i}.png")  # a file's embeddings are cached
        edits.append(replace(record.edit, image=tmp_path / f"{i}.png"))
    config = FTConfig(num_steps=3, edit_lr=0.01, weight_decay=0.1)
    learner, editor = method(backbone, config), InSequence(method(backbone, config))
    weights = {n: m.weight.detach().clone() for n, m in learner.modules.items()}
    before = editor.generate(edits)
    embedded = backbone.image_features([edit.image for edit in edits])
    ids = editor.add(edits[:2])
    whole = {name: change.weight for name, change in editor.total.items()}
    assert whole.keys() == weights.keys()
    assert all(torch.equal(m.weight, weights[n]) for n, m in learner.modules.items())
    assert torch.equal(backbone.image_features([edit.image for edit in edits]), embedded)
    for edit in edits[:2]:  # by hand: the model itself
        (change,) = learner.learn([edit])
        for name, module in learner.modules.items():
            module.weight.data += change[name].weight
        backbone.clear_cache()
    by_hand = {n: m.weight.detach() - weights[n] for n, m in learner.modules.items()}
    told = [a.text for a in Unedited(backbone).generate(edits)]
    for name, module in learner.modules.items():
        module.weight.data.copy_(weights[name])
    backbone.clear_cache()
    alone = [learner.learn([edit])[0] for edit in edits[:2]]
    for name in weights:
        assert torch.allclose(whole[name], by_hand[name], atol=1e-5)
        assert not torch.allclose(whole[name], sum(c[name].weight for c in alone), atol=1e-5)
    assert [a.text for a in editor.generate(edits)] == told
    later = editor.add(edits[2:])
    with pytest.raises(ConfigError, match="from the last one on"):
        editor.remove(ids)
    editor.remove(later)
    assert all(torch.equal(editor.total[n].weight, whole[n]) for n in whole)
    editor.clear()
    assert not editor.total and editor.generate(edits) == before


def test_blocks_side_by_side_answer_as_each_alone():
    editor = tiny_mscke(threshold=0.0)
    records = tiny_records(6)
    blocks = [Block([r.edit for r in records[i : i + 2]]) for i in (0, 2, 4)]
    asked = [q for r in records for q in (r.edit, *r.in_scope, *r.out_scope)]
    for i, block in enumerate(blocks):
        with standing(editor, blocks) as together, together.edited(block.edits) as ids:
            side = Protocol().ask(together, asked, [frozenset(ids[:1])] * len(asked))
            own = {edit_id: edit for edit_id, edit in editor.edits.items()}
        with standing(editor, [block]) as alone, alone.edited(block.edits) as ids:
            found = Protocol().ask(alone, asked, [frozenset(ids[:1])] * len(asked))
            mine = {edit_id: edit for edit_id, edit in editor.edits.items()}
        assert [(a.text, own[a.route]) for a in side] == [(a.text, mine[a.route]) for a in found], i
    assert not editor.edits


def test_what_is_undone_is_gone_and_an_error_leaves_no_edit():
    editor = tiny_mscke()
    first, second = (r.edit for r in tiny_records(2))
    with standing(editor, [Block([first], undone=[second])]):
        assert list(editor.edits.values()) == [first]
    with pytest.raises(RuntimeError), standing(editor, [Block([first])]):
        raise RuntimeError
    assert not editor.edits
    with (
        pytest.raises(ConfigError, match="cannot hide"),
        standing(InSequence(FTLLM(editor.backbone)), [Block([first]), Block([second])]),
    ):
        pass


# The experiment -------------------------------------------------------------------------------


def test_every_cell_is_a_row_with_its_edits_and_metrics(cases, capsys):
    settings = asked(methods=["unedited", "notebook", "one_by_one", "broken"])
    lifelong.run(settings)
    for method in ("notebook", "one-by-one"):
        for edits in (1, 4, 10):
            (row,) = rows_of(settings, method=method, edits=edits, table="lifelong")
            assert row["backbone"] and row["n"] == 4 and row["versions"]["torch"]
            assert row["seed"] == 0 and row["dtype"] == "float32" and row["hardware"]
            metrics = row["metrics"]
            assert metrics["reliability"] == metrics["locality"] == 100.0
            assert metrics["specificity_hard_in"] == metrics["redrawn"] == 0.0
            assert metrics["specificity_hard_out"] == metrics["other_picture"] == 100.0
            assert metrics.get("retention_first") == (100.0 if edits == 10 else None)
    (newest,) = rows_of(settings, method="notebook", task="again")
    (undone,) = rows_of(settings, method="notebook", task="again-undone")
    assert newest["metrics"]["reliability"] == undone["metrics"]["reliability"] == 100.0
    assert newest["edits"] == 2 * undone["edits"] > 0
    (base,) = rows_of(settings, method="unedited", task="again")
    assert base["metrics"]["reliability"] == 0.0
    text = (settings.out / "table.md").read_text()
    assert "does not fit this | backbone" in text and "10 edits in force" in text
    opened = RunFolder.read(settings.out)
    assert not opened.notes and len(opened.rows()) == len(rows_of(settings))
    made = figures.lifelong([json.loads((settings.out / "summary.json").read_text())])
    table = TABLES["lifelong-reliability"].markdown(made).splitlines()
    assert "| 1 | 4 | 10 |" in table[0] and "| notebook |" in table[-2]
    assert "and these taken back" in TABLES["lifelong-again"].markdown(made)
    capsys.readouterr()


def test_a_stopped_run_goes_on_where_it_was(cases, capsys):
    settings = asked(methods=["one_by_one"], edits=[1])
    OneByOne.stops_after = 2
    with pytest.raises(KeyboardInterrupt):
        lifelong.run(settings)
    kept = (settings.out / "cases.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 4
    OneByOne.stops_after = None
    lifelong.run(settings)
    lines = (settings.out / "cases.jsonl").read_text().splitlines()
    assert lines[: len(kept)] == kept
    assert len({(line["case"], line["dataset"]) for line in map(json.loads, lines)}) == len(lines)
    loaded = len(cases)
    lifelong.run(settings)  # all is there
    assert len(cases) == loaded
    capsys.readouterr()


def test_rows_are_the_registered_methods_and_dualedit_has_its_gates():
    rows = lifelong.entrants([])
    assert [r.name for r in rows][:2] == ["unedited", "ft-llm"]
    assert {"dualedit/prompt-end", "dualedit/learned"} <= {r.name for r in rows}
    most = {r.method: r.most for r in rows}
    assert most["mscke"] == most["dualedit"] == 10_000 and most["mend"] == most["ft-llm"] == 1_000


def test_other_experiments_take_no_rows(run):
    code, _, err = run("reproduce", "mscke-table1", "--method", "mscke")
    assert code == 2 and "takes no --method" in err
    code, _, err = run("reproduce", "lifelong", "--method", "mskce")
    assert code == 2 and "did you mean mscke" in err
