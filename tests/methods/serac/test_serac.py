"""SERAC runs EasyEdit's own scope code; what stands in for the rest keeps the Editor contract."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import BridgeError, CheckpointError, ConfigError, TrainingError
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.host import easyedit as host
from easyedit_mm_plugins.methods.mscke import Counterfactual
from easyedit_mm_plugins.methods.mscke.losses import draw, scope_total
from easyedit_mm_plugins.methods.serac.model import SERAC
from easyedit_mm_plugins.methods.training_run import training_settings
from easyedit_mm_plugins.recipes.serac import ClassifierTrainer, small_bert, text_losses

from ...conftest import build_tiny, picture
from ...support.mscke_tiny import tiny_mscke

try:
    host.locate()
except BridgeError as error:
    pytest.skip(f"EasyEdit: {error.message}", allow_module_level=True)

EDIT = Question("what color is the circle?", picture(0), "green")
OTHER = Question("where is the star?", picture(1), "top left")
ASKED = [
    Question("which color is the circle?", picture(0), "green"),
    Question("what is the capital of france?", None, "paris"),
    Question("where is the star?", picture(1), "bottom right"),
]


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}


class Echo:
    """A counterfactual model that answers with the edit's own answer."""

    kind = "echo"

    def __init__(self, backbone):
        self.backbone = backbone

    def generate(self, edits, queries, *, max_new_tokens=8, **kwargs):
        return [e.answer for e in edits]

    def answer_logits(self, edits, queries):
        size = self.backbone.vocab_size
        rows = [self.backbone.answer_ids(q.answer) for q in queries]
        return [torch.nn.functional.one_hot(torch.tensor(r), size).float() for r in rows]

    top_ids = Counterfactual.top_ids

    def describe(self):
        return {"kind": self.kind}


@pytest.fixture
def serac():
    backbone = build_tiny("llava")
    torch.manual_seed(0)
    classifier, tokenizer = small_bert(backbone, hidden_size=16, intermediate_size=16)
    return SERAC(backbone, classifier, tokenizer, Echo(backbone))


def test_scores_are_easyedits_own(serac):
    """The score equals exp(-|a - b|^2) of the classifier's first positions, computed by hand."""
    serac.add([EDIT, OTHER])
    question = ASKED[0]
    generation = host.load().generation
    contexts = [serac.edit_text(e) for e in (EDIT, OTHER)]
    if generation == "pypi":
        sep = serac.classifier_tok.sep_token
        contexts = [
            f"{c}{sep}{e.answer}{sep}" for c, e in zip(contexts, (EDIT, OTHER), strict=True)
        ]

    def first(texts):
        tokens = serac.classifier_tok(texts, return_tensors="pt", padding=True)
        return serac.classifier(**tokens).last_hidden_state[:, 0]

    with torch.no_grad():
        distance = (first(contexts) - first([serac.backbone.prompt(question)])).norm(dim=-1)
    expected = torch.exp(-(distance**2))
    hit = serac.route([question])[0]
    assert hit.score == pytest.approx(expected.max().item(), rel=1e-4)
    assert hit.id == serac.route([question], visible=[["e1", "e2"]])[0].id
    alone = serac.route([question] * 2, visible=[["e1"], ["e2"]])
    assert [h.id for h in alone] == ["e1", "e2"]
    assert [h.score for h in alone] == pytest.approx(expected.tolist(), rel=1e-4)


def test_unlike_easyedits_executor_it_keeps_every_edit_and_draws_no_random_number(serac):
    state = torch.random.get_rng_state()
    serac.add([EDIT])
    serac.add([OTHER])
    serac.route(ASKED)
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(serac.edits.values()) == [EDIT, OTHER]


def test_route_decides_and_undo_is_exact(serac):
    before = serac.backbone.generate(ASKED)
    weights = {k: v.clone() for k, v in serac.backbone.model.state_dict().items()}
    with serac.edited([EDIT]):
        scores = [h.score for h in serac.route(ASKED)]
        serac.threshold = sorted(scores)[1]
        answers = serac.generate(ASKED)
        assert [a.route for a in answers].count("e1") == 2
        for answer, score, base in zip(answers, scores, before, strict=True):
            assert answer.text == ("green" if score >= serac.threshold else base)
        assert serac.generate(ASKED, visible=[[], [], []])[0].text == before[0]
        forced = serac.force(ASKED)
        assert [f.route for f in forced] == [a.route for a in answers]
    assert not serac.edits
    assert [a.text for a in serac.generate(ASKED)] == before
    assert all(torch.equal(v, weights[k]) for k, v in serac.backbone.model.state_dict().items())


