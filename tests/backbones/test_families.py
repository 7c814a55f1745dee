"""Any vision-language model behind its processor: tiny random models of each family, from a folder.

What is compared with is the model's own: its processor, its forward pass, its generate.
"""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.backbones import HFAuto, Row, assemble, load_backbone
from easyedit_mm_plugins.backbones.splice import answer_logits, hidden_states
from easyedit_mm_plugins.core.errors import BackboneError, DataError
from easyedit_mm_plugins.data import Question

from ..conftest import picture
from ..support import families_tiny as tiny

_BUILT: dict[str, tuple] = {}


def sized(seed: int, width: int, height: int):
    """A noise picture of any size."""
    return picture(seed, max(width, height)).crop((0, 0, width, height))


QUESTIONS = [
    Question("what color is the circle?", sized(1, 48, 48), "red"),
    Question("where is the star?", sized(2, 64, 32), "top left"),
    Question("what is the capital of france?", None, "paris"),
    Question("is the square green?", sized(3, 40, 80), "no"),
]


@pytest.fixture(params=tiny.FAMILIES)
def family(request, tmp_path_factory):
    """(backbone loaded from a folder, the model and processor that were saved there)."""
    name = request.param
    tiny.needs(name)
    if name not in _BUILT:
        folder = tmp_path_factory.mktemp(name)
        model, processor = tiny.save(name, folder)
        _BUILT[name] = HFAuto.from_pretrained(folder), model, processor, folder
    return _BUILT[name]


def own_inputs(backbone, processor, question, images, answer=""):
    """What the processor itself makes of a question about images and its answer."""
    if getattr(processor, "chat_template", None) is None:
        text = "<image>" * len(images) + f"answer en {question.text}"
        kwargs = {"suffix": [answer]} if answer else {}
        return processor(text=[text], images=[images], return_tensors="pt", **kwargs)
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": question.text}]
    chat = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True) + answer
    start = processor.tokenizer.bos_token
    special = {"add_special_tokens": False} if start and text.startswith(start) else {}
    images = {"images": [images]} if images else {}
    return processor(text=[text], return_tensors="pt", **images, **special)


def test_logits_are_the_models_own(family):
    backbone, model, processor, _ = family
    for question in QUESTIONS:
        if question.image is None:
            continue
        inputs = own_inputs(backbone, processor, question, [question.image], question.answer)
        with torch.no_grad():
            theirs = model(**inputs).logits[0]
            ours = backbone.answer_logits([question])[0]
        n = len(ours)
        # PaliGemma's processor ends the answer.
        after = 1 if backbone.family == "paligemma" else 0
        expected = theirs[len(theirs) - n - 1 - after : len(theirs) - 1 - after]
        ids = inputs["input_ids"][0].tolist()
        assert ids[len(ids) - n - after : len(ids) - after] == backbone.answer_ids(question.answer)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_equals_loop(family, side):
    backbone = family[0]
    batch = backbone.batch(QUESTIONS, with_answers=True, padding_side=side)
    with torch.no_grad():
        hidden = hidden_states(backbone.language_model, batch)
        for i, question in enumerate(QUESTIONS):
            alone = backbone.batch([question], with_answers=True)
            expected = hidden_states(backbone.language_model, alone)[0]
            got = hidden[i][batch.attention_mask[i].bool()]
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
            assert batch.image_mask[i].sum() == alone.image_mask[0].sum()
            assert bool(batch.image_mask[i].any()) == (question.image is not None)
            end, count = int(batch.prompt_end[i]), len(batch.answers[i])
            places = batch.answer_mask[i].nonzero().flatten().tolist()
            assert places == list(range(end + 1, end + 1 + count))


