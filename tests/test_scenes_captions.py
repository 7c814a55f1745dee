"""Caption edits of scenes: the scenes are the records', one word of the caption is another."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.scenes import language
from easyedit_mm_plugins.scenes.captions import PROMPTS, caption_records
from easyedit_mm_plugins.scenes.records import make_records, scenes_of, write_scenes
from easyedit_mm_plugins.scenes.tokenizer import build_tokenizer


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
