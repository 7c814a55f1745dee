"""``fusion: released`` gives the released class's scope scores; the paper's fusion stays itself."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from easyedit_mm_plugins.core.errors import BackboneError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke import (
    MSCKE,
    CounterfactualConfig,
    MSCKETrainingHyperParams,
    ScopeClassifier,
    ScopeConfig,
    SmallLM,
)

from ...conftest import build_tiny, picture
from ...support.mscke_tiny import TINY_OPT, hparams, tiny_records, tiny_scope
from ...support.release_tiny import Reference, clip_folder

IMAGES = [
    Image.new("RGB", (size, 40), color)
    for size, color in ((40, "navy"), (56, "gold"), (40, "white"), (48, "crimson"))
]
EDITS = [
    Question("what color is the circle?", IMAGES[0], "green"),
    Question("where is the star?", IMAGES[1], "top left"),
    Question("how many triangle?", IMAGES[2], "two"),
    Question("what shape is the blue one?", IMAGES[3], "square"),
]
QUERIES = [
    EDITS[0],
    Question("the circle is what color?", EDITS[0].image),
    Question("what color is the square?", EDITS[0].image),
    Question("what is the capital of france?"),
    Question("where is the star?", EDITS[1].image),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def reference(folder):
    return Reference(folder)


def scope_on(folder, fusion="released", **kwargs):
    torch.manual_seed(3)
    config = ScopeConfig(
        folder, None, fusion, "exp-squared-distance", dim=8, resize="crop", **kwargs
    )
    return ScopeClassifier.from_config(config).eval()


def editor_on(scope):
    backbone = build_tiny("blip2")
    return MSCKE(backbone, scope, SmallLM.from_config(backbone, CounterfactualConfig(lm=TINY_OPT)))


@torch.no_grad()
def rho(scope, edits, queries):
    return scope.similarity(scope.encode_queries(queries), scope.encode_edits(edits))


def test_scores_equal_the_released_ones_at_batch_1(folder, reference):
    editor = editor_on(scope_on(folder))
    with editor.edited(EDITS[:1]):
        found = [hit.score for hit in editor.route(QUERIES)]
    expected = [reference.scores(EDITS[:1], [q])[0, 0].item() for q in QUERIES]
    assert found == pytest.approx(expected, abs=1e-5)
    assert min(expected) < 0.2 and 0.4 < max(expected) < 1  # figures that could differ


def test_with_several_edits_too_each_fused_over_the_memory(folder, reference):
    editor = editor_on(scope_on(folder))
    editor.add(EDITS)
    hits = editor.route(QUERIES)
    for query, hit in zip(QUERIES, hits, strict=True):
        expected = reference.scores(EDITS, [query])[0]
        assert hit.score == pytest.approx(expected.max().item(), abs=1e-5)
        assert hit.id == f"e{int(expected.argmax()) + 1}"
    pair = reference.scores([EDITS[1], EDITS[3]], [QUERIES[4]])[0]
    seen = editor.route(QUERIES[4:], visible=[["e4", "e2"]])[0]
    assert seen.score == pytest.approx(pair.max().item(), abs=1e-5)
    assert editor.route(QUERIES[:1], visible=[[]])[0] == (None, 0.0)
    editor.remove(["e2"])
    rest = [EDITS[0], EDITS[2], EDITS[3]]
    again = editor.route(QUERIES[:1])[0].score
    assert again == pytest.approx(reference.scores(rest, QUERIES[:1]).max().item(), abs=1e-5)


def test_a_batch_changes_released_scores_and_not_ours(folder, reference):
    released, ours = scope_on(folder), scope_on(folder, "dot-attention")
    together, alone = rho(released, EDITS, QUERIES), []
    assert torch.allclose(together, reference.scores(EDITS, QUERIES), atol=1e-5)
    for scope in (released, ours):
        alone.append(torch.cat([rho(scope, EDITS, [q]) for q in QUERIES]))
    assert (together - alone[0]).abs().max() > 0.05
    assert torch.allclose(rho(ours, EDITS, QUERIES), alone[1], atol=1e-5)


def test_an_editors_answer_does_not_depend_on_the_batch_even_so(folder):
    editor = editor_on(scope_on(folder))
    editor.add(EDITS)
    together = editor.route(QUERIES)
    for hit, query in zip(together, QUERIES, strict=True):
        (alone,) = editor.route([query])
        assert hit.id == alone.id and hit.score == pytest.approx(alone.score, abs=1e-6)


def test_an_edits_similarity_with_itself_falls_as_the_released_memory_grows(folder):
    itself = Question(f"{EDITS[0].text} {EDITS[0].answer}", EDITS[0].image)
    own = {}
    for fusion in ("released", "dot-attention"):
        scope = scope_on(folder, fusion)
        scope.fusion.template = "{}"  # so that query and edit read the same text
        own[fusion] = [rho(scope, EDITS[:n], [itself])[0, 0].item() for n in (1, 2, 4)]
    one, two, four = own["released"]
    assert one == pytest.approx(1.0, abs=1e-6) and one > two + 0.02 and two > four + 0.02
    assert own["dot-attention"] == pytest.approx([1.0] * 3, abs=1e-6)


def test_long_features_keep_the_precision(tmp_path):
    """CLIP's own features have lengths of about 10: products of them would round at 1e-5."""
    folder = clip_folder(tmp_path / "long", scale=40.0)
    reference, scope = Reference(folder), scope_on(folder)
    near = Question(EDITS[0].text + " green", EDITS[0].image)
    assert scope.encode_queries([near]).norm() > 10
    scope.fusion.template = "{}"
    edit = scope.encode_edits(EDITS[:1])
    assert scope.similarity(edit, edit).item() == 1.0
    moved = edit + 0.02
    expected = torch.exp(-((moved.double() - edit.double()) ** 2).sum()).item()
    with torch.no_grad():
        assert scope.similarity(moved, edit).item() == pytest.approx(expected, abs=1e-5)
    assert reference.scores(EDITS[:1], EDITS[1:2]).item() < 0.01