def test_generation_is_the_models_own(family):
    """Greedy, cached: alone, in a batch of all sizes, without a cache, and by beams."""
    backbone, model, processor, _ = family
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": 10**6, "pad_token_id": 0}
    ours = backbone.generate_ids(backbone.batch(QUESTIONS), max_new_tokens=6, eos_token_id=10**6)
    assert len({tuple(row) for row in ours}) > 1  # else the comparison would say little
    for question, own in zip(QUESTIONS, ours, strict=True):
        batch = backbone.batch([question])
        assert backbone.generate_ids(batch, max_new_tokens=6, eos_token_id=10**6) == [own]
        whole = backbone.generate_ids(batch, max_new_tokens=6, eos_token_id=10**6, use_cache=False)
        assert whole == [own]
        if question.image is None:
            continue
        inputs = own_inputs(backbone, processor, question, [question.image])
        inputs.pop("labels", None)
        with torch.no_grad():
            theirs = model.generate(**inputs, **kwargs)[0, inputs["input_ids"].shape[1] :]
        assert own == theirs.tolist()
    beams = {"max_new_tokens": 4, "num_beams": 2, "eos_token_id": 10**6}
    together = backbone.generate_ids(backbone.batch(QUESTIONS), **beams)
    assert together == [backbone.generate_ids(backbone.batch([q]), **beams)[0] for q in QUESTIONS]


def test_teacher_forcing_and_generation_agree(family):
    backbone = family[0]
    for question in QUESTIONS:
        ids = backbone.generate_ids(
            backbone.batch([question]), max_new_tokens=4, eos_token_id=10**6
        )
        rows = backbone.rows([question])
        rows[0].answer = ids[0]

        with torch.no_grad():
            logits = answer_logits(backbone.language_model, assemble(rows, backbone.embed))[0]
        assert logits.argmax(-1).tolist() == ids[0]


def test_several_images_in_a_prompt(family):
    """A question about two images, where the processor takes them: as the model has it."""
    backbone, model, processor, _ = family
    question, images = Question("where is the star?", None, "left"), [
        sized(4, 48, 48), sized(5, 64, 32),
    ]  # fmt: skip
    inputs = own_inputs(backbone, processor, question, images)
    inputs.pop("labels", None)
    (picture_of,) = backbone.together([images])
    (segment,) = backbone.splice(picture_of, question.text)
    assert segment.ids == inputs["input_ids"][0].tolist()

    with torch.no_grad():
        hidden = hidden_states(backbone.language_model, assemble([Row([segment])], backbone.embed))
        ours = backbone.language_model.lm_head(hidden)
        theirs = model(**inputs).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def editors(backbone):
    """Each method on ``backbone``, with weights that change answers."""
    from easyedit_mm_plugins.methods.ft import FTLLM, FTConfig, FTVisual
    from easyedit_mm_plugins.methods.mend import MSCKEMEND, Mend, MendConfig, MendCounterfactual
    from easyedit_mm_plugins.methods.mscke import MSCKE, CounterfactualConfig, SmallLM
    from easyedit_mm_plugins.methods.mscke.lora import LoRA

    from ..methods.visedit.test_visedit import tiny_visedit
    from ..support.dualedit_tiny import tiny_dualedit
    from ..support.mend_tiny import stir
    from ..support.mscke_tiny import TINY_OPT, tiny_scope

    torch.manual_seed(7)
    small = {**TINY_OPT, "max_position_embeddings": 256}
    small_lm = SmallLM.from_config(backbone, CounterfactualConfig(lm=small))
    yield MSCKE(backbone, tiny_scope(), small_lm, 0.0)
    config = CounterfactualConfig(kind="lora", rank=2, targets=["*.q_proj", "*.down_proj"])
    lora = LoRA.from_config(backbone, config).eval()
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    yield MSCKE(backbone, tiny_scope(), lora, 0.0)
    mend = Mend(backbone, MendConfig(rank=4, edit_lr=-0.05))
    stir(mend.network)
    yield MSCKEMEND(backbone, tiny_scope(), MendCounterfactual(mend), 0.0)
    yield tiny_dualedit(backbone, kind="off")
    yield tiny_visedit(backbone)
    tuned = FTConfig(edit_lr=0.1, num_steps=2, batch_size=2)
    yield FTLLM(backbone, tuned)
    if any(name.startswith("connector.") for name in backbone.linear_modules()):
        yield FTVisual(backbone, tuned)
    else:  # Gemma 3's projector is a bare matrix
        assert backbone.family == "gemma3"


