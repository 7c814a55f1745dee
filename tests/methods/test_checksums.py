"""Checksums in an editor's ``config.json``: what was changed after saving is refused."""

from __future__ import annotations

import json

import pytest

from easyedit_mm_plugins.core.errors import CheckpointError
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.methods.checkpoint import (
    CHECKSUMS,
    change_header,
    check_checksums,
    read_config,
)
from easyedit_mm_plugins.methods.mend.mscke import MSCKEMEND
from easyedit_mm_plugins.methods.mscke import MSCKE

from ..support.dualedit_tiny import edit
from ..support.mend_tiny import tiny_mend
from ..support.mscke_tiny import tiny_mscke


@pytest.fixture
def saved(tmp_path):
    editor = tiny_mscke()
    editor.save_pretrained(tmp_path / "e")
    return tmp_path / "e", editor.backbone


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_one_flipped_bit_is_refused_and_named(saved):
    folder, backbone = saved
    weights = folder / "counterfactual/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1  # still a number
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"counterfactual/model\.safetensors is damaged"):
        MSCKE.from_pretrained(folder, backbone)
    change_header(folder)
    MSCKE.from_pretrained(folder, backbone)


def test_a_value_that_was_changed_is_refused(saved):
    folder, backbone = saved
    change(folder / "config.json", threshold=0.4)
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        MSCKE.from_pretrained(folder, backbone)
    change_header(folder, threshold=0.4)
    assert MSCKE.from_pretrained(folder, backbone).threshold == 0.4
    change(folder / "scope/config.json", more=1)
    with pytest.raises(CheckpointError, match=r"scope/config\.json is damaged"):
        MSCKE.from_pretrained(folder, backbone)


def test_without_checksums_and_formatted_anew_it_loads(saved):
    folder, backbone = saved
    config = folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values))
    MSCKE.from_pretrained(folder, backbone)
    del values[CHECKSUMS]
    config.write_text(json.dumps(values))
    change(config, threshold=0.4)
    assert MSCKE.from_pretrained(folder, backbone).threshold == 0.4


def test_what_lies_beside_an_editor_is_no_part_of_it(saved):
    folder, backbone = saved
    editor = MSCKE.from_pretrained(folder, backbone)
    for i in range(2):
        editor.add([edit(i)])
        editor.save_memory(folder)
        (folder / "eval.json").write_text(f"{i}")
        editor.save_pretrained(folder)
    editor.add([edit(3)])
    editor.save_memory(folder)
    MSCKE.from_pretrained(folder, backbone).load_memory(folder)


def test_parts_elsewhere_and_editors_within_are_covered(saved, tmp_path):
    folder, backbone = saved
    tiny_mend("llava").save_pretrained(tmp_path / "mend")
    editor = MSCKEMEND.from_parts(backbone, folder / "scope", tmp_path / "mend")
    editor.save_pretrained(tmp_path / "both", parts={"scope": "../e/scope"})
    config = tmp_path / "both/config.json"
    files = json.loads(config.read_text())[CHECKSUMS]["files"]
    assert list(files) == [
        "../e/scope/config.json", "../e/scope/model.safetensors", "counterfactual/config.json",
    ]  # fmt: skip
    MSCKEMEND.from_pretrained(tmp_path / "both", backbone)
    for part in ("e/scope/model.safetensors", "both/counterfactual/network/model.safetensors"):
        kept = (tmp_path / part).read_bytes()
        (tmp_path / part).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="is damaged"):
            MSCKEMEND.from_pretrained(tmp_path / "both", backbone)
        (tmp_path / part).write_bytes(kept)


def test_every_shipped_editor_is_as_its_checksums_say():
    configs = [path for path in ASSETS.glob("**/config.json") if "method" in read_config(path)]
    assert len(configs) >= 20
    for path in configs:
        values = read_config(path)
        assert values[CHECKSUMS]["files"], path
        check_checksums(path, values)