def test_hugging_face_clip_gives_its_own_features_and_survives_a_round_trip(folder, tmp_path):
    scope = scope_on(folder)
    reference = Reference(folder)
    image, text = picture(5, 50), "what color is the circle?"
    expected_text, expected_image = reference.features([text], [image])
    encoder = scope.encoder
    with torch.no_grad():
        pooled, tokens, mask = encoder.text(encoder.tokens([text, "red"]))
        seen = encoder.pooled(encoder.pixels(image)[None])
        regions = encoder.regions(encoder.pixels(image)[None])
    assert torch.allclose(pooled[:1], expected_text, atol=1e-6)
    assert torch.allclose(seen[:, 0], expected_image, atol=1e-6)
    assert regions.shape == (1, 16, 12) and tokens.shape == (2, 8, 12)
    assert mask.sum(-1).tolist() == [8, 3]
    for fusion in ("released", "released-cross", "released-concat", "dot-attention"):
        made = scope_on(folder, fusion)
        made.save_pretrained(tmp_path / fusion, half=False)
        loaded = ScopeClassifier.from_pretrained(tmp_path / fusion)
        assert torch.allclose(rho(loaded, EDITS, QUERIES), rho(made, EDITS, QUERIES), atol=1e-6)
        assert loaded.fingerprint() == made.fingerprint()
    named = scope_on(f"hf:{folder}", "dot-attention")
    assert torch.allclose(rho(named, EDITS, QUERIES), rho(made, EDITS, QUERIES), atol=1e-6)


def test_released_fusions_also_read_open_clip():
    scope = tiny_scope("released")
    with torch.no_grad():
        pooled = scope.encoder.pooled(scope.encoder.pixels(IMAGES[0])[None])[:, 0]
        stored = scope.encode_queries(QUERIES[:1])
    assert torch.allclose(stored[:, 12:], pooled, atol=1e-6)


def test_concat_is_what_dot_gives_alone_and_cross_mixes_by_its_maps(folder):
    dot, concat, cross = (scope_on(folder, f"released{n}") for n in ("", "-concat", "-cross"))
    alone = rho(dot, EDITS[:1], QUERIES[:1])
    assert torch.allclose(rho(concat, EDITS[:1], QUERIES[:1]), alone, atol=1e-6)
    rows = cross.encode_queries(QUERIES).detach()
    text, image = (
        cross.fusion.text_projection(rows[:, :12]),
        cross.fusion.image_projection(rows[:, 12:]),
    )
    seen = torch.softmax(text @ image.T, 1) @ image
    expected = cross.fusion.output_projection(torch.cat([text, seen], 1))
    assert torch.allclose(cross.fusion.mix(rows), expected, atol=1e-6)


def test_a_prompt_longer_than_clips_context_is_cut_where_the_release_stops(folder, reference):
    long = Question("what color is the circle " * 9, EDITS[0].image)
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        reference.scores(EDITS[:1], [long])
    assert 0 < rho(scope_on(folder), EDITS[:1], [long]).item() < 1


def test_released_fusion_trains_at_batch_1(folder):
    from easyedit_mm_plugins.methods.mscke.losses import draw, scope_losses

    scope = scope_on(folder)
    losses, _ = scope_losses(scope, draw(tiny_records(1), 1))
    sum(losses.values()).backward()
    assert scope.encoder.clip.text_projection.weight.grad.abs().sum() > 0


def test_a_folder_that_is_no_clip_is_named(tmp_path):
    with pytest.raises(BackboneError, match="nowhere"):
        scope_on(f"hf:{tmp_path}/nowhere")


def test_text_alone_cannot_have_batch_negatives():
    with pytest.raises(ConfigError, match="batch_negatives"):
        hparams(scope={"fusion": "text"})
    made = hparams(scope={"fusion": "text"}, batch_negatives=0.0)
    assert isinstance(made, MSCKETrainingHyperParams)
