"""The embedded MEND and MSCKE-MEND editors' training, at tiny size."""

from __future__ import annotations

import json

import pytest

from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.methods.mend import (
    MSCKEMEND,
    MendTrainingHyperParams,
    MSCKEMENDTrainingHyperParams,
)
from easyedit_mm_plugins.recipes import job as jobs
from easyedit_mm_plugins.recipes import mend as recipe

from ..conftest import build_tiny
from ..support.mscke_tiny import tiny_mscke, tiny_records

LOOP = {
    "model_name": "tiny", "batch_size": 2, "max_iters": 2, "val_interval": 1, "log_interval": 1,
    "model_save_pt": 1, "val_batch_size": 2, "silent": True,
}  # fmt: skip
NETWORK = {"inner_params": ["layers.-1.mlp.*", "connector.*"], "rank": 2, "edit_lr": -0.01}


def test_it_goes_on_and_takes_the_classifier_of_an_mscke_editor(tmp_path, monkeypatch):
    backbone, records = build_tiny("llava"), tiny_records(5)
    settings = {
        "mend": MendTrainingHyperParams(**LOOP, **NETWORK, early_stop_key="right/specificity"),
        "mscke-mend": MSCKEMENDTrainingHyperParams(
            **LOOP, counterfactual={"kind": "mend", "mend": NETWORK}
        ),
    }
    monkeypatch.setattr(jobs, "training_settings", lambda method, _: settings[method])
    monkeypatch.setattr(jobs, "split_records", lambda *_, **__: (records[:3], records[3:]))
    root = tmp_path / "mscke"
    job = jobs.Job(tmp_path / "out", steps=2, mscke=root)
    with pytest.raises(CheckpointError, match="mscke-tiny-llava"):
        recipe.train_mscke_mend("mscke-mend", backbone, job)
    # the classifier lies in another backbone's editor, as scenes-minigpt4's does
    mscke = tiny_mscke("llava")
    mscke.save_pretrained(root / "mscke-first")
    mscke.save_pretrained(root / "mscke-tiny-llava", parts={"scope": "../mscke-first/scope"})
    joined = recipe.train_mscke_mend("mscke-mend", backbone, job)
    history = json.loads((job.out / "run-in-scope-tiny-llava/history.json").read_text())
    assert "right/in_scope" in history[-1]
    kept = [job.out / f"{name}-tiny-llava/config.json" for name in ("begun", "in-scope")]
    written = [path.stat().st_mtime_ns for path in kept]
    assert recipe.train_mscke_mend("mscke-mend", backbone, job) == joined
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert sorted(p.name for p in joined.iterdir()) == ["config.json", "counterfactual"]
    parts = json.loads((joined / "config.json").read_text())["parts"]
    assert parts == {"scope": "../../mscke/mscke-first/scope"}
    alone = recipe.train_mend("mend", backbone, job)
    assert [path.stat().st_mtime_ns for path in kept] == written
    steps = [
        json.loads((job.out / f"run-{name}-tiny-llava/history.json").read_text())[-1]["step"]
        for name in ("mend", "in-scope")
    ]
    assert steps == [2, 2] and (alone / "config.json").is_file()  # as much training for both
    editor = MSCKEMEND.from_pretrained(joined, backbone)
    assert next(iter(editor.counterfactual.editor.modules)) == "layers.1.mlp.gate_proj"
