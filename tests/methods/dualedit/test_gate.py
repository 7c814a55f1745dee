"""The learned gate: what it reads, how it is fitted and kept, other gates of one editor."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.backbones.partial import capture
from easyedit_mm_plugins.backbones.splice import hidden_states
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, TrainingError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.dualedit import DualEdit, GateConfig, calibrate
from easyedit_mm_plugins.methods.dualedit.gate import KEY, PARTS, fit_gate, gate_input
from easyedit_mm_plugins.recipes import dualedit as recipe
from easyedit_mm_plugins.recipes import job as jobs

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import edit, hparams, mixed_questions, tiny_dualedit

WORDS = ("circle", "square", "star", "triangle")


def gate_records(n: int = 12) -> list[EditRecord]:
    """Edits that differ in word or picture, with questions about another picture."""
    made = []
    for i in range(n):
        word, own, other = WORDS[i % 4], picture(i % 6), picture((i + 3) % 6)
        asked = f"what color is the {word}?"
        made.append(
            EditRecord(
                str(i),
                Question(asked, own, "red"),
                rephrase=(Question(f"the {word} is what color?", own, "red"),),
                image_rephrase=(Question(asked, own, "red"),),
                image_loc=(Question(asked, other, "blue"),),
                text_loc=(Question("what is the capital of france", None, "paris"),),
            )
        )
    return made


@pytest.mark.parametrize("side", ["left", "right"])
def test_it_reads_the_prompts_end_and_the_parts_of_the_image(side):
    backbone = build_tiny("llava")
    batch = backbone.batch(mixed_questions(), with_answers=True, padding_side=side)
    with torch.no_grad(), capture(backbone.decoder, [0]) as found:
        hidden_states(backbone.language_model, batch)
    read = gate_input("learned", found[0], batch)
    size = backbone.hidden_size
    for row, mine in enumerate(read):
        states, images = found[0][row], batch.image_mask[row]
        assert torch.equal(mine[:size], states[batch.prompt_end[row]])
        means = torch.zeros(PARTS, size)
        for part, tokens in enumerate(torch.tensor_split(states[images], PARTS)):
            if len(tokens):
                means[part] = tokens.mean(0)
        assert torch.allclose(mine[size:].unflatten(0, (PARTS, size)), means, atol=1e-6)
    assert torch.equal(gate_input("prompt-end", found[0], batch), read[:, :size])


@pytest.mark.parametrize("alike", [True, False])
def test_the_images_16_tokens_are_four_runs_of_four_in_their_order(alike):
    """On numbers that tell a token's place: its parts are tokens 0-3, 4-7, 8-11 and 12-15."""
    backbone = build_tiny("llava")
    asked = [edit(0), edit(1)] if alike else [edit(0), mixed_questions()[1], mixed_questions()[2]]
    batch = backbone.batch(asked)
    assert (len(set(batch.image_spans)) == 1) == alike
    hidden = torch.full((*batch.attention_mask.shape, 2), -1000.0)  # what no part may touch
    for row, span in enumerate(batch.image_spans):
        if span is not None:
            assert span[1] - span[0] == 16
            hidden[row, slice(*span), 0] = torch.arange(16.0)
            hidden[row, slice(*span), 1] = torch.arange(16.0) ** 2
    read = gate_input("learned", hidden, batch).view(len(asked), 5, 2)
    places = [range(4), range(4, 8), range(8, 12), range(12, 16)]
    means = [[sum(run) / 4, sum(i * i for i in run) / 4] for run in places]
    for row, span in enumerate(batch.image_spans):
        assert read[row, 0].tolist() == [-1000.0, -1000.0]
        assert read[row, 1:].tolist() == (means if span else [[0.0, 0.0]] * 4)