def test_threshold_out_of_range(serac):
    for value in (-0.1, 1.5, "high"):
        with pytest.raises(ConfigError, match="threshold"):
            serac.threshold = value


def records():
    return [
        EditRecord(
            case_id=str(i),
            edit=Question(f"what color is the {shape}?", picture(i), "green"),
            rephrase=(Question(f"which color is the {shape}?", picture(i), "green"),),
            out_scope=(Question(f"where is the {shape}?", picture(i), "top left"),),
            text_loc=(Question("what is the capital of france?", None, "paris"),),
        )
        for i, shape in enumerate(["circle", "square", "star", "triangle"])
    ]


def train(folder, backbone, steps, lr):
    """A SERAC after some steps on four records."""
    settings = training_settings("mscke", "scenes-llava").replace(
        train="scope", max_iters=steps, lr=lr, batch_size=4, warmup=0, val_interval=steps
    )
    torch.manual_seed(0)
    serac = SERAC(backbone, *small_bert(backbone, **TINY), None)
    trainer = ClassifierTrainer(serac, records(), records(), settings, folder)
    trainer.run()
    return serac, trainer


def loss_of(serac, settings):
    with torch.no_grad():
        return float(scope_total(text_losses(serac, draw(records(), 3))[0], settings))


def test_training_lowers_the_loss_and_survives_a_round_trip(tmp_path):
    backbone = build_tiny("llava")
    trained, trainer = train(tmp_path / "run", backbone, 100, 1e-2)
    fresh, _ = train(tmp_path / "fresh", backbone, 1, 1e-9)
    assert loss_of(trained, trainer.hparams) < 0.5 * loss_of(fresh, trainer.hparams)
    trained.save_pretrained(tmp_path / "serac", half=False)
    loaded = SERAC.from_pretrained(tmp_path / "serac", backbone, counterfactual=Echo(backbone))
    for editor in (trained, loaded):
        editor.add([EDIT])
    assert [h.score for h in loaded.route(ASKED)] == pytest.approx(
        [h.score for h in trained.route(ASKED)], rel=1e-5
    )


def test_the_loss_is_mscke_s_on_what_a_text_can_tell():
    """Eq. 11 on the pairs that MSCKE's classifier gets, computed here one by one."""
    backbone = build_tiny("llava")
    serac = SERAC(backbone, *small_bert(backbone, **TINY), None)
    drawn = draw(records(), 3)
    losses, routed = text_losses(serac, drawn)
    assert set(losses) == set(routed) == {"edit", "rephrase", "out_scope", "text_loc"}
    for kind, inside in (("rephrase", True), ("out_scope", False)):
        values = []
        for query in (q for q in drawn.queries if q.kind == kind):
            rho = serac.log_similarity([drawn.edits[query.record]], [query.question]).exp()
            values.append(-torch.log(rho if inside else 1 - rho))
        assert float(losses[kind]) == pytest.approx(float(torch.stack(values).mean()), rel=1e-3)


def test_bad_folders_and_learning_rates_are_named(tmp_path):
    backbone = build_tiny("llava")
    with pytest.raises(CheckpointError, match="is not a folder"):
        SERAC.from_pretrained(tmp_path / "nowhere", backbone, counterfactual=Echo(backbone))
    with pytest.raises(TrainingError, match="step"):
        train(tmp_path / "run", backbone, 40, 1e30)


def test_the_counterfactual_model_of_an_mscke_folder_is_checked_and_taken(tmp_path):
    mscke = tiny_mscke()
    backbone, folder = mscke.backbone, tmp_path / "mscke"
    mscke.save_pretrained(folder, half=False)
    SERAC(backbone, *small_bert(backbone, **TINY), None).save_pretrained(tmp_path / "serac")
    (folder / "scope" / "config.json").write_text("{}")  # none of SERAC's business
    loaded = SERAC.from_pretrained(tmp_path / "serac", backbone, counterfactual=folder)
    assert loaded.counterfactual.describe() == mscke.counterfactual.describe()
    weights = folder / "counterfactual" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1  # still a number
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"counterfactual/model\.safetensors is damaged"):
        SERAC.from_pretrained(tmp_path / "serac", backbone, counterfactual=folder)
