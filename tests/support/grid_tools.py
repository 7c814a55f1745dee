"""Backbones, methods and records for tests of grids: tiny, by name, here and in other processes."""

from __future__ import annotations

import json
import textwrap

import pytest

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.evaluation.grid import BackboneSpec, DataSpec, Grid
from easyedit_mm_plugins.methods.base import Answer, Unedited
from easyedit_mm_plugins.methods.entries import METHODS

from ..conftest import build_tiny, picture
from .evaluation_fakes import FakeBackbone, Remembering


def write_cases(folder, n=5):
    """``n`` records in the FGVEdit schema with E-VQA's fields, and their pictures."""
    for i in range(n + 1):
        picture(i).save(folder / f"{i}.png")
    records = [
        {
            "case_id": f"c{i}",
            "src": "what color is the circle?",
            "alt": "green",
            "rephrase": "the circle is what color?",
            "image": f"{i}.png",
            "image_rephrase": f"{i + 1}.png",
            "fg_gen_q": "is the circle green?",
            "fg_gen_a": "yes",
            "fg_loc_q": "what color is the square?",
            "fg_loc_a": "red",
            "loc": "what is the capital of france?",
            "loc_ans": "paris",
            "m_loc": f"{(i + 1) % n}.png",
            "m_loc_q": "how many stars?",
            "m_loc_a": "two",
        }
        for i in range(n)
    ]
    path = folder / "cases.json"
    path.write_text(json.dumps(records))
    return path


def save_tiny(folder):
    """A model folder with random weights, for processes that load it by its path."""
    backbone = build_tiny("llava")
    for part in (backbone.model, backbone.tokenizer, backbone.image_processor):
        part.save_pretrained(folder)
    return folder


class Oracle(Remembering):
    """Knows every case of ``cases.json`` in the working folder."""

    name = "oracle"

    def __init__(self, backbone):
        super().__init__(backbone, FGVEditDataset("cases.json", check="off").records)


class Broken(Unedited):
    """A method that does not come into being."""

    name = "broken"

    def __init__(self, backbone):
        raise ValueError("does not fit\nthis | backbone")


class Halfway(Unedited):
    """Fails in the middle; ``Halfway.mended`` lets it go on."""

    name = "halfway"
    isolates_rows = False
    mended = False

    def generate(self, questions, **kwargs):
        if not self.mended and any("3.png" in str(q.image) for q in questions):
            raise RuntimeError("lost its way")
        return super().generate(questions, **kwargs)


class Hungry(Unedited):
    """Takes three cases' worth of memory and no more."""

    name = "hungry"
    most = 12

    def generate(self, questions, **kwargs):
        if len(questions) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return [Answer(text) for text in self.backbone.generate(questions)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Five cases in a fresh working folder, fake backbones "one" and "two", methods by name."""
    monkeypatch.chdir(tmp_path)
    write_cases(tmp_path)
    made: list[FakeBackbone] = []

    def load(source=None, **kwargs):
        made.append(FakeBackbone(source or "blue"))
        return made[-1]

    methods = (Oracle, Broken, Halfway, Hungry)
    for name in ("one", "two"):
        BACKBONES.add(name=name, loader=load)
    for method in methods:
        METHODS.add(name=method.name, editor=method)
    monkeypatch.setattr(Halfway, "mended", False)
    yield made
    for name in ("one", "two"):
        BACKBONES.unregister(name)
    for method in methods:
        METHODS.unregister(method.name)


def grid(*methods, backbones=("one",), data=("cases.json",), **options):
    """A grid in this process."""
    return Grid(
        list(methods),
        [b if isinstance(b, BackboneSpec) else BackboneSpec.parse(b) for b in backbones],
        [d if isinstance(d, DataSpec) else DataSpec(d) for d in data],
        **{"processes": 0, **options},
    )


PLUGIN = """
import os, signal
from easyedit_mm_plugins.methods.base import Unedited

class Deadly(Unedited):
    name = "deadly"
    def generate(self, questions, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def install_plugin(folder):
    """Another package's method "deadly", found by its entry point; ``folder`` is on the path."""
    (folder / "deadly_plugin.py").write_text(textwrap.dedent(PLUGIN))
    info = folder / "deadly_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[easyedit_mm_plugins.methods]\ndeadly = deadly_plugin:Deadly\n"
    )
