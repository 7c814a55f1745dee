"""Backbones: our splicing equals the models' own forward, and batches equal loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.backbones import Row, assemble, load_backbone
from easyedit_mm_plugins.backbones.splice import generate_ids, hidden_states
from easyedit_mm_plugins.core.errors import BackboneError, DataError, UnknownNameError
from easyedit_mm_plugins.data import Question

from ..conftest import WORDS, build_tiny, picture

QUESTIONS = [
    Question("what color is the circle?", picture(1), "red"),
    Question("where is the star?", picture(2), "top left"),
    Question("nq question: what is the capital of france?", None, "paris"),
    Question("is the square green?", picture(1), "no"),
]


def test_splicing_equals_the_models_own_forward(backbone):
    """input_ids with image tokens and pixel_values, as transformers runs it, give our logits."""
    question = QUESTIONS[1]
    image_token = backbone.tokenizer.convert_tokens_to_ids("<image>")
    segments = backbone.rows([question], with_answers=True)[0]
    ids = []
    for segment in (*segments.segments, segments.answer):
        ids += segment if isinstance(segment, list) else [image_token] * len(segment)
    ids = torch.tensor([ids])
    with torch.no_grad():
        theirs = backbone.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=backbone.pixels([question.image]),
        ).logits[0]
        ours = backbone.answer_logits([question])[0]
    n = len(segments.answer)
    torch.testing.assert_close(ours, theirs[-n - 1 : -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_equals_loop_on_either_padding_side(backbone, side):
    batch = backbone.batch(QUESTIONS, with_answers=True, padding_side=side)
    with torch.no_grad():
        hidden = hidden_states(backbone.language_model, batch)
        for i, question in enumerate(QUESTIONS):
            alone = backbone.batch([question], with_answers=True)
            expected = hidden_states(backbone.language_model, alone)[0]
            got = hidden[i][batch.attention_mask[i].bool()]
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
            assert batch.image_mask[i].sum() == alone.image_mask[0].sum()


def test_answers_in_a_batch_equal_answers_alone(backbone):
    together = backbone.generate(QUESTIONS)
    assert together == [backbone.generate([q])[0] for q in QUESTIONS]
    assert len(set(together)) > 1  # else the comparison would say nothing


def test_own_greedy_loop_equals_transformers_generate(backbone):
    batch = backbone.batch(QUESTIONS)
    lm = backbone.language_model
    theirs = generate_ids(lm, batch, eos_token_id=2, pad_token_id=0)

    class Plain:  # the same model without a generate method
        base_model_prefix = lm.base_model_prefix
        get_output_embeddings = lm.get_output_embeddings
        get_input_embeddings = lm.get_input_embeddings

    setattr(Plain, lm.base_model_prefix, getattr(lm, lm.base_model_prefix))
    assert generate_ids(Plain(), batch, eos_token_id=2, pad_token_id=0) == theirs


def test_teacher_forced_top1_of_a_generated_answer_is_that_answer(backbone):
    """Teacher forcing and generation agree where they must: on the model's own greedy answer."""
    checked = 0
    for question in QUESTIONS:
        ids = backbone.generate_ids(backbone.batch([question]), max_new_tokens=3)[0]
        text = backbone.decode([ids])[0]
        if not text or backbone.answer_ids(text) != ids:
            continue  # special tokens are not in the text
        logits = backbone.answer_logits([question.with_answer(text)])[0]
        assert logits.argmax(-1).tolist() == ids
        checked += 1
    assert checked


def test_prompt_end_is_the_last_prompt_token(backbone):
    for side in ("left", "right"):
        batch = backbone.batch(QUESTIONS, with_answers=True, padding_side=side)
        for i, answer in enumerate(batch.answers):
            positions = batch.answer_mask[i].nonzero().flatten().tolist()
            end = int(batch.prompt_end[i])
            assert positions == list(range(end + 1, end + 1 + len(answer)))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), side=st.sampled_from(["left", "right"]))
def test_assemble_keeps_every_row_whole(data, side):
    torch.manual_seed(0)
    embed = torch.nn.Embedding(50, 3)
    ids = st.lists(st.integers(0, 49), min_size=1, max_size=4)
    lengths = data.draw(st.lists(st.tuples(ids, st.integers(0, 3), ids), min_size=1, max_size=5))
    rows = [Row([a, torch.randn(v, 3)] if v else [a], b) for a, v, b in lengths]
    batch = assemble(rows, embed, padding_side=side)
    for i, row in enumerate(rows):
        real = batch.attention_mask[i].bool()
        parts = [embed(torch.tensor(s)) if isinstance(s, list) else s for s in row.segments]
        expected = torch.cat([*parts, embed(torch.tensor(row.answer))])
        assert torch.equal(batch.inputs_embeds[i][real], expected)
        assert batch.position_ids[i][real].tolist() == list(range(len(expected)))
        assert batch.answer_mask[i].sum() == len(row.answer)


def test_image_is_encoded_once(backbone, pictures, monkeypatch):
    calls = []
    encode = backbone.encode_pixels
    monkeypatch.setattr(
        backbone, "encode_pixels", lambda p: calls.append(len(p)) or encode(p), raising=True
    )
    backbone.generate([Question("what is the color?", pictures[0])] * 3)
    backbone.generate([Question("where is the star?", p) for p in pictures[:2]])
    assert calls == [1, 1]
    pictures[0].write_bytes(pictures[2].read_bytes())  # another file under the same name
    backbone.generate([Question("where is the star?", pictures[0])])
    assert sum(calls) == 3


def test_round_trip_through_a_folder(backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    backbone.image_processor.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    assert loaded.generate(QUESTIONS) == backbone.generate(QUESTIONS)
    assert loaded.fingerprint() == backbone.fingerprint()
    assert len(loaded.layers) == 2


def test_fingerprints_differ_between_families():
    assert build_tiny("blip2").fingerprint() != build_tiny("llava").fingerprint()


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("scene-blip2", UnknownNameError, "scenes-blip2"),
        ("nowhere-at-all", UnknownNameError, "known"),
    ],
)
def test_unknown_names_say_what_is_near(name, error, says):
    with pytest.raises(error, match=says):
        load_backbone(name)


def test_bad_folders_and_prompts_are_named(tmp_path, backbone):
    with pytest.raises(BackboneError, match="not a model folder"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackboneError, match="bert"):
        load_backbone(tmp_path)
    with pytest.raises(DataError, match="question is empty"):
        backbone.generate([Question(" ", picture(0))])
    with pytest.raises(DataError, match="answer is empty"):
        backbone.answer_logits([Question("what?", picture(0), " ")])
    with pytest.raises(DataError, match="positions"):
        backbone.generate([Question(" ".join(WORDS * 5), picture(0))])
    with pytest.raises(DataError, match=r"missing\.png"):
        backbone.generate([Question("what?", tmp_path / "missing.png")])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_and_generates(backbone, dtype):
    before = [row.clone() for row in backbone.answer_logits(QUESTIONS)]
    backbone.model.to(dtype)
    backbone.clear_cache()
    after = backbone.answer_logits(QUESTIONS)
    assert all(row.dtype == dtype for row in after)
    for full, half in zip(before, after, strict=True):
        assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    assert len(backbone.generate(QUESTIONS, max_new_tokens=2)) == len(QUESTIONS)
