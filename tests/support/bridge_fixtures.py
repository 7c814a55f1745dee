"""Fixtures of the bridge's tests: a real EasyEdit (PyPI release, or EASYEDIT_ROOT's checkout)."""

import json
import os
import types
import warnings

import pytest
import torch
import transformers

from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.host import easyedit as host_module

from . import easyedit_tiny
from .bridge_helpers import tiny_clip

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def host():
    """The EasyEdit of this process; tests are skipped where there is none."""
    try:
        host_module.locate()
    except BridgeError as error:
        if os.environ.get(host_module.ENV):  # asked for: its absence is a failure
            raise
        pytest.skip(f"needs EasyEdit: {error.message}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = host_module.load()
    transformers.utils.logging.set_verbosity_error()
    return found


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folders for EasyEdit's models at tiny size."""
    return easyedit_tiny.build(tmp_path_factory.mktemp("tiny") / "models")


@pytest.fixture
def scenes(tiny):
    """Paths of two pictures."""
    return [f"{tiny.images}/scene0.png", f"{tiny.images}/scene1.png"]


@pytest.fixture(scope="session")
def blip2_fields(tiny):
    return easyedit_tiny.fields(tiny, "blip2")


@pytest.fixture(scope="session")
def minigpt4_fields(tiny):
    return easyedit_tiny.fields(tiny, "minigpt4")


@pytest.fixture(scope="session")
def _built(host, blip2_fields, minigpt4_fields):
    from easyedit_mm_plugins.host.models import build_backbone

    with easyedit_tiny.small_vit():
        return {
            fields["model_name"]: build_backbone(host, types.SimpleNamespace(**fields))
            for fields in (blip2_fields, minigpt4_fields)
        }


@pytest.fixture(params=["blip2", "minigpt4"])
def easyedit_backbone(request, _built):
    """EasyEdit's BLIP-2 and MiniGPT-4 as backbones."""
    return _built[request.param]


@pytest.fixture
def registered(host):
    """The plugin's methods and two of the tests' own are in EasyEdit, and out again afterwards."""
    from easyedit_mm_plugins import bridge
    from easyedit_mm_plugins.methods.entries import METHODS

    from .bridge_editors import Changer, Parrot

    METHODS.add(name="parrot", editor=Parrot, easyedit="PARROT")
    METHODS.add(name="changer", editor=Changer, easyedit="CHANGER")
    bridge.unregister()
    bridge.register()
    try:
        with easyedit_tiny.small_vit():
            yield host
    finally:
        bridge.unregister()
        METHODS.unregister("parrot")
        METHODS.unregister("changer")


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def mscke_fields(clip_folder):
    """The method's part of tiny MSCKE hparams."""
    from .mscke_tiny import TINY_OPT

    return {
        "scope": {"encoder": clip_folder, "pretrained": None, "dim": 8},
        "counterfactual": {"kind": "small-lm", "lm": {**TINY_OPT, "max_position_embeddings": 256}},
    }


@pytest.fixture
def fgvedit(tiny, tmp_path):
    records = [
        {
            "src": "what color is the circle?",
            "alt": answer,
            "rephrase": "please what color is the circle?",
            "image": f"scene{i % 3}.png",
            "fg_gen_q": "what color is the small thing?",
            "fg_gen_a": answer,
            "fg_loc_q": "what color is the square?",
            "fg_loc_a": "blue",
            "loc": "who wrote the question",
            "loc_ans": "human",
        }
        for i, answer in enumerate(["red", "green", "blue", "yellow", "red"])
    ]
    path = tmp_path / "fgvedit.json"
    path.write_text(json.dumps(records))
    return FGVEditDataset(path, image_root=tiny.images)
