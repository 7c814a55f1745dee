"""The embedded LoRA editors' training and shipping, at tiny size."""

from __future__ import annotations

import json

import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.methods.mscke.lora_editor import MSCKELoRA, MSCKELoRATrainingHyperParams
from easyedit_mm_plugins.recipes import job as jobs
from easyedit_mm_plugins.recipes import mscke as recipe

from ..conftest import build_tiny
from ..support.mscke_tiny import tiny_mscke, tiny_records

SETTINGS = {
    "model_name": "tiny", "batch_size": 2, "max_iters": 3, "silent": True, "val_batch_size": 2,
    "val_interval": 3, "log_interval": 1, "model_save_pt": 2, "lr": 1e-2, "opt": "AdamW",
}  # fmt: skip
ADAPTER = {"kind": "lora", "rank": 2, "targets": ["*layers.*"]}


def test_two_stages_and_what_is_shipped(tmp_path, monkeypatch):
    assets, out = tmp_path / "assets", tmp_path / "out"
    records = tiny_records(5)
    settings = MSCKELoRATrainingHyperParams(**SETTINGS, counterfactual=ADAPTER)
    monkeypatch.setattr(jobs, "training_settings", lambda *_: settings)
    monkeypatch.setattr(jobs, "split_records", lambda *_, **__: (records[:3], records[3:]))
    monkeypatch.setattr(recipe, "LORA_STAGES", ({}, {"max_iters": 2, "scope_questions": 2}))
    backbone, job = build_tiny("llava"), jobs.Job(out, mscke=assets)
    with pytest.raises(CheckpointError, match="mscke-tiny-llava"):
        recipe.train_lora("mscke-lora", backbone, job)
    # the classifier lies in another backbone's editor, as scenes-minigpt4's does
    mscke = tiny_mscke("llava")
    mscke.save_pretrained(assets / "mscke-first", half=False)
    mscke.save_pretrained(assets / "mscke-tiny-llava", parts={"scope": "../mscke-first/scope"})
    folder = recipe.train_lora("mscke-lora", backbone, job)
    assert folder.name == "mscke-lora-tiny-llava"
    steps = [
        json.loads((out / f"run-{folder.name}-{n}/history.json").read_text())[-1]["step"]
        for n in (1, 2)
    ]
    assert steps == [3, 2]
    written = (folder / "config.json").stat().st_mtime_ns
    assert recipe.train_lora("mscke-lora", backbone, job) == folder  # finished: kept
    assert (folder / "config.json").stat().st_mtime_ns == written
    shipped = assets / folder.name
    jobs.ship(folder, shipped)
    assert sorted(p.name for p in shipped.iterdir()) == ["config.json", "counterfactual"]
    for at, path in ((folder, "../../assets/mscke-first/scope"), (shipped, "../mscke-first/scope")):
        assert json.loads((at / "config.json").read_text())["parts"] == {"scope": path}
        editor = MSCKELoRA.from_pretrained(at, backbone)
        assert editor.scope.fingerprint() == mscke.scope.fingerprint()
    learned = [p for n, p in editor.counterfactual.named_parameters() if "lora_B" in n]
    assert learned and any(torch.count_nonzero(p) for p in learned)