@pytest.mark.parametrize("kind", ["learned", "prompt-end"])
def test_rows_alike_are_read_as_any_others(kind):
    backbone = build_tiny("llava")
    batch = backbone.batch([edit(0), edit(0, "blue")])
    assert len(set(batch.ends)) == len(set(batch.image_spans)) == 1
    hidden = torch.randn(*batch.attention_mask.shape, backbone.hidden_size)
    unknown = replace(batch, ends=[], image_spans=[])
    read = gate_input(kind, hidden, batch)
    assert torch.allclose(read, gate_input(kind, hidden, unknown), atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_knows_where_images_and_prompts_end(side):
    batch = build_tiny("llava").batch(mixed_questions(), with_answers=True, padding_side=side)
    assert batch.ends == batch.prompt_end.tolist()
    for span, image in zip(batch.image_spans, batch.image_mask, strict=True):
        assert (list(range(*span)) if span else []) == image.nonzero().flatten().tolist()


def test_the_gate_runs_nothing_above_its_layer():
    editor = tiny_dualedit(kind="learned")
    above = editor.backbone.decoder.layers[1].register_forward_hook(lambda *a: 1 / 0)
    assert editor.gate_keys([edit(0), edit(1)]).shape == (2, KEY)
    above.remove()


def fit(editor: DualEdit, records: list[EditRecord], steps: int) -> float:
    return fit_gate(
        editor.gate,
        records,
        lambda kind, asked: editor.gate_inputs([q for _, q in asked]),
        steps=steps,
        batch_size=12,
        lr=1e-2,
    )


def margin(editor: DualEdit, records: list[EditRecord]) -> float:
    """Lowest cosine of a rephrasing minus the highest of a question on another picture."""
    cosines = calibrate(editor, records).scores
    return min(cosines["rephrase"]) - max(cosines["image_loc"])


def test_fitting_separates_pictures_that_the_plain_cosine_does_not():
    editor = tiny_dualedit(kind="learned")
    records = gate_records()
    early = fit(tiny_dualedit(kind="learned"), records, 10)
    assert fit(editor, records, 300) < early / 2
    assert margin(editor, records) > 0.2 > 0.1 > margin(tiny_dualedit(), records)
    again = tiny_dualedit(kind="learned")
    fit(again, records, 300)
    assert torch.equal(again.gate_keys([edit(0)]), editor.gate_keys([edit(0)]))
    with pytest.raises(TrainingError, match="two records"):
        fit(editor, records[:1], 5)


def test_more_edits_in_the_memory_only_raise_what_must_stay_closed():
    editor, records = tiny_dualedit(), gate_records(8)
    alone, together = calibrate(editor, records), calibrate(editor, records, others=5)
    assert together.scores["edit"] == pytest.approx(alone.scores["edit"])
    pairs = zip(together.scores["image_loc"], alone.scores["image_loc"], strict=True)
    assert all(t >= a - 1e-6 for t, a in pairs)
    keys = torch.nn.functional.normalize(editor.gate_keys([r.edit for r in records]), dim=-1)
    asked = torch.nn.functional.normalize(editor.gate_keys([records[0].image_loc[0]]), dim=-1)
    assert together.scores["image_loc"][0] == pytest.approx(float((asked @ keys[:6].T).max()))


def test_a_saved_editor_has_its_gate_and_its_thresholds(tmp_path):
    backbone = build_tiny("llava")
    editor = tiny_dualedit(backbone, kind="learned")
    editor.threshold, editor.thresholds["prompt-end"] = 0.7, 0.65
    editor.save_pretrained(tmp_path / "e", half=False)
    again = DualEdit.from_pretrained(tmp_path / "e", backbone)
    questions = mixed_questions()
    assert torch.equal(again.gate_keys(questions), editor.gate_keys(questions))
    assert again.fingerprint() == editor.fingerprint() and again.threshold == 0.7
    plain = again.with_gate("prompt-end")
    assert plain.threshold == 0.65 and plain.describe()["gate"] == "prompt-end"
    assert plain.gate_keys(questions).shape[1] == backbone.hidden_size
    assert plain.with_gate("learned").threshold == 0.7
    assert plain.with_gate("released").threshold == 0.6  # the paper's on LLaVA
    assert plain.with_gate("prompt-end", 0.9).threshold == 0.9
    # The plain editor keeps the learned gate, and one memory is not mistaken for the other's.
    plain.save_pretrained(tmp_path / "p", half=False)
    assert DualEdit.from_pretrained(tmp_path / "p", backbone).with_gate("learned").gate is not None
    plain.add([edit(0)])
    plain.save_memory(tmp_path / "memory")
    with pytest.raises(CheckpointError, match="made by DualEdit editor"):
        again.load_memory(tmp_path / "memory")
    (tmp_path / "e/gate/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="gate"):
        DualEdit.from_pretrained(tmp_path / "e", backbone)


def test_another_gate_shares_weights_and_not_edits():
    editor = tiny_dualedit()
    editor.add([edit(0)])
    other = editor.with_gate("off")
    assert not other.edits and other.adapters is editor.adapters and len(editor.edits) == 1
    with pytest.raises(ConfigError, match="no learned gate"):
        editor.with_gate("learned")


def test_edits_behind_a_learned_gate_are_found_and_taken_back():
    editor = tiny_dualedit(kind="learned")
    editor.threshold = 0.999
    questions = mixed_questions()
    before = editor.generate(questions)
    ids = editor.add([edit(0), edit(1)])
    assert [a.route for a in editor.generate([edit(1), edit(0)])] == [ids[1], ids[0]]
    editor.remove(ids)
    assert editor.generate(questions) == before


def test_a_gate_is_fitted_anew_and_the_adapters_stay(tmp_path, monkeypatch):
    backbone, records = build_tiny("llava"), gate_records(8)
    settings = hparams(gate=GateConfig("learned"), gate_steps=20, max_iters=2)
    settings = settings.replace(adapters=tiny_dualedit(backbone).config.adapters)
    monkeypatch.setattr(jobs, "training_settings", lambda *_: settings)
    monkeypatch.setattr(jobs, "split_records", lambda *_, **__: (records[:5], records[5:]))
    job = jobs.Job(tmp_path, data="scenes-eic")
    folder = recipe.train("dualedit", backbone, job)
    assert folder.name == f"dualedit-{backbone.name}-captions"
    trained = DualEdit.from_pretrained(folder, backbone)
    assert trained.config.gate.kind == "learned" and set(trained.thresholds) == {"prompt-end"}

    plain = trained.with_gate("prompt-end")
    plain.gate = None  # as one that was trained without
    plain.save_pretrained(tmp_path / "plain", half=False)
    shutil.rmtree(tmp_path / "plain/gate", ignore_errors=True)
    recipe.refit_gate(backbone, tmp_path / "plain", job)
    again = DualEdit.from_pretrained(tmp_path / "plain", backbone)
    assert again.config.gate.kind == "learned"
    for mine, before in zip(
        again.adapters.parameters(), trained.adapters.parameters(), strict=True
    ):
        assert torch.equal(mine, before)
    asked = [r.edit for r in records]
    assert torch.allclose(again.gate_keys(asked), trained.gate_keys(asked), atol=2e-2)
    assert again.thresholds["prompt-end"] == trained.thresholds["prompt-end"]
