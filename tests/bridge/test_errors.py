"""Bad input through EasyEdit's classes: said early, naming the thing and the remedy."""

import pytest
import torch

from easyedit_mm_plugins.bridge import inspect_host, missing_for
from easyedit_mm_plugins.bridge.requests import bare
from easyedit_mm_plugins.core.errors import (
    BackboneError,
    CheckpointError,
    ConfigError,
    DataError,
    EasyEditMMError,
    UnknownNameError,
)
from easyedit_mm_plugins.host.models import resolve_device

from ..support.bridge_helpers import hparams_for

pytest_plugins = ["tests.support.bridge_fixtures"]

ASK = {"prompts": "what color is the circle?", "targets": "red", "image": "scene0.png"}


@pytest.fixture
def early(registered, blip2_fields, monkeypatch):
    """Builds an editor; fails the test if a model is built on the way to the error."""

    def never(*args, **kwargs):
        raise AssertionError("a model was built first")

    monkeypatch.setattr("easyedit_mm_plugins.bridge.editor.build_backbone", never)

    def build(**changes):
        return registered.editor_class.from_hparams(hparams_for(blip2_fields, **changes))

    return build


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"alg_name": "PAROT"}, UnknownNameError, "did you mean PARROT"),
        ({"model_name": "minigpt5"}, UnknownNameError, "did you mean minigpt4"),
        ({"model_name": "sceneblip2"}, UnknownNameError, "scenes-blip2"),
        ({"coco_image": "no/such/root"}, ConfigError, "coco_image=no/such/root"),
        ({"rephrase_image": "no/such/root"}, ConfigError, "rephrase_image"),
        ({"archive": "no/such/editor"}, CheckpointError, "archive=no/such/editor"),
        ({"device": "gpu"}, ConfigError, "device 'gpu'"),
    ],
)
def test_wrong_hparams_are_said_before_a_model_is_built(early, changes, error, message):
    with pytest.raises(error, match=message):
        early(**changes)


@pytest.mark.parametrize("field", ["state_dict_file", "qformer_checkpoint", "name"])
def test_missing_weights_name_field_and_remedy(registered, blip2_fields, tmp_path, field):
    hparams = hparams_for(blip2_fields, **{field: str(tmp_path / "absent.pth")})
    with pytest.raises(ConfigError, match=f"{field}=.*absent.pth.*remedy"):
        try:
            registered.editor_class.from_hparams(hparams)
        except EasyEditMMError as error:
            raise type(error)(str(error).replace("\n", " ")) from error


def test_a_broken_model_folder_is_named(registered, blip2_fields, tmp_path):
    (tmp_path / "opt").mkdir()
    with pytest.raises(BackboneError, match="does not build"):
        registered.editor_class.from_hparams(
            hparams_for(blip2_fields, name=str(tmp_path / "opt"), tokenizer_name=None)
        )


def test_transformers_5_is_named(registered, blip2_fields, monkeypatch):
    from easyedit_mm_plugins.host import requirements as doctor

    monkeypatch.setattr(doctor, "package_version", lambda package: "5.5.4")
    (missing,) = missing_for(blip2_fields)
    assert "transformers" in missing.where and "4.53.3" in missing.remedy and missing.blocking
    models = registered.module("trainer.blip2_models")

    class Broken(models.Blip2OPT):
        def __init__(self, opt_model=None, **kwargs):
            raise AttributeError("all_tied_weights_keys")

    monkeypatch.setattr(models, "Blip2OPT", Broken)
    with pytest.raises(BackboneError, match=r"4\.53\.3"):
        registered.editor_class.from_hparams(hparams_for(blip2_fields))


