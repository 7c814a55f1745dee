"""The embedded LoRA editors' training and shipping, at tiny size."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.methods.mscke.lora_editor import MSCKELoRA
from easyedit_mm_plugins.recipes import mscke_lora as train_lora

from ..conftest import build_tiny
from ..support.mscke_tiny import tiny_mscke, tiny_records

SETTINGS = {
    "model_name": "tiny", "alg": "MSCKE-LORA", "batch_size": 2, "max_iters": 3, "silent": True,
    "val_batch_size": 2, "val_interval": 3, "log_interval": 1, "model_save_pt": 2, "lr": 1e-2,
    "opt": "AdamW", "counterfactual": {"kind": "lora", "rank": 2, "targets": ["*layers.*"]},
}  # fmt: skip


def test_two_stages_and_what_is_shipped(tmp_path, monkeypatch):
    assets, out = tmp_path / "assets", tmp_path / "out"
    (tmp_path / "tiny-llava.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.setattr(train_lora, "TRAINING", tmp_path)
    monkeypatch.setattr(train_lora, "ASSETS", assets)
    monkeypatch.setattr(train_lora, "STAGES", ({}, {"max_iters": 2, "scope_questions": 2}))
    backbone, records = build_tiny("llava"), tiny_records(5)
    data = (records[:3], records[3:])
    with pytest.raises(CheckpointError, match="mscke-tiny-llava"):
        train_lora.train_editor(backbone, out, data)
    # the classifier lies in another backbone's editor, as scenes-minigpt4's does
    mscke = tiny_mscke("llava")
    mscke.save_pretrained(assets / "mscke-first", half=False)
    mscke.save_pretrained(assets / "mscke-tiny-llava", parts={"scope": "../mscke-first/scope"})
    folder = train_lora.train_editor(backbone, out, data)
    steps = [
        json.loads((out / f"run-tiny-llava-{n}/history.json").read_text())[-1]["step"]
        for n in (1, 2)
    ]
    assert steps == [3, 2]
    written = (folder / "config.json").stat().st_mtime_ns
    assert train_lora.train_editor(backbone, out, data) == folder  # finished: kept
    assert (folder / "config.json").stat().st_mtime_ns == written
    shipped = train_lora.ship(folder, backbone)
    assert sorted(p.name for p in shipped.iterdir()) == ["config.json", "counterfactual"]
    parts = json.loads((shipped / "config.json").read_text())["parts"]
    assert parts == {"scope": "../mscke-first/scope"}
    editor = MSCKELoRA.from_pretrained(shipped, backbone)
    assert editor.scope.fingerprint() == mscke.scope.fingerprint()
    learned = [p for n, p in editor.counterfactual.named_parameters() if "lora_B" in n]
    assert learned and any(torch.count_nonzero(p) for p in learned)
