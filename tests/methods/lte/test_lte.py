"""LTE as an editor: what stands before a question, which edits do, undo, files, settings."""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.backbones.splice import answer_logits, assemble
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError, DataError
from easyedit_mm_plugins.core.files import read_json, write_json
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods import METHODS, load_editor
from easyedit_mm_plugins.methods.checkpoint import change_header
from easyedit_mm_plugins.methods.factory import editor_from_settings
from easyedit_mm_plugins.methods.in_context import facts
from easyedit_mm_plugins.methods.lte import (
    LTE,
    FactReader,
    LTEHyperParams,
    LTETrainingHyperParams,
)
from easyedit_mm_plugins.methods.lte.retrieval import SelfRetrieval
from easyedit_mm_plugins.scenes.second.language import new_fact

from ...conftest import build_tiny, picture
from ...support.mscke_self_tiny import tiny_self

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("where is the star?", picture(1), "top left")
BARE = Question("what is the capital of france", None, "red")
QUERIES = [
    Question("the circle is what color?", EDIT.image, "green"),
    Question("what is the capital of france", None, "paris"),
    Question("where is the star?", OTHER.image, "bottom right"),
]
FAMILIES = ("blip2", "llava", "minigpt4")


def lte(backbone="llava", *, seed: int | None = 1, **settings) -> LTE:
    """An editor; with a seed its adapter's second matrices are drawn, so that it does something."""
    backbone = build_tiny(backbone) if isinstance(backbone, str) else backbone
    values = {"text_encoder": "words", "rank": 2, "targets": ["*layers.*"], **settings}
    editor = LTE.from_hparams(LTEHyperParams(model_name="tiny", **values), backbone)
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in editor.reader.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return editor


def scoped(backbone) -> SelfRetrieval:
    """MSCKE-Self's scope, in which a question's own words on its own picture are, and no others."""
    trained = tiny_self(backbone, 0.9)
    trained.scope.picture_threshold = 0.99999
    with torch.no_grad():
        trained.scope.log_scale.copy_(torch.tensor(1e5).log())
        trained.scope.bias.fill_(-0.9999e5)
    return SelfRetrieval(trained.backbone, trained.scope, 0.9)


# What stands before a question ----------------------------------------------------------------