def hooks(backbone):
    """How many; newer transformers hang some of their own on a model."""
    modules = [*backbone.model.modules(), *backbone.language_model.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_every_method_edits_and_leaves_no_trace(family):
    backbone = family[0]
    base = [row.clone() for row in backbone.answer_logits(QUESTIONS)]
    said = backbone.generate(QUESTIONS, max_new_tokens=3)
    before = hooks(backbone)
    weights = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    edits = [QUESTIONS[0].with_answer("blue"), QUESTIONS[1].with_answer("bottom")]
    count = 0
    for editor in editors(backbone):
        ids = editor.add(edits)
        forced = editor.force(QUESTIONS, top_k=3)
        answers = editor.generate(QUESTIONS, max_new_tokens=3)
        for i, question in enumerate(QUESTIONS):
            (alone,) = editor.force([question], top_k=3)
            assert torch.equal(alone.top_ids, forced[i].top_ids), editor.name
            assert editor.generate([question], max_new_tokens=3)[0].text == answers[i].text
        many = editor.force(QUESTIONS[:2], top_k=50)
        plain = [row.topk(50).indices for row in base[:2]]
        same = [torch.equal(f.top_ids, p) for f, p in zip(many, plain, strict=True)]
        assert not all(same), editor.name
        editor.remove(ids)
        after = editor.backbone.answer_logits(QUESTIONS)
        assert all(torch.equal(a, b) for a, b in zip(after, base, strict=True)), editor.name
        assert [a.text for a in editor.generate(QUESTIONS, max_new_tokens=3)] == said
        count += 1
    assert count >= 6
    now = backbone.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in weights.items())
    assert hooks(backbone) == before


def test_training_passes_are_the_editors_own(family, monkeypatch):
    """DualEdit's training runs the layers above the first edited one: the same logits."""
    from easyedit_mm_plugins.data import EditRecord
    from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
    from easyedit_mm_plugins.methods.dualedit.losses import draw, edited_logits
    from easyedit_mm_plugins.methods.visedit import influence

    from ..support.dualedit_tiny import tiny_dualedit

    backbone = family[0]
    editor = tiny_dualedit(backbone, kind="off")
    edit, other, text = QUESTIONS[:3]
    again = Question("is the circle red?", edit.image, "yes")  # packed behind the same image
    record = EditRecord("a", edit, rephrase=(again,), image_rephrase=(other,), text_loc=(text,))
    store, asked = FrozenStates(editor, 2**24), draw([record])
    with torch.no_grad():
        found, rows = edited_logits(editor, store, asked, gated=False)
        with editor.edited([record.edit]):
            for a, own in zip(asked, found, strict=True):
                batch = backbone.batch([a.question], with_answers=True)
                with editor._edited(batch, None):
                    (expected,) = answer_logits(backbone.language_model, batch)
                torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)
        # With noise of size 0 the pass from kept states is the whole pass.
        passed = []
        run = influence.hidden_states
        monkeypatch.setattr(
            influence, "hidden_states", lambda lm, b: passed.append(run(lm, b)) or passed[-1]
        )
        places = rows[0].image.nonzero().flatten()[:2]
        influence.measured_influence(editor, rows[0], places, 0.0, plain=store.plain)
        batch = backbone.batch([record.edit.with_answer("")])
        whole = hidden_states(backbone.language_model, batch)
        torch.testing.assert_close(passed[0], whole.expand(3, -1, -1), rtol=1e-4, atol=1e-4)


