"""DualEdit as an editor: rows that find their own edit, generation, hooks, undo, disk."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.backbones.partial import capture
from easyedit_mm_plugins.backbones.splice import answer_logits, hidden_states
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, DataError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.dualedit import AdapterConfig, DualEdit, GateConfig
from easyedit_mm_plugins.methods.dualedit.gate import gate_position
from easyedit_mm_plugins.methods.routed import Hit

from ...conftest import build_tiny, picture
from ...support.dualedit_tiny import edit, mixed_questions, tiny_dualedit


def _forced(editor, questions, **kwargs) -> list[torch.Tensor]:
    """Logits [n, vocab] at each answer, under the editor's edits."""
    batch = editor.backbone.batch(questions, with_answers=True, **kwargs)
    with torch.no_grad(), editor._edited(batch, None):
        return answer_logits(editor.backbone.language_model, batch)


def _hooks(backbone) -> int:
    modules = backbone.language_model.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


# The gate -------------------------------------------------------------------------------------


def test_the_gate_is_the_cosine_of_the_prompts_last_tokens_eq_4(backbone):
    editor = tiny_dualedit(backbone)
    ids = editor.add([edit(0), edit(1)])
    asked = mixed_questions()
    states = {}
    for name, questions in (("q", asked), ("e", [edit(0), edit(1)])):
        rows = []
        for q in questions:
            batch = backbone.batch([Question(q.text, q.image)])  # alone: nothing is padded
            with torch.no_grad(), capture(backbone.decoder, [0]) as found:
                hidden_states(backbone.language_model, batch)
            rows.append(found[0][0, -1].double())
        states[name] = rows
    for question, hit, forced in zip(asked, editor.route(asked), editor.force(asked), strict=True):
        h = states["q"][asked.index(question)]
        cosines = [float(h @ e / (h.norm() * e.norm())) for e in states["e"]]
        assert hit.score == pytest.approx(max(cosines), abs=1e-5)
        assert hit.id == ids[cosines.index(max(cosines))]
        assert forced.score == pytest.approx(hit.score, abs=1e-5)
        assert forced.route == (hit.id if hit.score >= 0.9 else None)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_gate_reads_the_same_token_on_either_padding_side(backbone, side):
    editor = tiny_dualedit(backbone)
    editor.add([edit(0)])
    asked = mixed_questions()
    batch = backbone.batch(asked, with_answers=True, padding_side=side)
    with torch.no_grad(), editor._edited(batch, None) as hits:
        hidden_states(backbone.language_model, batch)
    for hit, alone in zip(hits, editor.route(asked), strict=True):
        assert hit.score == pytest.approx(alone.score, abs=1e-5)
    logits = _forced(editor, asked, padding_side=side)
    for question, row in zip(asked, logits, strict=True):
        assert torch.allclose(row, _forced(editor, [question])[0], atol=1e-4)


def test_the_released_gate_sees_the_answer_and_the_prompt_end_gate_does_not():
    backbone = build_tiny("llava")
    honest, released = (tiny_dualedit(backbone, kind=kind) for kind in ("prompt-end", "released"))
    question = edit(0)
    for editor in (honest, released):
        editor.add([question])
    assert honest.route([question])[0].score == pytest.approx(1, abs=1e-5)
    assert honest.force([question.with_answer("left")])[0].score == pytest.approx(1, abs=1e-5)
    # As its own evaluation asks, with the answer, the released gate opens; as a user asks, not.
    assert released.force([question])[0].score == pytest.approx(1, abs=1e-5)
    assert released.force([question.with_answer("left")])[0].score < 0.9
    assert released.generate([question])[0].route is None
    assert honest.generate([question])[0].route is not None
    assert released.describe()["gate"] == "released"
    batch = backbone.batch(mixed_questions(), with_answers=True)
    assert (gate_position("released", batch) == batch.attention_mask.shape[1] - 1).all()
    ends = gate_position("prompt-end", batch)
    assert (ends == batch.attention_mask.shape[1] - 1 - torch.tensor([1, 1, 2, 3])).all()


@pytest.mark.parametrize("kind", ["prompt-end", "learned"])
def test_a_cosine_at_the_threshold_opens_the_gate_eq_4(kind):
    editor = tiny_dualedit(kind=kind)
    (own,) = editor.add([edit(0)])
    asked = [edit(1)]
    score = editor.generate(asked)[0].score
    assert 0 < score < 1
    editor.threshold = score
    assert editor.generate(asked)[0].route == own
    assert editor.is_open(Hit(own, score))
    editor.threshold = math.nextafter(score, 1)
    assert editor.generate(asked)[0].route is None
    assert not editor.is_open(Hit(own, score))


