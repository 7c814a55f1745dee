"""Cached decoding equals the uncached full forward; sampling, beams, mixed batches."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.backbones.splice import Batch, generate_ids, hidden_states
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.base import Unedited

from ...support.dualedit_tiny import edit, mixed_questions, tiny_dualedit

STEPS = 5


def _full(editor, batch: Batch, new: torch.Tensor) -> torch.Tensor:
    """Logits [B, n + 1, vocab] at the prompt's end and each of ``new`` [B, n]: no cache."""
    lm = editor.backbone.language_model
    embeds = torch.cat([batch.inputs_embeds, lm.get_input_embeddings()(new)], dim=1)
    mask = torch.cat([batch.attention_mask, torch.ones_like(new)], dim=1)
    whole = Batch(embeds, mask, (mask.cumsum(-1) - 1).clamp(min=0), mask, mask, mask, [])
    with torch.no_grad(), editor._edited(batch, None):
        hidden = hidden_states(lm, whole)
    return lm.get_output_embeddings()(hidden[:, -1 - new.shape[1] :])


@pytest.mark.parametrize("tokens", ["prompt", "all"])
@pytest.mark.parametrize("form", ["paper", "released"])
def test_cached_and_uncached_logits_are_equal(backbone, form, tokens):
    # In float64: the paper's unscaled attention can magnify float32's rounding.
    for module in (backbone.model, backbone.language_model):
        module.double()
    editor = tiny_dualedit(backbone, form=form, text_tokens=tokens)
    editor.adapters.double()
    editor.add([edit(0), edit(1)])
    asked = [edit(0), *mixed_questions()[1:], edit(1)]
    batch = backbone.batch(asked)
    with torch.no_grad(), editor._edited(batch, None) as hits:
        out = backbone.language_model.generate(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
    assert hits[0].id == "e1" and hits[-1].id == "e2" and hits[1].score < 0.9
    cached = torch.stack(out.logits, dim=1).double()  # generate() reports float32
    full = _full(editor, batch, out.sequences[:, :-1])
    assert torch.allclose(cached, full, atol=1e-5)
    base = _full(tiny_dualedit(backbone), batch, out.sequences[:, :-1])
    moved = (cached - base).abs().amax((1, 2))
    assert moved[0] > 0.1 and moved[-1] > 0.1 and (moved[1] < 1e-4).all()


def test_one_token_prompts_are_not_taken_for_a_decoding_step(tiny_backbone):
    editor = tiny_dualedit(tiny_backbone, kind="off")
    editor.add([edit(0)])
    row = tiny_backbone.batch([mixed_questions()[1]])
    last = slice(-1, None)
    batch = Batch(
        row.inputs_embeds[:, last], row.attention_mask[:, last], row.position_ids[:, :1],
        row.image_mask[:, last], row.answer_mask[:, last], torch.zeros_like(row.prompt_end), [[]],
    )  # fmt: skip
    lm = tiny_backbone.language_model
    with torch.no_grad(), editor._edited(batch, None):
        out = lm(inputs_embeds=batch.inputs_embeds, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        step = lm(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
    cached = torch.cat([out.logits, step.logits], dim=1)
    assert torch.allclose(cached, _full(editor, batch, token), atol=1e-4)


def test_generated_answers_are_what_teacher_forcing_says(backbone):
    """The evaluator's two ways of asking see one and the same edited model."""
    editor = tiny_dualedit(backbone)
    editor.add([edit(0)])
    batch = backbone.batch([edit(0)])
    with torch.no_grad(), editor._edited(batch, None):
        ids = backbone.generate_ids(batch, max_new_tokens=3)[0]
    logits = _full(editor, batch, torch.tensor([ids]))
    assert logits[0, : len(ids)].argmax(-1).tolist() == ids


def test_mixed_batches_answer_each_row_as_alone(backbone):
    editor = tiny_dualedit(backbone)
    editor.add([edit(0), edit(1)])
    asked = [*mixed_questions(), edit(1)]
    together = editor.generate(asked)
    alone = [editor.generate([q])[0] for q in asked]
    for a, b in zip(together, alone, strict=True):
        assert (a.text, a.route) == (b.text, b.route)
    assert {a.route for a in together} == {"e1", "e2", None}
    plain = Unedited(backbone).generate([asked[1]])[0]
    assert together[1].text == plain.text


def test_beams_keep_each_rows_own_edit(backbone):
    editor = tiny_dualedit(backbone, text_tokens="all")
    editor.add([edit(0), edit(1)])
    asked = [edit(1), mixed_questions()[1], edit(0)]
    batch = backbone.batch(asked)
    kwargs = {
        "num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False,
        "return_dict_in_generate": True, "output_scores": True,
    }  # fmt: skip
    with torch.no_grad(), editor._edited(batch, None):
        out = backbone.language_model.generate(
            inputs_embeds=batch.inputs_embeds, attention_mask=batch.attention_mask, **kwargs
        )
    logits = _full(editor, batch, out.sequences[:, :-1]).log_softmax(-1)
    score = logits.gather(-1, out.sequences[..., None])[..., 0]
    # The end token is barred by min_new_tokens, which takes its share off each step's sum.
    assert torch.allclose(score.sum(1) / 4, out.sequences_scores, atol=1e-3)
    assert [a.route for a in editor.generate(asked, num_beams=3)] == ["e2", None, "e1"]


def test_sampling_follows_the_seed_and_the_edit(backbone):
    editor = tiny_dualedit(backbone)
    editor.add([edit(0)])

    def sample():
        torch.manual_seed(7)
        return editor.generate([edit(0)] * 3, do_sample=True, top_k=0, max_new_tokens=4)

    assert sample() == sample() and {a.route for a in sample()} == {"e1"}


def test_several_sequences_a_question_are_refused():
    editor = tiny_dualedit()
    with pytest.raises(ConfigError, match="num_return_sequences"):
        editor.generate([edit(0)], num_return_sequences=2, do_sample=True)
    assert editor.generate([]) == [] and editor.force([]) == [] and editor.route([]) == []


def test_language_models_without_generate(tiny_backbone):
    """Older language models decode without a cache: every step is a full forward."""
    editor = tiny_dualedit(tiny_backbone, text_tokens="all")
    editor.add([edit(0)])
    lm = tiny_backbone.language_model

    class Bare(torch.nn.Module):
        base_model_prefix = "model"

        def __init__(self):
            super().__init__()
            self.model = lm.model
            self.get_output_embeddings = lm.get_output_embeddings
            self.get_input_embeddings = lm.get_input_embeddings

    batch = tiny_backbone.batch([edit(0), mixed_questions()[1]])
    kwargs = {"eos_token_id": 2, "pad_token_id": 0, "max_new_tokens": 4}
    with torch.no_grad(), editor._edited(batch, None):
        slow = generate_ids(Bare(), batch, **kwargs)
    with torch.no_grad(), editor._edited(batch, None):
        fast = generate_ids(lm, batch, **kwargs)
    assert slow == fast
