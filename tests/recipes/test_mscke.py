"""The embedded editors: how they are trained, and what is shipped."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins import FGVEditDataset, load_backbone, load_editor
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.mscke import (
    MSCKE,
    CounterfactualConfig,
    MSCKETrainer,
    SmallLM,
)
from easyedit_mm_plugins.methods.mscke.encoder import load_encoder
from easyedit_mm_plugins.recipes import job as jobs
from easyedit_mm_plugins.recipes import mscke as recipe
from easyedit_mm_plugins.recipes.scenes_clip import draw_pictures, new_encoder, pretrain
from easyedit_mm_plugins.scenes.records import write_scenes
from easyedit_mm_plugins.scenes.second.tokenizer import vocabulary as second_vocabulary
from easyedit_mm_plugins.scenes.tokenizer import vocabulary

from ..conftest import build_tiny
from ..support.mscke_tiny import TINY_OPT

NAMES = ("scenes-blip2", "scenes-llava", "scenes-minigpt4")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), n_train=8, n_test=24, seed=5)


def test_pictures_know_which_patch_shows_what():
    for picture in draw_pictures(5, seed=3):
        assert picture.scene.split == "train"
        assert picture.owner.shape == (64,) and picture.pixels.shape == (3, 64, 64)
        for i, entity in enumerate(picture.scene.entities):
            rows, columns = torch.where(picture.owner.view(8, 8) == i)
            assert len(rows) > 0
            assert (rows.float().mean() > 3.5) == ("bottom" in entity.place)
            assert (columns.float().mean() > 3.5) == ("right" in entity.place)


def test_the_whole_training_in_miniature_and_again_for_nothing(tmp_path, files, monkeypatch):
    clip = tmp_path / "scenes-clip"
    pretrain(clip, pictures=6, vision_steps=2, text_steps=2, batch_size=4)
    names = ("scenes-llava", "scenes-blip2")
    first, second = (build_tiny(name.removeprefix("scenes-")) for name in names)
    first.name, second.name = names
    records = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    monkeypatch.setattr(jobs, "split_records", lambda *_, **__: (records[:6], records[6:]))
    monkeypatch.setattr(recipe, "MORE", 4)
    job = jobs.Job(tmp_path, names=names, steps=2)
    for _ in range(2):
        folder = recipe.train("mscke", first, job)
        monkeypatch.setattr(MSCKETrainer, "run", None)  # a second time is free
    runs = sorted(p.name for p in tmp_path.glob("run-*"))
    assert runs == [f"run-{folder.name}-1", "run-scope", "run-scope-refined"]
    monkeypatch.setattr(MSCKETrainer, "run", lambda self: {})
    begun = recipe.train("mscke", second, job)
    one, two = (MSCKE.from_pretrained(f, b) for f, b in ((folder, first), (begun, second)))
    for (name, a), b in zip(
        one.counterfactual.lm.named_parameters(),
        two.counterfactual.lm.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b), name
    assert one.scope.config.encoder == "scenes-clip"
    assert not (begun / "scope").exists() and two.scope.fingerprint() == one.scope.fingerprint()


def test_a_longer_vocabulary_begins_at_a_shorter_one(tmp_path):
    backbone = build_tiny("blip2")
    words = len(backbone.tokenizer)
    torch.manual_seed(3)
    short, long = (
        SmallLM.from_config(backbone, CounterfactualConfig(lm={**TINY_OPT, "vocab_size": n}))
        for n in (words, words + 3)
    )
    short.save_pretrained(tmp_path / "counterfactual", half=False)
    before = {name: tensor.clone() for name, tensor in long.state_dict().items()}
    recipe.begin_at(long, tmp_path)
    known, now = short.state_dict(), long.state_dict()
    for name, tensor in now.items():
        begun = known[name] if name.startswith("lm.") else before[name]
        assert torch.equal(tensor[: len(begun)], begun), name
        assert torch.equal(tensor[len(begun) :], before[name][len(begun) :]), name
    assert now["lm.model.decoder.embed_tokens.weight"].shape[0] == words + 3


def test_the_shipped_encoder_speaks_the_worlds_language():
    """The first edition's; a new one has the second edition's words, among them all of those."""
    shipped, fresh = load_encoder("scenes-clip", None), new_encoder()
    sizes = [clip.config["text_cfg"].pop("vocab_size") for clip in (shipped, fresh)]
    assert sizes == [len(vocabulary()), len(second_vocabulary())]
    assert shipped.config == fresh.config
    assert set(vocabulary()) <= set(second_vocabulary())


def test_all_that_is_shipped_for_mscke_is_small():
    folders = [ASSETS / "scenes-clip", *(ASSETS / f"mscke-{name}" for name in NAMES)]
    size = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    assert size < 12e6


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_editors_edit(name, files):
    backbone = load_backbone(name)
    editor = load_editor("mscke", backbone)
    records = FGVEditDataset(files.test, image_root=files.images, check="off").records
    asked = {"edit": [], "rephrase": [], "in_scope": [], "out_scope": [], "text_loc": []}
    ids = editor.add([r.edit for r in records])
    questions = [
        (k, r.questions()[k][0], i) for r, i in zip(records, ids, strict=True) for k in asked
    ]
    answers = editor.generate([q for _, q, _ in questions], visible=[[i] for *_, i in questions])
    base = backbone.generate([q for _, q, _ in questions])
    for (kind, question, _), answer, before in zip(questions, answers, base, strict=True):
        expected = before if kind in ("out_scope", "text_loc") else question.answer
        asked[kind].append(answer.text == expected)
    right = {kind: sum(values) / len(values) for kind, values in asked.items()}
    assert right["text_loc"] == 1.0
    assert right["edit"] >= 0.95 and right["rephrase"] >= 0.95
    assert (right["in_scope"] + right["out_scope"]) / 2 >= 0.85


def test_many_edits_in_force_do_not_disturb_text_only_questions(files):
    editor = load_editor("mscke", load_backbone("scenes-blip2"))
    records = FGVEditDataset(files.test, image_root=files.images, check="off").records
    editor.add([r.edit for r in records])
    assert all(a.route is None for a in editor.generate([r.text_loc[0] for r in records]))