def test_a_folder_is_a_backbone_in_half_precision_too(family):
    backbone, _, processor, folder = family
    if backbone.family == "llava":  # has a class of its own, with a plain prompt
        assert type(load_backbone(folder)) is not HFAuto
        return
    loaded = load_backbone(folder, dtype="bfloat16")
    assert loaded.family == backbone.family and loaded.fingerprint() == backbone.fingerprint()
    question = QUESTIONS[0]
    inputs = own_inputs(backbone, processor, question, [question.image])
    inputs.pop("labels", None)
    inputs = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    with torch.no_grad():
        theirs = loaded.model(**inputs).logits[0, -1].float()
        ours = loaded.answer_logits([question])[0]
    assert ours.dtype == torch.bfloat16
    assert (ours[0].float() - theirs).abs().max() < 0.05 * theirs.abs().max()
    assert len(loaded.generate(QUESTIONS, max_new_tokens=2)) == len(QUESTIONS)


@pytest.fixture
def qwen(tmp_path):
    model, processor = tiny.save("qwen2_vl", tmp_path)
    return model, processor, tmp_path


def test_each_picture_is_seen_once_and_a_changed_file_again(qwen, tmp_path, monkeypatch):
    model, processor, _ = qwen
    backbone = HFAuto("tiny", model, processor)
    seen = []
    look = backbone._look
    monkeypatch.setattr(backbone, "_look", lambda i, f: seen.append(len(f)) or look(i, f))
    path = tmp_path / "a.png"
    sized(1, 48, 64).save(path)
    asked = [Question("what color?", path), Question("where is the star?", path)]
    backbone.generate(asked)
    backbone.generate(asked)
    assert seen == [1]
    sized(2, 64, 48).save(path)
    backbone.generate(asked)
    assert seen == [1, 1]


def test_a_plain_template_in_place_of_the_chat(qwen):
    _, processor, folder = qwen
    backbone = load_backbone(folder, template="Look <image> and say: {} Answer:")
    question = Question("what color is the circle?", sized(1, 48, 48), "red")
    (segment,) = backbone.rows([question])[0].segments
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"Look {mark} and say: what color is the circle? Answer:"
    inputs = processor(text=[text], images=[question.image], return_tensors="pt")
    assert segment.ids == inputs["input_ids"][0].tolist()
    spaced = processor.tokenizer(": red")["input_ids"][1:]
    assert backbone.answer_ids("red") == spaced  # "Answer: red", where a chat says "red"
    text_only = backbone.rows([Question("what color?", None)])[0].segments[0]
    assert text_only == processor.tokenizer("what color?")["input_ids"]


def test_a_model_that_does_more_than_drive_its_decoder_is_refused(qwen):
    model, processor, _ = qwen

    class Bent(type(model)):
        def forward(self, *args, **kwargs):
            out = super().forward(*args, **kwargs)
            out.logits = out.logits.flip(-1)
            return out

    own, model.__class__ = type(model), Bent
    with pytest.raises(BackboneError, match="differ from its own"):
        HFAuto("bent", model, processor)

    class Reading(own):
        def forward(self, input_ids=None, pixel_values=None, **kwargs):
            pixels = pixel_values.roll(int(input_ids.sum()) % 97, dims=-1)
            return super().forward(input_ids=input_ids, pixel_values=pixels, **kwargs)

    model.__class__ = Reading
    with pytest.raises(BackboneError, match="depends on the question"):
        HFAuto("reading", model, processor)


