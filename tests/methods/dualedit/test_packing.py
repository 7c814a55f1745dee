"""Questions on one image behind one copy of it: the logits are those of rows apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.backbones.partial import feed_forward_at
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.dualedit import packing
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import draw, edited_logits
from easyedit_mm_plugins.methods.dualedit.packing import can_share, pack

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import tiny_dualedit
from .test_training import tiny_records


@pytest.fixture(params=["llava", "blip2", "minigpt4"])
def backbone(request):
    return build_tiny(request.param)


def shared_records(n: int):
    """Records whose edit and rephrasing are on one image object."""
    made = []
    for i, record in enumerate(tiny_records(n)):
        image = picture(i)
        edit = replace(record.edit, image=image)
        again = Question("in which corner is the star?", image, edit.answer)
        made.append(replace(record, edit=edit, rephrase=(again,)))
    return made


@pytest.mark.parametrize("text_tokens", ["prompt", "all"])
def test_packed_logits_are_those_of_rows_apart(backbone, text_tokens, monkeypatch):
    editor = tiny_dualedit(backbone, text_tokens=text_tokens)
    asked = draw(shared_records(3))
    with torch.no_grad():
        together, _ = edited_logits(editor, FrozenStates(editor, 2**24), asked, gated=False)
        monkeypatch.setattr(packing, "_BLOCK_MASKS", ())
        store = FrozenStates(editor, 2**24)
        groups = store.groups(asked, [a.record for a in asked])
        assert len(set(groups)) == len(asked)
        apart, _ = edited_logits(editor, store, asked, gated=False)
    for mine, theirs in zip(together, apart, strict=True):
        assert torch.allclose(mine, theirs, atol=2e-4)
    assert (together[0][0] - together[1][0]).abs().max() > 1e-3  # not of constants


def test_an_image_is_there_once_and_text_goes_along(backbone):
    editor = tiny_dualedit(backbone)
    assert can_share(backbone.language_model)
    store, asked = FrozenStates(editor, 2**24), draw(shared_records(2))
    rows = store.get(asked)
    packed = pack(rows, store.groups(asked, [a.record for a in asked]))
    kinds = [[asked[i].kind for i, _ in members] for members in packed.order]
    assert kinds[0] == ["edit", "rephrase"] and ["image_loc", "text_loc"] in kinds
    images = int(rows[0].image.sum())
    assert packed.batch.image_mask.sum(1).tolist() == [images] * len(kinds)
    text = packed.batch.attention_mask[0].sum() - images
    assert text < len(rows[0].hidden) + len(rows[1].hidden) - 2 * images + 1


def test_a_decoder_of_unknown_kind_gets_rows_apart(backbone):
    class Other(torch.nn.Module):
        config = backbone.language_model.config

    assert not can_share(Other())


def test_the_last_layer_works_only_where_answers_are_read():
    backbone = build_tiny("llava")
    editor = tiny_dualedit(backbone)
    layer = backbone.decoder.layers[-1]
    seen = []
    handle = layer.mlp.register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    store, asked = FrozenStates(editor, 2**24), draw(shared_records(2))
    whole = layer.mlp
    with torch.no_grad():
        logits, _ = edited_logits(editor, store, asked, gated=False)
    handle.remove()
    answers = sum(len(row) for row in logits)
    assert seen[-1] == (answers, backbone.hidden_size)
    assert layer.mlp is whole


def test_a_layer_without_a_feed_forward_part_of_that_name_is_left_alone():
    layer, needed = torch.nn.Linear(4, 4), torch.ones(1, 2, dtype=torch.bool)
    with feed_forward_at(layer, needed):
        assert not hasattr(layer, "mlp")
