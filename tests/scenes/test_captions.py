"""Caption edits of scenes: the scenes are the records', one word of the caption is another."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
from easyedit_mm_plugins.evaluation.runner import run_grid
from easyedit_mm_plugins.methods import factory
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.captions import PROMPTS, caption_records
from easyedit_mm_plugins.scenes.records import make_records, scenes_of, write_scenes
from easyedit_mm_plugins.scenes.tokenizer import build_tokenizer

from ..conftest import build_tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 12, 6)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_caption_edit_changes_one_word_of_its_scenes_caption(files, split):
    path = files.train if split == "train" else files.test
    plain = FGVEditDataset(path, image_root=files.images).records
    made = caption_records(plain, split)
    _, images = make_records(split, len(plain))
    for record, before, scene in zip(made, plain, scenes_of(split, len(plain)), strict=True):
        name = str(record.edit.image).split("images/")[1]
        assert images[name][0] == scene  # what is drawn is what is described
        old, new = language.caption(scene).split(), record.edit.answer.split()
        assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
        assert record.edit.text == "a photo of" and record.rephrase[0].answer == record.edit.answer
        assert record.rephrase[0].text in PROMPTS[split == "test"]
        assert record.image_rephrase[0].image == before.image_rephrase[0].image
        assert (record.text_loc, record.image_loc) == (before.text_loc, before.image_loc)
        assert not record.in_scope and not record.out_scope
    assert caption_records(plain, split) == made


def test_the_small_models_know_all_words():
    tokenizer = build_tokenizer()
    for prompt in (*PROMPTS[0], *PROMPTS[1]):
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids


def test_captions_take_the_editor_that_is_shipped_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(factory, "ASSETS", tmp_path)
    for name in ("dualedit-scenes-llava", "dualedit-scenes-llava-captions", "serac-scenes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")

    def found(method: str, backbone: str, task: str | None) -> str | None:
        folder = factory.shipped_editor(method, backbone, task)
        return folder.name if folder else None

    assert found("dualedit", "scenes-llava", None) == "dualedit-scenes-llava"
    assert found("dualedit", "scenes-llava", "captions") == "dualedit-scenes-llava-captions"
    assert found("serac", "scenes-llava", "captions") == "serac-scenes"
    assert found("dualedit", "scenes-blip2", "captions") is None


def test_a_grid_asks_for_an_editor_of_each_task(files, tmp_path, monkeypatch):
    monkeypatch.setattr("easyedit_mm_plugins.scenes.records.ensure_scenes", lambda *_: files)
    backbone, asked = build_tiny("llava"), []
    backbone.name = "scenes-llava"
    real = MethodSpec.make

    def make(spec, base, task):
        asked.append((spec.name, task))
        return real(spec, base, task)

    monkeypatch.setattr(MethodSpec, "make", make)
    monkeypatch.setattr(BackboneSpec, "load", lambda self: backbone)
    # The tiny model knows few words of the captions; here it is asked for editors, not for answers.
    monkeypatch.setattr(
        "easyedit_mm_plugins.evaluation.evaluator.check_targets", lambda *_, **__: None
    )
    sets = [DataSpec(name, limit=2) for name in ("scenes-evqa", "scenes-eic", "scenes-fgvedit")]
    run = run_grid(Grid(["unedited"], [BackboneSpec("scenes-llava")], sets), tmp_path / "run")
    assert {row["dataset"] for row in run.rows()} == {"scenes-evqa", "scenes-eic", "scenes-fgvedit"}
    assert asked == [("unedited", None), ("unedited", "captions")]