def test_gate_off_edits_every_row_that_may_see_an_edit():
    editor = tiny_dualedit(kind="off")
    (first,) = editor.add([edit(0)])
    asked = mixed_questions()
    assert [f.route for f in editor.force(asked)] == [first] * 4
    hidden = editor.force(asked, visible=[[], [first], [], []])
    assert [f.route for f in hidden] == [None, first, None, None]


# Adapters inside the model --------------------------------------------------------------------


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("tokens", ["visual", "prompt", "all"])
def test_edited_tokens_are_the_adapters_output_and_no_others(backbone, form, tokens):
    size = {"width": 16, "heads": 2} if form == "released" else {}
    adapter = AdapterConfig(0, "visual" if tokens == "visual" else "text", form, **size)
    text_tokens = "all" if tokens == "all" else "prompt"
    editor = tiny_dualedit(backbone, adapters=[adapter], text_tokens=text_tokens)
    question = edit(0, "top left")
    editor.add([question])
    batch = backbone.batch([question], with_answers=True)
    decoder, lm = backbone.decoder, backbone.language_model
    with torch.no_grad():
        with capture(decoder, [0]) as base:
            hidden_states(lm, batch)
        with editor._edited(batch, None), capture(decoder, [0]) as moved:
            hidden_states(lm, batch)
        mask = torch.ones(1, batch.attention_mask.shape[1], dtype=torch.bool)
        memory = editor.adapters[0].memory(base[0])
        expected = editor.adapters[0](base[0], *memory, mask)[0]
    chosen = {
        "visual": batch.image_mask[0],
        "prompt": ~batch.image_mask[0] & ~batch.answer_mask[0],
        "all": ~batch.image_mask[0],
    }[tokens]
    assert torch.allclose(moved[0][0, chosen], expected[chosen], atol=1e-5)
    assert torch.equal(moved[0][0, ~chosen], base[0][0, ~chosen])
    assert not torch.allclose(expected[chosen], base[0][0, chosen], atol=0.1)


def test_any_number_of_adapters_on_any_layers(tiny_backbone):
    small = {"form": "released", "width": 16, "heads": 2}
    adapters = [
        AdapterConfig(0, "visual", **small),
        AdapterConfig(1, "text", **small),
        AdapterConfig(0, "text", **small),
    ]
    question = edit(0)
    base = tiny_backbone.answer_logits([question])[0]
    outcomes = [base]
    for count in (1, 2, 3):
        editor = tiny_dualedit(tiny_backbone, adapters=adapters[:count])
        editor.add([question])
        outcomes.append(_forced(editor, [question])[0])
    for one, other in itertools.combinations(outcomes, 2):
        assert not torch.allclose(one, other, atol=1e-3)
    visual = tiny_dualedit(tiny_backbone, adapters=adapters[:1])
    asked = mixed_questions()[1]
    visual.add([asked])
    assert visual.force([asked])[0].route == "e1"  # in scope, but no image token to edit
    assert torch.equal(_forced(visual, [asked])[0], tiny_backbone.answer_logits([asked])[0])


# Many edits -----------------------------------------------------------------------------------


def test_each_row_finds_its_own_edit_or_none(backbone):
    editor = tiny_dualedit(backbone)
    edits = [edit(i, answer) for i, answer in enumerate(["red", "green", "blue", "top", "left"])]
    alone = []
    for e in edits:
        with editor.edited([e]):
            alone.append(_forced(editor, [e])[0])
    ids = editor.add(edits)
    together = _forced(editor, [*edits, mixed_questions()[1]])
    for one, row in zip(alone, together, strict=False):
        assert torch.allclose(one, row, atol=1e-4)
    assert [a.route for a in editor.generate(edits)] == ids
    away = mixed_questions()[1]
    assert editor.force([away])[0].route is None
    base = backbone.answer_logits([away])[0]
    assert torch.allclose(together[-1], base, atol=1e-5)


def test_visible_keeps_rows_apart():
    editor = tiny_dualedit()
    first, second = editor.add([edit(0), edit(0, "green")])
    routes = editor.generate([edit(0)] * 4, visible=[[first], [second], [], ["e99"]])
    assert [a.route for a in routes] == [first, second, None, None]
    with pytest.raises(ConfigError, match="visible has 1 rows"):
        editor.force([edit(0)] * 2, visible=[[first]])


