"""The scope classifier: MSCKE eq. 4-8."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from easyedit_mm_plugins.backbones.image_cache import in_bytes
from easyedit_mm_plugins.core.errors import (
    BackboneError,
    CheckpointError,
    ConfigError,
    DataError,
    UnknownNameError,
)
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke import (
    FUSIONS,
    SIMILARITIES,
    ScopeClassifier,
    ScopeConfig,
)
from easyedit_mm_plugins.methods.mscke.classifier import edit_text
from easyedit_mm_plugins.methods.mscke.encoder import ClipEncoder, load_encoder

from ...conftest import picture
from ...support.mscke_tiny import tiny_encoder, tiny_scope

TEXTS = [
    "what color is the circle?",
    "where is the star?",
    "capital of france",
    "is the square red",
]
FUSION_NAMES = ("dot-attention", "cross-attention", "concat", "text")


@pytest.mark.parametrize("fusion", FUSION_NAMES)
@pytest.mark.parametrize("heads", [1, 2])
def test_a_rows_feature_does_not_depend_on_its_batch(fusion, heads):
    scope = tiny_scope(fusion, heads=heads)
    images = [picture(1), None, picture(2), None]
    with torch.no_grad():
        together = scope.encode(TEXTS, images)
        alone = torch.cat([scope.encode([t], [i]) for t, i in zip(TEXTS, images, strict=True)])
    assert together.shape == (4, 8)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSION_NAMES)
def test_the_image_counts_for_every_fusion_but_text(fusion):
    scope = tiny_scope(fusion)
    with torch.no_grad():
        z = scope.encode(TEXTS[:1] * 3, [picture(1), picture(2), None])
    same = torch.allclose(z[0], z[1], atol=1e-4) or torch.allclose(z[0], z[2], atol=1e-4)
    assert same == (fusion == "text")


def test_dot_attention_is_the_scaled_dot_product_over_regions_eq_6():
    scope = tiny_scope("dot-attention")
    with torch.no_grad():
        text, _, _ = scope.encoder.text(scope.encoder.tokens(TEXTS[:1]))
        regions, mask = scope.regions([picture(1)])
        weights = scope.fusion.attention(text, regions, mask)[0, 0]
        expected = torch.tensor(
            [float(text[0] @ region) / 12**0.5 for region in regions[0]]
        ).softmax(0)
        assert regions.shape == (1, 16, 12)
        assert torch.allclose(weights, expected, atol=1e-6)
        seen = sum(w * r for w, r in zip(weights, regions[0], strict=True))
        z = scope.fusion.head(torch.cat([seen, text[0]])[None])
        assert torch.allclose(z, scope.encode(TEXTS[:1], [picture(1)]), atol=1e-5)


def test_a_query_without_image_sees_the_null_token_alone():
    scope = tiny_scope()
    regions, mask = scope.regions([None, picture(1)])
    assert mask.sum(-1).tolist() == [1, 16]
    assert torch.equal(regions[0, 0], scope.null)
    assert not regions[0, 1:].any()
    z = scope.encode(TEXTS[:1], [None])
    z.sum().backward()
    assert scope.null.grad.abs().sum() > 0  # it is learned


def test_each_distinct_image_is_encoded_once(monkeypatch):
    scope, seen = tiny_scope(), []
    original = scope.encoder.regions
    monkeypatch.setattr(
        scope.encoder, "regions", lambda pixels: seen.append(len(pixels)) or original(pixels)
    )
    one, two = picture(1), picture(2)
    scope.encode(TEXTS, [one, two, one, one])
    assert seen == [2]


def test_an_edit_is_read_with_its_answer_and_a_query_without_eq_4_5():
    scope = tiny_scope()
    edit = Question(TEXTS[0], picture(1), "green")
    assert edit_text(edit) == "what color is the circle? green"
    with torch.no_grad():
        expected = scope.encode([edit_text(edit)], [edit.image])
        assert torch.equal(scope.encode_edits([edit]), expected)
        assert torch.equal(scope.encode_queries([edit]), scope.encode([edit.text], [edit.image]))


def test_exp_squared_distance_eq_8():
    compare = SIMILARITIES.get("exp-squared-distance")()
    a, b = torch.randn(3, 5) * 0.4, torch.randn(4, 5) * 0.4
    log_rho, log_not = compare(a, b)
    expected = torch.exp(-((a[:, None] - b[None]) ** 2).sum(-1))
    assert torch.allclose(log_rho.exp(), expected, atol=1e-5)
    assert torch.allclose(log_not.exp(), 1 - expected, atol=1e-5)


def test_cosine_eq_8():
    compare = SIMILARITIES.get("cosine")()
    a, b = torch.randn(3, 5), torch.randn(4, 5)
    log_rho, log_not = compare(a, b)
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    assert torch.allclose(log_rho.exp(), torch.sigmoid(10 * cosine - 7), atol=1e-5)
    assert torch.allclose(log_rho.exp() + log_not.exp(), torch.ones(3, 4), atol=1e-5)


@pytest.mark.parametrize("name", ["exp-squared-distance", "cosine"])
def test_similarity_lies_in_0_1_and_is_best_with_itself(name):
    scope = tiny_scope(similarity=name)
    z = torch.randn(6, 8)
    with torch.no_grad():
        rho = scope.similarity(z, z)
    assert ((rho >= 0) & (rho <= 1)).all()
    assert torch.equal(rho.argmax(-1), torch.arange(6))
    loss = -scope.log_similarity(z.requires_grad_(), z)[1].sum()  # all pairs are negatives
    loss.backward()
    assert torch.isfinite(z.grad).all()


def test_a_long_prompt_is_cut_with_one_warning(caplog):
    encoder = tiny_encoder(context=10)
    with caplog.at_level(logging.WARNING):
        ids = encoder.tokens(["what color is the circle " * 20, "red " * 30])
    assert ids.shape == (2, 10)
    assert ids[:, 0].tolist() == [1, 1] and ids[:, -1].tolist() == [2, 2]
    assert [r.message for r in caplog.records].__len__() == 1
    assert "cut to the 8" in caplog.text


def test_padding_and_token_masks():
    encoder = tiny_encoder()
    ids = encoder.tokens(["red", "what color is the circle?"])
    assert ids.tolist()[0][:4] == [1, ids[0, 1].item(), 2, 0]
    pooled, tokens, mask = encoder.text(ids)
    assert mask.sum(-1).tolist() == [3, 8]
    assert torch.equal(pooled[0], tokens[0, 2])
    assert torch.allclose(encoder.clip.encode_text(_full(ids)), pooled, atol=1e-5)


def _full(ids):
    return torch.cat([ids, ids.new_zeros(len(ids), 16 - ids.shape[1])], 1)


def test_squash_shows_the_whole_picture_and_crop_its_centre():
    encoder = tiny_encoder()
    wide = torch.zeros(3, 32, 96)
    wide[:, :, :20] = 1.0  # a bright border
    assert encoder.pixels(wide).max() > 1
    encoder.resize = "crop"
    assert encoder.pixels(wide).max() < 0


def test_saved_and_loaded_without_any_download(tmp_path):
    scope = tiny_scope("cross-attention", "exp-squared-distance")
    scope.save_pretrained(tmp_path, half=False)
    again = ScopeClassifier.from_pretrained(tmp_path)
    with torch.no_grad():
        z = scope.encode(TEXTS[:2], [picture(1), None])
        assert torch.equal(z, again.encode(TEXTS[:2], [picture(1), None]))
    assert again.fingerprint() == scope.fingerprint()
    assert again.config == scope.config


@pytest.mark.parametrize("damage", ["cut", "gone", "config", "other"])
def test_a_damaged_classifier_is_a_clear_error(tmp_path, damage):
    tiny_scope().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:200])
    elif damage == "gone":
        weights.unlink()
    elif damage == "config":
        config.write_text(config.read_text()[:100])
    else:
        config.write_text(config.read_text().replace('"dim": 8', '"dim": 9'))
    with pytest.raises(CheckpointError, match=r"safetensors|config\.json"):
        ScopeClassifier.from_pretrained(tmp_path)


def test_wrong_names_are_met_with_the_nearest():
    with pytest.raises(UnknownNameError, match="dot-attention"):
        tiny_scope("dot-atention")
    with pytest.raises(UnknownNameError, match="cosine"):
        tiny_scope(similarity="cosin")
    with pytest.raises(ConfigError, match="ViT-B-32"):
        load_encoder("ViT-B-33", None)


def test_a_fusion_of_ones_own_can_be_registered():
    class Mine(torch.nn.Module):
        def __init__(self, width, dim, heads):
            super().__init__()
            self.dim = dim

        def forward(self, text, tokens, token_mask, regions, region_mask):
            return text[:, : self.dim]

    FUSIONS.register("mine", Mine)
    try:
        assert tiny_scope("mine").encode(TEXTS, [None] * 4).shape == (4, 8)
    finally:
        FUSIONS.unregister("mine")


def test_only_a_plain_clip_with_a_vision_transformer_will_do():
    encoder = tiny_encoder()
    with pytest.raises(BackboneError, match="plain ViT"):
        ClipEncoder(encoder.clip.visual, {}, encoder.tokenizer)


def test_a_real_open_clip_architecture_by_name():
    encoder = load_encoder("ViT-S-32-alt", None)  # the smallest; weights random
    scope = ScopeClassifier(encoder, ScopeConfig("ViT-S-32-alt", None, dim=8)).eval()
    with torch.no_grad():
        assert scope.encode(["a long one " * 60, "short"], [picture(1), None]).shape == (2, 8)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.png"):
        tiny_scope().encode(TEXTS[:1], [tmp_path / "nowhere.png"])


def test_a_picture_on_disk_is_encoded_once_until_it_or_the_weights_change(tmp_path, monkeypatch):
    scope, asked = tiny_scope(), []
    encode = scope.encoder.regions
    monkeypatch.setattr(scope.encoder, "regions", lambda x: asked.append(len(x)) or encode(x))
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for i, path in enumerate(paths):
        picture(i).save(path)
    with torch.no_grad():
        first = scope.encode(TEXTS[:3], [paths[0], None, paths[1]])
        again = scope.encode(TEXTS[:3], [str(paths[0]), None, paths[1]])
        assert asked == [2] and torch.allclose(first, again, atol=1e-6)
        scope.encode(TEXTS[:2], [paths[1], picture(5)])
        assert asked == [2, 1]  # a picture that is no file is always encoded
        picture(7).save(paths[0])
        changed = scope.encode(TEXTS[:1], [paths[0]])
        expected = scope.encode(TEXTS[:1], [picture(7)])
        assert asked == [2, 1, 1, 1] and torch.allclose(changed, expected, atol=1e-6)
        scope.load_state_dict({k: v + 0.1 for k, v in scope.state_dict().items()})
        assert not torch.allclose(scope.encode(TEXTS[:1], [paths[1]]), again[2:], atol=1e-3)
    kept = len(asked)
    scope.encode(TEXTS[:1], [paths[1]]).sum().backward()  # with gradients nothing is kept
    assert len(asked) == kept + 1 and scope.encoder.clip.visual.proj.grad is not None


def test_pictures_that_no_longer_fit_are_forgotten(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    seen, asked = in_bytes(2 * 3 * 4), []  # two rows of three floats

    def encode(images):
        asked.extend(int(Path(i).stem) for i in images)
        return torch.tensor([[float(Path(i).stem)] * 3 for i in images])

    for group in ([0, 1], [0], [2], [1], [3, 0]):
        rows = seen.through([paths[i] for i in group], encode)
        assert rows[:, 0].tolist() == group and len(seen) <= 2
    assert asked == [0, 1, 2, 1, 3, 0]
    with pytest.raises(DataError, match=r"nowhere\.png"):
        seen.through([tmp_path / "nowhere.png"], encode)