def test_families_that_cannot_be_loaded_are_said(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackboneError, match="'bert' model, which transformers"):
        load_backbone(tmp_path)
    from easyedit_mm_plugins.backbones import catalog

    (tmp_path / "config.json").write_text('{"model_type": "later_vl"}')
    later = catalog.FAMILIES["qwen3_vl"].__class__("later_vl", "Later-VL", "9.1")
    monkeypatch.setitem(catalog.FAMILIES, "later_vl", later)
    with pytest.raises(BackboneError, match="Later-VL") as error:
        load_backbone(tmp_path)
    assert "transformers>=9.1" in error.value.remedy
    with pytest.raises(BackboneError, match="bitsandbytes"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        load_backbone("llava", tmp_path, bits=4)


def test_a_question_with_an_images_own_token_is_refused(qwen):
    model, processor, _ = qwen
    backbone = HFAuto("tiny", model, processor)
    with pytest.raises(DataError, match="stands for an image"):
        backbone.generate([Question("what is <|image_pad|>?", sized(1, 48, 48))])


def test_layers_are_measured_and_placed_as_answers_are(qwen):
    """What suggest-layers reads, EasyEdit's kind of forward pass, and accelerate's placement."""
    from easyedit_mm_plugins.bridge.forward import backbone_forward
    from easyedit_mm_plugins.data import EditRecord
    from easyedit_mm_plugins.papers import layer_measurements as study

    folder = qwen[2]
    backbone = load_backbone(folder, device_map={"": "cpu"})
    expected = backbone.answer_logits(QUESTIONS)
    for row, own in zip(load_backbone(folder).answer_logits(QUESTIONS), expected, strict=True):
        torch.testing.assert_close(row, own, rtol=1e-4, atol=1e-4)
    whole = backbone_forward(backbone, QUESTIONS)
    for i, own in enumerate(expected):
        places = (whole.labels[i] != -100).nonzero().flatten() - 1
        torch.testing.assert_close(whole.logits[i, places], own, rtol=1e-4, atol=1e-4)
    noise = study.noise_effects(backbone, QUESTIONS, [0.0, 1.0])
    for tokens in ("text", "visual"):
        assert max(noise[tokens, 0.0]) < 1e-4 < max(noise[tokens, 1.0])
    attention = study.attention_received(backbone, QUESTIONS)
    assert all(0 < value <= 1 for value in attention["visual"])
    records = [
        EditRecord(str(i), q, rephrase=(q,), text_loc=(QUESTIONS[2],))
        for i, q in enumerate(QUESTIONS[:2])
    ]
    found = study.gate_similarities(backbone, records, [0, 3])
    assert found[3]["last"].edited == pytest.approx([1.0, 1.0], abs=1e-4)


def test_ike_asks_through_the_chat(qwen):
    from easyedit_mm_plugins.methods.ike.config import IKEHyperParams
    from easyedit_mm_plugins.methods.ike.model import IKE

    model, processor, _ = qwen
    backbone = HFAuto("tiny", model, processor)
    editor = IKE(backbone, hparams=IKEHyperParams(model_name="tiny", k=0))
    edit, asked = QUESTIONS[0].with_answer("blue"), QUESTIONS[0]
    editor.add([edit])
    fact = f"New Fact: {edit.text} blue\nPrompt: "
    shown = Question(f"{fact}{edit.text} blue\n\n{fact}{asked.text}", None)
    inputs = own_inputs(backbone, processor, shown, [asked.image])
    (row,) = editor._rows(editor.store.now, [asked], list(editor.edits), 0)
    assert row.segments[0].ids == inputs["input_ids"][0].tolist()
    assert len(editor.generate(QUESTIONS, max_new_tokens=2)) == len(QUESTIONS)


def test_the_embedded_qwen_is_a_folder_like_any_other(tmp_path):
    """Its word-level tokenizer, pictures of their own size and chat template, as its recipe saves
    them."""
    import transformers

    from easyedit_mm_plugins.recipes.backbone import save_processor
    from easyedit_mm_plugins.recipes.small_models import build_model
    from easyedit_mm_plugins.scenes.second.tokenizer import build_tokenizer

    model = build_model("scenes-qwen").eval()
    model.save_pretrained(tmp_path)
    save_processor("scenes-qwen", build_tokenizer("scenes-qwen"), tmp_path)
    backbone = load_backbone(tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    asked = [
        Question("what color is the circle?", sized(1, 64, 96), "red"),
        Question("where is the star?", sized(2, 96, 64), "top left"),
    ]
    found = backbone.answer_logits(asked)
    for question, ours in zip(asked, found, strict=True):
        inputs = own_inputs(backbone, processor, question, [question.image], question.answer)
        assert inputs["input_ids"][0].tolist().count(backbone.image_token) == 24
        with torch.no_grad():
            theirs = model(**inputs).logits[0]
        torch.testing.assert_close(ours, theirs[-len(ours) - 1 : -1], rtol=1e-4, atol=1e-4)
