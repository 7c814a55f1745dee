"""What DualEdit's figures measure, the proposal of layers, and the calibration command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easyedit_mm_plugins import backbones, data
from easyedit_mm_plugins.cli.calibrate import calibrate as calibrate_command
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, Question, Records
from easyedit_mm_plugins.methods.dualedit import DualEdit
from easyedit_mm_plugins.papers import ExperimentSettings, dualedit_figures
from easyedit_mm_plugins.papers import suggest as suggest_module
from easyedit_mm_plugins.papers.layer_measurements import (
    answer_probe,
    attention_received,
    gate_similarities,
    noise_effects,
    token_mask,
)
from easyedit_mm_plugins.papers.suggest import LayerFacts, choose, suggest

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import edit, tiny_dualedit
from .test_gate import gate_records


@pytest.fixture(params=["llava", "blip2"])
def backbone(request):
    return build_tiny(request.param)


@pytest.fixture
def named(monkeypatch):
    """The tiny backbone and records answer to every name."""
    backbone, records = build_tiny("llava"), gate_records()

    def load(data, *, limit=None, **kwargs):
        return Records("tiny", records[:limit], [], Path("tiny.json"))

    for module in (data, suggest_module):
        monkeypatch.setattr(module, "load_records", load)
    monkeypatch.setattr(backbones, "load_backbone", lambda name, **kw: backbone)
    backbones.BACKBONES.add(name="tiny", loader=lambda source=None, **kw: backbone)
    yield backbone
    backbones.BACKBONES.unregister("tiny")


def test_prompt_tokens_by_modality(backbone):
    batch = backbone.batch([edit(0), Question("nq what?", None, "red")], with_answers=True)
    text, visual, both = (token_mask(batch, t) for t in ("text", "visual", "all"))
    assert not (text & visual).any() and torch.equal(text | visual, both)
    assert not (both & batch.answer_mask).any() and visual[0].any() and not visual[1].any()


def test_attention_is_averaged_over_heads_and_the_positions_that_see_a_token(backbone):
    questions = [edit(0), edit(1)]
    found = attention_received(backbone, questions)
    expected = {"text": 0.0, "visual": 0.0}
    for question in questions:  # one by one, without padding
        batch = backbone.batch([question])
        lm = backbone.language_model
        before = lm.config._attn_implementation
        lm.config._attn_implementation = "eager"
        with torch.no_grad():
            out = backbone.decoder(
                inputs_embeds=batch.inputs_embeds, output_attentions=True, use_cache=False
            )
        lm.config._attn_implementation = before
        weights = out.attentions[1][0].mean(0)
        length = len(weights)
        received = [
            sum(weights[q, k] for q in range(k, length)) / (length - k) for k in range(length)
        ]
        for name in expected:
            mask = token_mask(batch, name)[0]
            own = [r for r, m in zip(received, mask, strict=True) if m]
            expected[name] += float(sum(own)) / len(own) / 2
    for name, value in expected.items():
        assert found[name][1] == pytest.approx(value, rel=1e-3)
    assert found["visual, top 3"][1] >= found["visual"][1]
    assert backbone.language_model.config._attn_implementation == before


def test_noise_moves_the_output_where_the_tokens_are_read(backbone):
    found = noise_effects(backbone, [edit(0), edit(1)], [0.0, 2.0])
    assert found["all", 0.0] == pytest.approx([0, 0], abs=1e-5)
    assert found["visual", 2.0][-1] == pytest.approx(0, abs=1e-6)  # nothing reads the last layer
    assert found["visual", 2.0][0] > 1e-4 and min(found["text", 2.0]) > 1e-4
    again = noise_effects(backbone, [edit(0), edit(1)], [0.0, 2.0])
    assert again == found


def test_similarities_of_last_tokens_are_the_gates(backbone):
    records = gate_records(6)
    layer = 1
    found = gate_similarities(backbone, records, [layer])[layer]
    assert len(found["last"].unrelated) == 12 and len(found["visual"].unrelated) == 6
    editor = tiny_dualedit(backbone)
    editor.config.gate.layer = layer
    own = editor.gate_keys([r.edit for r in records])
    asked = editor.gate_keys([r.rephrase[0] for r in records])
    cosine = torch.nn.functional.cosine_similarity(own, asked)
    for mine, theirs in zip(found["last"].edited[::2], cosine, strict=True):  # by record, then kind
        assert mine == pytest.approx(theirs.item(), abs=1e-5)
    assert 0 <= found["last"].auc <= 1


def test_the_probe_reads_answers_and_not_noise(backbone):
    colors = ("red", "green", "blue")
    records = [
        EditRecord(str(i), Question("what color is the star?", picture(i % 5), colors[i % 3]))
        for i in range(60)
    ]
    assert answer_probe(backbone, records, [0]) == [1.0]
    mixed = [replace(r, edit=replace(r.edit, answer="red")) for r in records]
    assert answer_probe(backbone, mixed, [0, 1]) == [1.0, 1.0]


def test_layers_are_chosen_where_answers_and_gate_hold():
    facts = [
        LayerFacts(0, 4.0, 0.9, 1.0, 0.95),  # the gate does not separate yet
        LayerFacts(1, 3.0, 0.1, 1.0, 0.9999),
        LayerFacts(2, 3.5, 0.4, 0.99, 0.9999),
        LayerFacts(3, 1.0, 0.5, 0.99, 1.0),
        LayerFacts(4, 5.0, 0.9, 0.80, 1.0),  # answers are lost; the last layer
    ]
    assert choose(facts) == (2, 3)
    # What trained editors did counts for more, and of several alike the nearest one is taken.
    assert choose(facts, {(1, 1): 95.0, (2, 3): 80.0}) == (1, 1)
    assert choose(facts, {(0, 0): 95.0, (2, 2): 94.5, (3, 3): 93.0}) == (2, 2)


def test_suggest_layers_measures_and_proposes(named, tmp_path, capsys):
    text, visual = suggest("tiny", count=4, figure5=tmp_path)
    assert 0 <= text <= 1 and visual == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"text adapter on {text}, visual adapter on {visual}" in told
    assert "no trained editor was compared" in told


def test_suggest_layers_listens_to_figure_5(named, tmp_path, capsys):
    path = tmp_path / f"figure5-{named.name}.csv"
    path.write_text("text_layer,visual_layer,reliability\n0,0,40.0\n1,0,90.0\n")
    assert suggest("tiny", count=4, figure5=tmp_path) == (1, 0)
    assert "text 1, visual 0: reliability 90.0" in capsys.readouterr().out
    path.write_text("text_layer,visual_layer\n0,0\n")
    with pytest.raises(DataError, match=r"(?s)cannot be read.*dualedit-figure5"):
        suggest("tiny", count=4, figure5=tmp_path)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_figures_leave_a_picture_their_data_and_a_table(named, tmp_path, number, capsys):
    pytest.importorskip("matplotlib")
    make = getattr(dualedit_figures, f"figure{number}")
    settings = ExperimentSettings(f"dualedit-figure{number}", ["tiny"], out=tmp_path, limit=4)
    make(settings)
    name = named.name
    assert (tmp_path / f"figure{number}-{name}.png").read_bytes()[:4] == b"\x89PNG"
    lines = (tmp_path / f"figure{number}-{name}.csv").read_text().splitlines()
    rows = {1: 2, 2: 3 * 4 * 2, 4: 8 + 8 + 8 + 8 + 8 + 4}[number]
    assert len(lines) == rows + 1
    assert f"figure {number}" in (tmp_path / "table.md").read_text()
    before = json.loads((tmp_path / "facts.json").read_text())
    make(settings)  # goes on: nothing is measured again
    assert json.loads((tmp_path / "facts.json").read_text()) == before


def test_calibrate_sets_the_threshold_of_the_gate_asked_for(named, tmp_path, capsys):
    editor = tiny_dualedit(named)
    editor.save_pretrained(tmp_path / "e", half=False)
    with pytest.raises(CheckpointError, match="is not a folder"):
        calibrate_command("tiny", editor=tmp_path / "none")
    with pytest.raises(ConfigError, match="no threshold"):
        calibrate_command("tiny", editor=tmp_path / "e", gate="off")
    with pytest.raises(ConfigError, match="at_most is 2"):
        calibrate_command("tiny", editor=tmp_path / "e", at_most=2)
    found = calibrate_command("tiny", editor=tmp_path / "e", edits=1, out=tmp_path / "c")
    again = DualEdit.from_pretrained(tmp_path / "c", named)
    assert again.threshold == found.threshold != editor.threshold
    out = capsys.readouterr().out
    assert "12 held-out records, 1 edits in force" in out and "ROC area" in out
    other = calibrate_command(
        "tiny", editor=tmp_path / "c", gate="released", edits=5, out=tmp_path / "d"
    )
    kept = DualEdit.from_pretrained(tmp_path / "d", named)
    assert kept.threshold == again.threshold
    assert kept.with_gate("released").threshold == other.threshold
    with pytest.raises(ConfigError, match="Unedited has no threshold"):
        calibrate_command("tiny", method="unedited", editor=tmp_path / "e")