def test_an_edit_is_encoded_once(tiny_backbone, monkeypatch):
    editor = tiny_dualedit(tiny_backbone)
    editor.add([edit(0), edit(1)])
    for adapter in editor.adapters:
        monkeypatch.setattr(adapter, "memory", None)  # would fail if called
    assert editor.force([edit(0)])[0].route == "e1"


def test_undo_is_bitwise_and_leaves_no_hook(backbone):
    editor = tiny_dualedit(backbone)
    weights = {n: p.clone() for n, p in backbone.model.state_dict().items()}
    layers = [id(layer) for layer in backbone.layers]
    asked = mixed_questions()
    before = _forced(editor, asked)
    kept = editor.add([edit(3)])
    held = _forced(editor, asked)
    with pytest.raises(RuntimeError, match="stop"), editor.edited([edit(0), edit(1)]):
        editor.generate(asked)
        raise RuntimeError("stop")
    assert list(editor.edits) == kept
    assert all(map(torch.equal, _forced(editor, asked), held))
    editor.clear()
    assert not editor.store.now.payloads and not editor.edits
    assert all(map(torch.equal, _forced(editor, asked), before))
    assert all(torch.equal(p, weights[n]) for n, p in backbone.model.state_dict().items())
    assert [id(layer) for layer in backbone.layers] == layers and not _hooks(backbone)


def test_hooks_go_when_a_forward_fails(tiny_backbone, monkeypatch):
    editor = tiny_dualedit(tiny_backbone)
    editor.add([edit(0)])

    def broken(*args):
        assert _hooks(tiny_backbone)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(editor.adapters[1], "forward", broken)
    for call in (editor.generate, editor.force):
        with pytest.raises(RuntimeError, match="out of memory"):
            call([edit(0)])
        assert not _hooks(tiny_backbone)
    with pytest.raises(DataError), editor.edited([Question("what", "no-such.png", "red")]):
        pass
    assert not _hooks(tiny_backbone) and len(editor.edits) == 1


def test_two_editors_on_one_base_do_not_meet(tiny_backbone):
    one, other = tiny_dualedit(tiny_backbone), tiny_dualedit(tiny_backbone, seed=5)
    one.add([edit(0)])
    alone = _forced(one, [edit(0)])[0]
    other.add([edit(0, "blue")])
    both = _forced(one, [edit(0)])[0]
    assert torch.equal(alone, both)
    assert not torch.allclose(_forced(other, [edit(0)])[0], alone, atol=1e-3)
    other.clear()
    unedited = tiny_backbone.answer_logits([edit(0)])[0]
    assert torch.equal(_forced(other, [edit(0)])[0], unedited)


def test_bad_edits_are_refused_whole():
    editor = tiny_dualedit()
    for bad in (Question(" ", picture(0), "red"), Question("what?", picture(0), "")):
        with pytest.raises(DataError, match="is empty"):
            editor.add([edit(0), bad])
    with pytest.raises(DataError, match="positions"):
        editor.add([edit(0), Question("circle " * 200, picture(0), "red")])
    assert not editor.edits
    with pytest.raises(KeyError, match="no edit 'e7'"):
        editor.remove(["e7"])


def test_bad_questions_are_named_and_a_full_context_is_not_left(backbone):
    editor = tiny_dualedit(backbone)
    editor.add([edit(0)])
    for ask in (editor.generate, editor.force):
        with pytest.raises(DataError, match="positions"):
            ask([Question("circle " * 200, picture(0), "red")])
        with pytest.raises(DataError, match="question is empty"):
            ask([Question(" ", picture(0), "red")])
        with pytest.raises(DataError, match=r"nowhere\.png"):
            ask([Question("what?", "nowhere.png", "red")])
    used = backbone.batch([Question("circle", picture(0))]).inputs_embeds.shape[1]
    longest = Question("circle " * (backbone.max_positions - used - 1), picture(0))
    # Two positions are left, so three tokens can come: the last one is not read again.
    ids = backbone.generate_ids(backbone.batch([longest]), max_new_tokens=8, min_new_tokens=3)
    assert len(ids[0]) <= 3
    assert len(editor.generate([longest, edit(0)])) == 2


