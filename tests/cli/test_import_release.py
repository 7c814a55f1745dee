"""A checkpoint laid out as the release writes it becomes an editor that answers as it did."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.core.errors import BackboneError, CheckpointError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods import load_editor
from easyedit_mm_plugins.methods.mscke.release_import import import_release, read_release

from ..conftest import build_tiny, picture
from ..support.release_tiny import Reference, clip_folder

EDIT = Question("what color is the circle?", picture(0), "green")
ASKED = Question("where is the star?", picture(1), "top left")


class Unsafe:
    """An object of a class that nobody vouches for."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """CLIP and OPT folders, and the released state dict made of both, with new weights."""
    from transformers import CLIPModel, OPTConfig, OPTForCausalLM

    root = tmp_path_factory.mktemp("release")
    clip, trained = clip_folder(root / "clip"), clip_folder(root / "trained", seed=5)
    base = build_tiny("blip2")
    torch.manual_seed(1)
    config = OPTConfig(
        vocab_size=base.vocab_size, hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=1,
        num_attention_heads=2, ffn_dim=16, max_position_embeddings=96, init_std=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(root / "opt")
    lm = OPTForCausalLM(config)
    lm.resize_token_embeddings(base.vocab_size + 1)  # EasyEdit adds a separator
    with torch.no_grad():
        lm.model.decoder.embed_tokens.weight.normal_(std=0.3)
    projection = torch.nn.Linear(16, 16)  # from the Q-Former's size
    state = {
        f"classifier.{k}": v for k, v in CLIPModel.from_pretrained(trained).state_dict().items()
    }
    state["classifier.text_model.embeddings.position_ids"] = torch.arange(24)[None]  # old versions
    state |= {f"replacement.{k}": v for k, v in lm.state_dict().items()}
    state |= {f"language_projection.{k}": v for k, v in projection.state_dict().items()}
    state["scale"] = torch.tensor(1.0)
    return {
        "state": {k: v.clone() for k, v in state.items()},
        "clip": clip, "trained": trained, "opt": str(root / "opt"),
        "lm": lm.eval(), "projection": projection, "config": config,
    }  # fmt: skip


@pytest.fixture
def checkpoint(parts, tmp_path):
    """Writes a checkpoint whose state dict is changed by the test."""

    def write(drop=(), **extra):
        state = {k: v for k, v in parts["state"].items() if k not in drop} | extra
        path = tmp_path / "release.pt"
        torch.save({"model": state, "opt": {"state": {}}, "val_stats": {"loss": 1.0}}, path)
        return path

    return write


def load(path, parts, backbone=None):
    return import_release(
        path, backbone or build_tiny("blip2"), clip=parts["clip"], lm=parts["opt"]
    )


def test_routing_and_answers_are_the_checkpoints(checkpoint, parts, tmp_path):
    editor = load(checkpoint(model_config=None), parts)
    base = editor.backbone
    assert editor.describe()["fusion"] == "released" and editor.threshold == 0.5
    expected = Reference(parts["trained"]).scores([EDIT], [ASKED])[0, 0].item()
    editor.add([EDIT])
    assert editor.route([ASKED])[0].score == pytest.approx(expected, abs=1e-5)

    # The release's row: [language_projection(Q-Former)] edit with answer, query, answer.
    with torch.no_grad():
        states = base.vision(base.pixels([ASKED.image]))
        queries = base.model.query_tokens.expand(1, -1, -1)
        queried = base.qformer(query_embeds=queries, encoder_hidden_states=states)
        image = parts["projection"](queried.last_hidden_state)
        ids = base.token_ids(
            "Question: what color is the circle? Short answer: green "
            "Question: where is the star? Short answer: top left",
            special=False,
        )
        words = parts["lm"].get_input_embeddings()(torch.tensor([ids]))
        logits = parts["lm"](inputs_embeds=torch.cat([image, words], 1)).logits
        found = editor.counterfactual.answer_logits([EDIT], [ASKED])[0]
    assert torch.allclose(found, logits[0, -3:-1, : base.vocab_size], atol=1e-4)

    editor.clear()
    editor.save_pretrained(tmp_path / "editor", half=False)
    loaded = load_editor("mscke", build_tiny("blip2"), tmp_path / "editor")
    loaded.add([EDIT])
    assert loaded.route([ASKED])[0].score == pytest.approx(expected, abs=1e-6)
    again = loaded.counterfactual.answer_logits([EDIT], [ASKED])[0]
    assert torch.allclose(again, found, atol=1e-5)
    assert len(loaded.generate([ASKED, Question("what is the capital of france?")])) == 2


def test_the_configuration_that_the_release_puts_into_the_file_is_read_without_running_code(
    checkpoint, parts
):
    assert hasattr(torch.serialization, "safe_globals")
    tensors = read_release(checkpoint(model_config=parts["config"]))
    assert set(tensors) == set(parts["state"])


def test_other_objects_are_refused_with_the_way_out(checkpoint):
    with pytest.raises(CheckpointError, match=r"Unsafe.*\n.*save its tensors again"):
        read_release(checkpoint(model_config=Unsafe()))


def test_on_minigpt4_the_base_models_image_is_taken_as_it_is(checkpoint, parts):
    from transformers import OPTConfig, OPTForCausalLM

    base = build_tiny("minigpt4")
    size = base.hidden_size
    config = OPTConfig(**{**parts["config"].to_dict(), "hidden_size": size})
    config.word_embed_proj_dim = size
    lm = OPTForCausalLM(config)
    drop = [k for k in parts["state"] if k.startswith("replacement.")]
    state = {f"replacement.{k}": v for k, v in lm.state_dict().items()}
    lm.save_pretrained(folder := f"{parts['opt']}-wide")
    path = checkpoint(drop=drop, **state)
    editor = import_release(path, base, clip=parts["clip"], lm=folder)
    (row,) = editor.counterfactual.rows([EDIT], [ASKED])
    before, image, _, words = row.segments
    assert torch.allclose(image, base.image_features([ASKED.image])[0])
    assert before == base.token_ids("###Human: <Img>", special=False)
    assert words[:3] == base.token_ids("Question: what", special=False)


def test_released_cross_fusion_is_recognised(checkpoint, parts):
    torch.manual_seed(0)
    cross = {}
    for name, width in (("text", 12), ("image", 12), ("output", 10)):
        linear = torch.nn.Linear(width, 5)
        cross |= {f"cross_attend.{name}_projection.{k}": v for k, v in linear.state_dict().items()}
    editor = load(checkpoint(**cross), parts)
    assert editor.scope.config.fusion == "released-cross" and editor.scope.config.dim == 5
    weight = cross["cross_attend.output_projection.weight"]
    assert torch.equal(editor.scope.fusion.output_projection.weight, weight)


HEAD = "classifier.visual_projection.weight"


@pytest.mark.parametrize(
    ("drop", "extra", "says"),
    [
        ([HEAD], {}, "lacks 'visual_projection.weight'"),
        (
            [HEAD],
            {"classifier.visual_projektion.weight": torch.zeros(12, 16)},
            "did you mean visual_projektion.weight",
        ),
        ([], {"classifier.text_model.extra": torch.zeros(1)}, "also has 'text_model.extra'"),
        ([], {"replacements.x": torch.zeros(1)}, "replacements.x.*did you mean replacement."),
        ([HEAD], {HEAD: torch.zeros(7, 16)}, r"'visual_projection.weight' is \[7, 16\]"),
        (["language_projection.bias"], {}, "lacks language_projection"),
        (["scale"], {"scale": torch.tensor(2.0)}, "scale is 2.0"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint, parts, drop, extra, says):
    with pytest.raises(CheckpointError, match=f"release.pt.*{says}"):
        load(checkpoint(drop=drop, **extra), parts)


def test_a_checkpoint_without_its_counterfactual_model(checkpoint, parts):
    drop = [k for k in parts["state"] if k.startswith("replacement.")]
    with pytest.raises(CheckpointError, match="freeze_cntr"):
        load(checkpoint(drop=drop), parts)


def test_another_base_model(checkpoint, parts):
    with pytest.raises(BackboneError, match=r"tiny-llava.*Q-Former"):
        load(checkpoint(), parts, build_tiny("llava"))


def test_files_that_are_no_checkpoint(tmp_path, parts):
    with pytest.raises(CheckpointError, match="does not exist"):
        read_release(tmp_path / "none.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(CheckpointError, match=r"cut\.pt"):
        read_release(tmp_path / "cut.pt")
    torch.save({"model": {"edit_lrs": torch.zeros(1)}}, tmp_path / "mend.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of MSCKE's release"):
        read_release(tmp_path / "mend.pt")
    with pytest.raises(BackboneError, match="nowhere"):
        torch.save({"model": parts["state"]}, tmp_path / "good.pt")
        import_release(
            tmp_path / "good.pt", build_tiny("blip2"), clip=f"{tmp_path}/nowhere", lm=parts["opt"]
        )


def test_the_command(checkpoint, parts, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from easyedit_mm_plugins.backbones.entries import BACKBONES
    from easyedit_mm_plugins.cli.app import app

    BACKBONES.add(name="tiny-blip2", loader=lambda source=None, **_: build_tiny("blip2"))
    try:
        out = str(tmp_path / "editor")
        result = CliRunner().invoke(
            app,
            f"import-release {checkpoint()} --backbone tiny-blip2 --out {out} "
            f"--clip {parts['clip']} --lm {parts['opt']}",
            catch_exceptions=False,
        )
    finally:
        BACKBONES.unregister("tiny-blip2")
    assert result.exit_code == 0
    assert load_editor("mscke", build_tiny("blip2"), out).scope.config.fusion == "released"
