"""`easyedit-mm train --method mend|mscke-mend`."""

from __future__ import annotations

import json

import pytest
import yaml

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.core.errors import UnknownNameError
from easyedit_mm_plugins.methods.mend import MSCKEMEND, Mend
from easyedit_mm_plugins.methods.training_run import train_editor, trainable

from ..conftest import build_tiny, picture
from ..support.mscke_tiny import tiny_encoder

LOOP = {
    "model_name": "tiny", "batch_size": 2, "max_iters": 2, "val_interval": 1, "log_interval": 1,
    "model_save_pt": 1, "val_batch_size": 2,
}  # fmt: skip
NETWORK = {"inner_params": ["layers.-1.mlp.*", "connector.*"], "rank": 2, "edit_lr": -0.01}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A registered backbone "tiny" and a data file with five records, in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    cases = []
    for i in range(5):
        picture(i).save(tmp_path / f"{i}.png")
        cases.append(
            {
                "src": "what color is the circle?",
                "alt": "green",
                "rephrase": "the circle is what color?",
                "image": f"{i}.png",
                "fg_gen_q": "is the circle green?",
                "fg_gen_a": "yes",
                "fg_loc_q": "what color is the square?",
                "fg_loc_a": "red",
                "loc": "what is the capital of france?",
                "loc_ans": "paris",
            }
        )
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    BACKBONES.add(name="tiny", loader=lambda source=None, **kwargs: build_tiny("llava"))
    yield tmp_path
    BACKBONES.unregister("tiny")


@pytest.mark.parametrize("method", ["mend", "mscke_mend"])
def test_training_from_the_command_line(tiny, method):
    from easyedit_mm_plugins.recipes.scenes_clip import save_encoder

    if method == "mend":
        settings, cls = {**LOOP, "alg": "MEND", **NETWORK}, Mend
    else:
        save_encoder(tiny_encoder(), tiny / "clip")
        settings, cls = (
            {
                **LOOP,
                "alg": "MSCKE-MEND",
                "scope": {"encoder": str(tiny / "clip"), "pretrained": None, "dim": 8},
                "counterfactual": {"kind": "mend", "mend": NETWORK},
            },
            MSCKEMEND,
        )
    (tiny / "tiny.yaml").write_text(yaml.safe_dump(settings))
    best, _ = train_editor(
        method, "tiny", out=tiny / "o", data="cases.json", val=2, hparams=tiny / "tiny.yaml"
    )
    editor = cls.from_pretrained(best, build_tiny("llava"))
    assert editor.describe() and json.loads((tiny / "o/history.json").read_text())


def test_a_method_without_a_trainer_is_named_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean mend"):
        trainable("mnd")