def test_an_image_for_a_backbone_of_text_alone_is_refused(tiny_backbone, monkeypatch):
    editor = tiny_dualedit(tiny_backbone)
    monkeypatch.setattr(type(tiny_backbone), "takes_images", False)
    text = mixed_questions()[1]
    editor.add([text])
    assert editor.generate([text])[0].route == "e1"
    with pytest.raises(DataError, match="record 1, field image: has an image, but tiny"):
        editor.add([text, edit(0)])
    assert len(editor.edits) == 1


@pytest.mark.parametrize("room", [0, 1, 2, 100])
def test_edits_that_found_no_room_are_made_again_when_they_are_hit(backbone, room):
    """The same answers under any budget; a call needs no more room than it has."""
    free, tight = tiny_dualedit(backbone), tiny_dualedit(backbone)
    edits = [edit(0), edit(1, "top"), edit(2, "left of"), mixed_questions()[1]]
    free.add(edits)
    tight.memory.kept.limit = room * free.memory.kept.used // len(edits)
    ids = tight.add(edits)
    asked = [*edits, *mixed_questions(), edit(1)]
    for visible in (None, [["e2"], ["e1", "e3"]] * (len(asked) // 2) + [[]] * (len(asked) % 2)):
        for a, b in zip(
            free.force(asked, visible=visible), tight.force(asked, visible=visible), strict=True
        ):
            assert a.route == b.route and torch.equal(a.top_ids, b.top_ids)
        assert free.generate(asked, visible=visible) == [
            replace(b, score=a.score)
            for a, b in zip(
                free.generate(asked, visible=visible),
                tight.generate(asked, visible=visible),
                strict=True,
            )
        ]
        assert tight.memory.kept.used <= tight.memory.kept.limit
    assert not _hooks(backbone)
    tight.remove(ids)
    assert len(tight.memory.kept) == 0 and tight.memory.kept.used == 0


# On disk --------------------------------------------------------------------------------------


def test_editor_and_memory_survive_the_disk(tmp_path, backbone, pictures):
    editor = tiny_dualedit(backbone)
    editor.threshold = 0.85
    star = Question("where is the star?", pictures[0], "left")
    editor.add([edit(0)])
    editor.add([star, edit(1, "top")])
    editor.remove(["e1"])
    editor.save_pretrained(tmp_path / "editor", half=False)
    editor.save_memory(tmp_path / "memory")
    again = DualEdit.from_pretrained(tmp_path / "editor", backbone)
    again.load_memory(tmp_path / "memory")
    assert again.threshold == 0.85 and list(again.edits) == ["e2", "e3"]
    asked = [star, edit(1), edit(0)]
    assert len(again.memory.kept) == 0  # what adapters take is made when an edit is hit
    backbone.clear_cache()  # together with the same edits and pictures, so to the same bits
    found = again.force(asked)
    assert [f.route for f in found] == [f.route for f in editor.force(asked)]
    for a, b in zip(_forced(editor, asked), _forced(again, asked), strict=True):
        assert torch.equal(a, b)
    assert again.add([edit(0)]) == ["e4"]


def test_damaged_and_foreign_files_are_named(tmp_path):
    editor = tiny_dualedit()
    editor.add([edit(0)])
    editor.save_pretrained(tmp_path / "editor")
    editor.save_memory(tmp_path / "memory")
    with pytest.raises(CheckpointError, match=r"trained for backbone tiny-llava .* tiny-blip2"):
        DualEdit.from_pretrained(tmp_path / "editor", build_tiny("blip2"))
    other = tiny_dualedit(seed=9)
    with pytest.raises(CheckpointError, match="was made by DualEdit editor"):
        other.load_memory(tmp_path / "memory")
    (tmp_path / "memory/edits.safetensors").write_bytes(b"12")
    with pytest.raises(CheckpointError, match=r"edits\.safetensors is damaged"):
        editor.load_memory(tmp_path / "memory")
    assert list(editor.edits) == ["e1"]
    (tmp_path / "editor/adapters/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        DualEdit.from_pretrained(tmp_path / "editor", editor.backbone)
    with pytest.raises(CheckpointError, match="not a folder"):
        DualEdit.from_pretrained(tmp_path / "none", editor.backbone)


def test_gate_below_the_first_edited_layer():
    editor = tiny_dualedit(
        adapters=[AdapterConfig(1, "text", "released", 16, 2)],
        gate=GateConfig(layer=0, threshold=0.9),
    )
    editor.add([edit(0)])
    found = editor.generate([edit(0), mixed_questions()[1]])
    assert [a.route for a in found] == ["e1", None] and editor.describe()["gate_layer"] == 0
