"""Fixtures of the bridge's tests: a real EasyEdit (PyPI release, or EASYEDIT_ROOT's checkout)."""

import logging
import types
import warnings

import pytest
import torch

from easyedit_mm_plugins.bridge import host as host_module
from easyedit_mm_plugins.errors import BridgeError

from . import easyedit_tiny

__all__ = ["_built", "blip2_fields", "easyedit_backbone", "host", "minigpt4_fields", "scenes", "tiny"]

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The EasyEdit of this process; tests are skipped where there is none."""
    try:
        host_module.locate()
    except BridgeError as error:
        pytest.skip(f"needs EasyEdit: {error.message}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = host_module.load()
    logging.getLogger("easyeditor").setLevel(logging.ERROR)
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
    from easyedit_mm_plugins.bridge.models import build_backbone

    with easyedit_tiny.small_vit():
        return {
            fields["model_name"]: build_backbone(host, types.SimpleNamespace(**fields))
            for fields in (blip2_fields, minigpt4_fields)
        }


@pytest.fixture(params=["blip2", "minigpt4"])
def easyedit_backbone(request, _built):
    """EasyEdit's BLIP-2 and MiniGPT-4 as backbones."""
    return _built[request.param]