def test_what_doctor_is_told(registered, blip2_fields, minigpt4_fields):
    info = inspect_host()
    assert info.generation == registered.generation and info.path == registered.folder
    assert torch.__version__.startswith(info.versions["torch"]) and info.problem is None
    assert missing_for(blip2_fields) == missing_for(minigpt4_fields) == []
    lacking = {**blip2_fields, "name": "facebook/opt-2.7b", "state_dict_file": "eva_vit_g.pth"}
    lacking |= {"coco_image": "nowhere", "archive": "untrained"}
    found = {m.where.split("=")[0]: m for m in missing_for(lacking)}
    assert set(found) == {"name", "state_dict_file", "coco_image", "archive"}
    assert not found["name"].blocking and found["state_dict_file"].blocking
    assert all(m.remedy and m.what for m in found.values())
    assert missing_for({**blip2_fields, "name": "hugging_cache/opt-2.7b"})[0].blocking
    parts = {
        "scope": {"encoder": "ViT-B-32", "pretrained": "openai"},
        "counterfactual": {"lm": "a/b"},
    }
    wheres = [m.where for m in missing_for({**blip2_fields, **parts})]
    assert wheres == ["counterfactual.lm=a/b", "scope.encoder=ViT-B-32, scope.pretrained=openai"]
    assert missing_for({**blip2_fields, **parts, "archive": blip2_fields["name"]}) == []
    assert "use one of" in missing_for({"model_name": "blip3"})[0].remedy
    assert missing_for({})[0].where == "model_name"


@pytest.fixture
def editor(registered, blip2_fields):
    return registered.editor_class.from_hparams(hparams_for(blip2_fields))


def test_wrong_requests(editor, tiny, tmp_path, caplog):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    editor.backbone.clear_cache()
    two = {"prompts": ["a", "b"], "targets": ["c", "d"], "image": ["scene0.png", "scene1.png"]}
    text = {"prompt": "who", "ground_truth": "a"}
    cases = [
        ({**ASK, "image": "absent.png"}, "request 0, field image: image not found"),
        ({**two, "image": ["scene0.png", "gone.png"]}, "request 1, field image"),
        ({**ASK, "image": str(tmp_path / "broken.png")}, "cannot be decoded"),
        ({**ASK, "image": 3}, "int"),
        ({**ASK, "image": torch.full((3, 4, 4), 2.0)}, "within"),
        ({**ASK, "targets": " "}, "field targets: is empty"),
        ({**ASK, "targets": None}, "field targets"),
        ({**ASK, "prompts": ""}, "field prompts: is empty"),
        ({**two, "targets": ["c"]}, "field targets: has 1 entries for 2 prompts"),
        ({**two, "image": "scene0.png"}, "field image: has 1 entries"),
        ({**ASK, "rephrase_prompts": ["a", "b"]}, "field rephrase_prompts: has 2"),
        ({**ASK, "rephrase_image": "gone.png"}, "hparams.rephrase_image"),
        ({**ASK, "locality_inputs": {"text": {"prompt": "who"}}}, "locality_inputs.text.ground"),
        ({**ASK, "locality_inputs": {"txt": text}}, "unknown keys"),
        ({**two, "locality_inputs": {"text": text}}, "text.prompt: has 1 entries"),
        ({**ASK, "prompts": [], "targets": [], "image": []}, "no request"),
    ]
    for arguments, message in cases:
        with pytest.raises(DataError, match=message):
            editor.edit(**arguments)
        assert editor.editor.edits == {}
    editor.vis_root = None
    with pytest.raises(ConfigError, match="coco_image is not set"):
        editor.edit(**ASK)
    editor.edit(**{**ASK, "image": f"{tiny.images}/scene0.png"}, no_such_option=1)
    assert "no_such_option" in caplog.text


def test_wrong_datasets(editor):
    for dataset, message in (
        ([], "empty"),
        (5, "no dataset"),
        ([{"prompt": "a"}], "item 0, field target: is missing"),
        ([{"prompt": "a", "target": "b", "image": "gone.png"}], "gone.png"),
        (["text"], "item 0"),
    ):
        with pytest.raises((DataError, ConfigError), match=message):
            editor.edit_dataset(dataset)


def test_devices(monkeypatch):
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for value in (0, "0", "cuda", "cuda:1"):
        with pytest.warns(UserWarning, match="no CUDA"):
            assert resolve_device(value) == torch.device("cpu")
    assert resolve_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device(0) == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="1 CUDA"):
        resolve_device(3)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("Question: who? Short answer:", "who?"),
        ("Question: who? Short answer: ", "who?"),
        ("who?", "who?"),
        ("Question: who?", "Question: who?"),
        ("a photo of", "a photo of"),
    ],
)
def test_templates_are_taken_off(given, left):
    assert bare(given) == left