def test_the_wording_is_the_one_that_the_embedded_models_have_learned():
    assert facts([EDIT]).text == new_fact(EDIT.text, EDIT.answer)
    assert facts([EDIT, BARE]).text == (
        "New Fact: what color is the circle? green\n"
        "New Fact: what is the capital of france red\nPrompt: "
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_the_facts_and_the_question_about_the_querys_picture(family):
    editor = lte(family)
    base = editor.backbone
    rows = editor.reader.rows([[EDIT, BARE], [], [OTHER]], QUERIES, stop=True)
    texts = [
        facts([EDIT, BARE]).text + QUERIES[0].text,
        base.prompt(QUERIES[1]),
        facts([OTHER]).text + QUERIES[2].text,
    ]
    for row, query, text in zip(rows, QUERIES, texts, strict=True):
        seen = None if query.image is None else base.image_features([query.image])[0]
        for ours, expected in zip(row.segments, base.splice(seen, text), strict=True):
            same = torch.equal if isinstance(expected, torch.Tensor) else lambda a, b: a == b
            assert same(ours, expected)
        assert row.answer == [*base.answer_ids(query.answer), base.stop_token_id]


def test_a_context_that_is_too_small_says_how_many_edits_fit():
    editor = lte(k=3)
    editor.add([EDIT, OTHER, BARE])
    rows = editor.reader.rows([[EDIT, OTHER, BARE][:n] for n in (1, 2)], [QUERIES[0]] * 2)
    one, two = (sum(map(len, row.segments)) for row in rows)
    config = editor.backbone.language_model.config
    config.max_position_embeddings = two + 8
    with pytest.raises(DataError) as caught:
        editor.generate(QUERIES[:1], max_new_tokens=8)
    assert re.search(r"LTE's 3 edits .* has \d+; [12] edits fit", str(caught.value))
    fits = int(re.search(r"set k: (\d)", str(caught.value)).group(1))
    editor.k = fits
    editor.generate(QUERIES[:1], max_new_tokens=8)
    config.max_position_embeddings = one - 1
    with pytest.raises(DataError, match="not even the new fact fits"):
        editor.force(QUERIES[:1])
    editor.clear()
    config.max_position_embeddings = 128
    editor.generate(QUERIES[:1])


# The contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_edit_it_is_the_base_model_to_the_bit_and_again_after_undo(family):
    editor = lte(family)
    base = editor.backbone
    weights = {n: t.clone() for n, t in base.model.state_dict().items()}
    adapter = {n: t.clone() for n, t in editor.reader.state_dict().items()}
    said, logits = base.generate(QUERIES), base.answer_logits(QUERIES)

    def unedited():
        assert [a.text for a in editor.generate(QUERIES)] == said
        for forced, row in zip(editor.force(QUERIES, top_k=5), logits, strict=True):
            assert torch.equal(forced.top_ids, row.topk(5).indices) and forced.route is None
        assert all(map(torch.equal, base.answer_logits(QUERIES), logits))

    unedited()
    with editor.edited([EDIT, OTHER, BARE]) as ids:
        answers = editor.generate(QUERIES)
        assert {a.route for a in answers} <= set(ids)
        forced = editor.force(QUERIES, top_k=5)
        assert any(
            not torch.equal(f.top_ids, row.topk(5).indices)
            for f, row in zip(forced, logits, strict=True)
        )
        # Who may see no edit is answered by the base model, beside others who do.
        mixed = editor.force(QUERIES, visible=[[], ids, []], top_k=5)
        assert [m.route is None for m in mixed] == [True, False, True]
    unedited()
    assert all(torch.equal(t, weights[n]) for n, t in base.model.state_dict().items())
    assert all(torch.equal(t, adapter[n]) for n, t in editor.reader.state_dict().items())
    assert len(editor.store.now.keys) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_equals_loop_and_rows_see_their_own_edits(family):
    editor = lte(family, k=2)
    ids = editor.add([EDIT, OTHER, BARE])
    visible = [[ids[0]], [ids[1], ids[2]], []]
    together = editor.generate(QUERIES, visible=visible)
    forced = editor.force(QUERIES, visible=visible, top_k=3)
    for i, query in enumerate(QUERIES):
        (alone,) = editor.generate([query], visible=[visible[i]])
        assert (alone.text, alone.route) == (together[i].text, together[i].route)
        (one,) = editor.force([query], visible=[visible[i]], top_k=3)
        assert torch.equal(one.top_ids, forced[i].top_ids)
    assert [a.route for a in together] == [ids[0], ids[2], None]
    assert editor.generate([]) == [] and editor.force([]) == []
    with pytest.raises(ConfigError, match="visible"):
        editor.generate(QUERIES, visible=[[]])


def test_it_answers_as_peft_does_with_the_files_that_it_writes(tmp_path):
    """An independent reference: the language model under ``peft.PeftModel.from_pretrained``."""
    import peft

    editor = lte(k=2)
    editor.add([EDIT, BARE])
    editor.save_pretrained(tmp_path, half=False)
    theirs = copy.deepcopy(editor.backbone.language_model)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").get_base_model()
    near = editor.retrieve(QUERIES)
    told = [[editor.edits[n.id] for n in own] for own in near]
    batch = assemble(editor.reader.rows(told, QUERIES, with_answers=True), editor.backbone.embed)
    with torch.no_grad():
        expected = answer_logits(theirs, batch)
    for forced, row in zip(editor.force(QUERIES, top_k=5), expected, strict=True):
        assert torch.equal(forced.top_ids, row.topk(5).indices)


# Which edits stand there ----------------------------------------------------------------------


def test_the_k_nearest_by_words_stand_before_it_always():
    editor = lte(k=2)
    ids = editor.add([EDIT, OTHER, BARE])
    embed = editor.backbone.language_model.get_input_embeddings().weight.detach()

    def vector(text):
        tokens = editor.backbone.token_ids(text, special=False)
        return torch.stack([embed[t] for t in tokens]).mean(0) - embed.mean(0)

    for query, near in zip(QUERIES, editor.retrieve(QUERIES), strict=True):
        cosines = torch.stack(
            [
                torch.cosine_similarity(vector(query.text), vector(f"{e.text} {e.answer}"), dim=0)
                for e in (EDIT, OTHER, BARE)
            ]
        )
        best = cosines.sort(descending=True)
        assert [n.id for n in near] == [ids[i] for i in best.indices[:2]]
        torch.testing.assert_close(torch.tensor([n.score for n in near]), best.values[:2])
    # However far: an edit on another picture stands before a text question, too.
    editor.remove(ids[1:])
    assert [a.route for a in editor.generate(QUERIES)] == [ids[0]] * 3


def test_of_edits_with_one_question_the_newest_stands_before_it():
    editor = lte(k=3)
    first, second, _ = editor.add([EDIT, EDIT.with_answer("blue"), OTHER])
    assert first not in [n.id for n in editor.retrieve(QUERIES[:1])[0]]
    assert editor.retrieve(QUERIES[:1], visible=[[first]])[0][0].id == first
    editor.remove([second])
    assert first in [n.id for n in editor.retrieve(QUERIES[:1])[0]]


def test_among_many_edits_the_nearest_are_found():
    editor = lte(k=3)
    words = "circle square star triangle red green blue top left right bottom".split()
    texts = [f"where is the {' '.join(some)}?" for some in itertools.product(words, repeat=3)]
    ids = editor.add([*(Question(text, None, "top") for text in texts), BARE])
    assert editor.retrieve([BARE])[0][0].id == ids[-1]
    (near,) = editor.retrieve([Question("where is the star star red?")])
    assert len(near) == 3 and editor.edits[near[0].id].text.count("star") == 2


def test_with_the_scope_of_mscke_self_only_an_edit_in_scope_stands_before_it():
    backbone = build_tiny("llava")
    text = lte(backbone, retrieval="text", k=1)
    editor = LTE(backbone, text.reader, scoped(backbone))
    base = backbone.generate(QUERIES)
    ids = editor.add([EDIT, OTHER])
    answers = editor.generate(QUERIES)
    assert [a.route for a in answers] == [None, None, ids[1]]
    assert [a.text for a in answers[:2]] == base[:2]
    text.add([OTHER])
    assert answers[2].text == text.generate(QUERIES[2:])[0].text
    assert [a.route for a in editor.generate(QUERIES, visible=[[ids[0]]] * 3)] == [None] * 3
    assert [f.route for f in editor.force(QUERIES)] == [None, None, ids[1]]


# On disk --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["text", "self"])
def test_saved_and_loaded_it_answers_the_same(tmp_path, by):
    editor = lte(k=2, alpha=3.0)
    if by == "self":
        editor = LTE(editor.backbone, editor.reader, scoped(editor.backbone), 2)
    editor.save_pretrained(tmp_path / "editor", half=False)
    again = load_editor("lte", editor.backbone, tmp_path / "editor")
    assert again.describe() == editor.describe()
    editor.add([EDIT, OTHER])
    editor.save_memory(tmp_path / "edits")
    again.load_memory(tmp_path / "edits")
    for one, two in zip(editor.force(QUERIES, top_k=4), again.force(QUERIES, top_k=4), strict=True):
        assert torch.equal(one.top_ids, two.top_ids) and one.route == two.route
    path = tmp_path / "editor/adapter/adapter_config.json"  # as peft writes many modules
    ends = {name.rpartition(".")[2] for name in read_json(path)["target_modules"]}
    write_json(path, read_json(path) | {"target_modules": sorted(ends)})
    found = FactReader.from_pretrained(path.parent, editor.backbone).state_dict()
    assert all(torch.equal(found[n], t) for n, t in editor.reader.state_dict().items())
    change_header(tmp_path / "editor")  # checksums
    settings = LTEHyperParams(
        model_name="tiny", archive=str(tmp_path / "editor"), retrieval=by, text_encoder="words", k=1
    )
    given = editor_from_settings(METHODS.get("lte"), settings, editor.backbone)
    assert given.k == 1 and given.retrieval.kind == by
    assert given.retrieval.fingerprint() == editor.retrieval.fingerprint()


def test_lte_self_is_made_of_an_lte_and_the_scope_of_a_mscke_self(tmp_path):
    editor = lte()
    editor.save_pretrained(tmp_path / "lte", half=False)
    scope = tiny_self(editor.backbone, 0.9)
    scope.save_pretrained(tmp_path / "self", half=False)
    entry = METHODS.get("lte-self")
    settings = LTEHyperParams(
        model_name="tiny", archive=str(tmp_path / "lte"), scope_of=str(tmp_path / "self")
    )
    made = editor_from_settings(entry, settings, editor.backbone)
    assert made.name == "lte-self" and made.retrieval.kind == "self"
    assert made.retrieval.threshold == 0.9
    assert made.retrieval.fingerprint() == scope.scope.fingerprint()
    parts = {"adapter": "../lte/adapter", "scope": "../self/scope"}
    made.save_pretrained(tmp_path / "joined", parts=parts)
    assert [p.name for p in (tmp_path / "joined").iterdir()] == ["config.json"]
    again = load_editor("lte-self", editor.backbone, tmp_path / "joined")
    assert again.describe() == made.describe()
    state = again.reader.state_dict()
    assert all(torch.equal(state[n], t) for n, t in editor.reader.state_dict().items())
    (tmp_path / "lte").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_editor("lte-self", editor.backbone, tmp_path / "joined")


def test_what_is_wrong_with_its_files_is_said(tmp_path):
    from easyedit_mm_plugins.methods.checkpoint import read_tensors, save_tensors

    editor = lte()
    editor.save_pretrained(tmp_path)
    adapter = tmp_path / "adapter"
    assert sorted(p.name for p in adapter.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="trained for backbone"):
        LTE.from_pretrained(tmp_path, build_tiny("blip2"))
    whole = read_tensors(adapter / "adapter_model.safetensors")
    first = next(iter(whole))
    for change, says in (
        ({first: whole[first] * float("nan")}, "not finite"),
        ({first: whole[first][:1]}, "does not fit"),
        ({"other": whole[first]}, "does not fit"),
    ):
        save_tensors(adapter / "adapter_model.safetensors", whole | change)
        with pytest.raises(CheckpointError, match=says):
            editor.reader.load(adapter)
        with pytest.raises(CheckpointError, match="damaged"):
            LTE.from_pretrained(tmp_path, editor.backbone)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        editor.reader.load(adapter)


# Settings -------------------------------------------------------------------------------------


def test_every_base_model_has_settings_for_editing_and_training():
    for entry in BACKBONES:
        assert LTEHyperParams.from_hparams(f"LTE/{entry.name}").k == 3
        LTETrainingHyperParams.from_hparams(f"LTE/{entry.name}")
    assert LTEHyperParams.from_hparams("LTE/scenes-llava").text_encoder == "words"


def test_settings_that_cannot_be_used(tmp_path):
    for changes in ({"k": 0}, {"rank": 0}, {"dropout": 2}, {"targets": []}, {"alone": -1}):
        kind = LTETrainingHyperParams if "alone" in changes else LTEHyperParams
        extra = {"max_iters": 1} if "alone" in changes else {}
        with pytest.raises(ConfigError, match=next(iter(changes))):
            kind(model_name="tiny", **extra, **changes)
    with pytest.raises(ConfigError, match="retrieval is 'selfe'; did you mean self"):
        LTEHyperParams(model_name="tiny", retrieval="selfe")
    with pytest.raises(CheckpointError, match="no trained mscke-self editor is shipped for tiny"):
        backbone = build_tiny("llava")
        backbone.name = "tiny"
        lte(backbone, retrieval="self")
    with pytest.raises(ConfigError, match=r"^targets: no linear module is called '\*fc9'"):
        lte(targets=["*fc9"])
    with pytest.raises(DataError, match="field target"):
        lte().add([Question("what?", None, " ")])
