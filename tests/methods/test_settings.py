"""Settings: one place for a value, files and short names, what is shown, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.core.errors import ConfigError, UnknownNameError
from easyedit_mm_plugins.core.shipped import HPARAMS
from easyedit_mm_plugins.core.yaml_files import merged, settings_file
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.dualedit import DualEditHyperParams
from easyedit_mm_plugins.methods.mend import MendHyperParams
from easyedit_mm_plugins.methods.mscke import MSCKEHyperParams, MSCKETrainingHyperParams
from easyedit_mm_plugins.methods.settings import HParams, settings_class, settings_for
from easyedit_mm_plugins.methods.settings_files import ShortName, shipped_settings
from easyedit_mm_plugins.methods.settings_text import as_yaml, defaults, names, settings_of

NAMES = list(names())
FILES = sorted(path.stem for path in HPARAMS.glob("*.yaml") if path.stem != "compare")
GROUPS = {entry.group for entry in BACKBONES if entry.group}


def test_every_method_is_there_for_every_backbone():
    for entry in METHODS:
        for training, cls in enumerate((entry.settings, entry.training)):
            found = {n.backbone for n in NAMES if (n.alg, n.training) == (entry.alg, training)}
            assert found == ({b.name for b in BACKBONES} if cls else set())
    assert all(shipped_settings(n.alg, n.backbone, training=n.training) for n in NAMES)


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_what_is_shown_reads_back_equal(name, tmp_path):
    *_, cls = settings_of(name)
    file = tmp_path / "mine.yaml"
    file.write_text(as_yaml(name))
    assert cls.from_hparams(file) == cls.from_hparams(str(name))
    assert set(yaml.safe_load(file.read_text())) >= {
        f.name for f in dataclasses.fields(cls) if not f.name.startswith("alg")
    }


def test_every_setting_is_documented():
    for name in NAMES:
        *_, cls = settings_of(name)
        bare = [f.name for f in dataclasses.fields(cls) if not cls.documentation(f.name)]
        assert not bare, f"{cls.__name__}: {', '.join(bare)}"


# One place -----------------------------------------------------------------------------------


def test_there_are_few_files():
    assert len(list(HPARAMS.rglob("*.yaml"))) <= 60


@pytest.mark.parametrize("file", FILES)
def test_a_file_names_only_groups_and_backbones(file):
    content = settings_file(file)
    sections = content if file == "models" else content["editing"] | content.get("training", {})
    assert set(sections) <= {*GROUPS, *BACKBONES.names()}
    assert file == "models" or set(content) <= {"editing", "training", "shared"}


@pytest.mark.parametrize("file", FILES)
def test_no_file_repeats_what_stands_below_it(file):
    """A value is needed if without it some base model's settings would be others."""
    parts = ("models",) if file == "models" else ("editing", "training")
    repeated = []
    for part in parts:
        sections = settings_file(file) if file == "models" else settings_file(file).get(part, {})
        for section, values in sections.items():
            for path in leaves(values):
                if not matters(file, part, section, path):
                    repeated.append(f"{part}.{section}.{'.'.join(path)}")
    assert not repeated, f"{file}.yaml repeats a default or a lower layer: {', '.join(repeated)}"


def leaves(values, before=()):
    for key, value in values.items():
        if isinstance(value, dict) and key != "lm":
            yield from leaves(value, (*before, key))
        else:
            yield (*before, key)


def matters(file, part, section, path) -> bool:
    def settings():
        found = []
        for name in NAMES:
            if file in ("models", name.alg):
                *_, cls = settings_of(name)
                found.append(merged(defaults(cls), settings_for(cls, name)))
        return found

    before = settings()
    where = settings_file(file) if file == "models" else settings_file(file)[part]
    node = where[section] = copy.deepcopy(where[section])
    kept = where[section]
    for key in path[:-1]:
        node = node[key]
    value = node.pop(path[-1])
    try:
        return settings() != before
    finally:
        node[path[-1]] = value
        assert where[section] is kept


# Names and paths -----------------------------------------------------------------------------


def test_short_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = MSCKEHyperParams.from_hparams("MSCKE/blip2")
    assert (expected.name, expected.scope.encoder) == ("hugging_cache/opt-2.7b", "ViT-L-14")
    assert expected.archive == "results/MSCKE/blip2/best"
    training = MSCKETrainingHyperParams.from_hparams("TRAINING/MSCKE/blip2")
    assert training == MSCKETrainingHyperParams.from_hparams("MSCKE/blip2")
    assert (training.name, training.max_iters, training.archive) == (expected.name, 50000, None)
    for written in ("hparams/MSCKE/blip2.yaml", "./hparams/MSCKE/blip2"):
        with pytest.raises(ConfigError, match=r"does not exist") as caught:
            MSCKEHyperParams.from_hparams(written)
        assert "'MSCKE/blip2'" in caught.value.remedy
    (tmp_path / "hparams").symlink_to(HPARAMS)
    for written in ("hparams/MSCKE/blip2.yaml", "./hparams/MSCKE/blip2", HPARAMS / "MSCKE/blip2"):
        assert MSCKEHyperParams.from_hparams(written) == expected
    written = "hparams/TRAINING/MSCKE/blip2.yaml"
    assert MSCKETrainingHyperParams.from_hparams(written) == training


def test_a_file_wins_over_a_short_name_and_is_read_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MSCKE").mkdir()
    (tmp_path / "MSCKE/blip2.yaml").write_text("alg_name: MSCKE\nmodel_name: llava\n")
    read = MSCKEHyperParams.from_hparams("MSCKE/blip2")
    assert read == MSCKEHyperParams("llava") and read.name is None


@pytest.mark.parametrize(
    ("cls", "name", "message"),
    [
        (MSCKEHyperParams, "MSCKE/blip3", "did you mean MSCKE/blip2"),
        (MSCKEHyperParams, "DUALEDIT/blip2", "is for DUALEDIT, not for MSCKE"),
        (MSCKEHyperParams, "TRAINING/MSCKE/blip2", "is for training"),
        (MSCKEHyperParams, "", "names no hparams file"),
        (HParams, "MSCKE/blip2", "is for MSCKE"),
    ],
)
def test_names_that_are_wrong(cls, name, message):
    with pytest.raises(ConfigError, match=message):
        cls.from_hparams(name)
    with pytest.raises(UnknownNameError, match="MSCKE/blip2"):
        settings_of("MSCKE/blip3")


def test_another_packages_settings_have_names_too():
    @settings_class
    class Mine(HParams):
        model_name: str
        device: int | str = "cpu"
        rate: float = 0.5
        _alg = "MINE"

    @dataclasses.dataclass
    class Plain(HParams):
        model_name: str
        rate: float = 0.5
        _alg = "MINE"

    assert Mine.from_hparams("MINE/blip2") == Mine("blip2", device=0)
    assert Plain.from_hparams("MINE/scenes-llava") == Plain("scenes-llava")
    assert ShortName.parse("hparams/MINE/blip2.yaml") == ShortName("MINE", "blip2")
    assert shipped_settings("MINE", "blip2") is None
    assert shipped_settings("MSCKE", "a-folder") is None


# What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: text", "seed is 'text', but must be a valid integer"),
        ("val_steps: {a: 1}", "val_steps is {'a': 1}, but must be a valid integer"),
        ("lr: .nan", "lr is nan, but must be a finite number"),
        ("lr: true", "lr is True"),
        ("batch_size: 1.5", "batch_size is 1.5"),
        ("eval_only: yes please", "eval_only is"),
        ("name: 2001-01-01", "name is datetime"),
        ("seed: !!int 'abc'", "cannot be read"),
        ("seed: 2001-99-99", "cannot be read"),
        (f"lm: {'[' * 3000}{']' * 3000}", "nested too deeply"),
        ("name: &name {a: *name}", "cannot be read"),
        ("scope: 3", "scope: must be a mapping"),
        ("scope: {dim: 0}", "scope: dim is 0, but must be at least 1"),
        ("scope: {dimm: 3}", "scope: unknown key 'dimm'; did you mean dim"),
        ("treshold: 0.4", "unknown key 'treshold'; did you mean threshold"),
        ("1: 2", "unknown key '1'"),
        ("opt: adam", "did you mean Adam"),
        ("model_name: b", "model_name' stands twice"),
    ],
)
def test_bad_files_name_file_and_key(line, message, tmp_path):
    text = "alg: MSCKE\nmodel_name: a\nmax_iters: 3\n"
    path = tmp_path / "mine.yaml"
    path.write_text(f"{text}{line}\n")
    with pytest.raises(ConfigError) as caught:
        MSCKETrainingHyperParams.from_hparams(path)
    assert str(path) in caught.value.message and message in caught.value.message


def test_a_model_is_a_name_or_what_easyedit_hands_over():
    for wrong in ({"a": 1}, 3, None, ""):
        with pytest.raises(ConfigError, match=r"model_name is .*name of a base model"):
            MSCKEHyperParams(wrong)
    assert MSCKEHyperParams(("model", "tokenizer")).model_name == ("model", "tokenizer")


def test_they_are_dataclasses():
    """EasyEdit's users replace, assign, copy and print settings."""
    settings = MSCKEHyperParams("blip2", threshold=1)
    assert dataclasses.is_dataclass(settings) and settings.threshold == 1.0
    changed = settings.replace(threshold=0.25)
    assert changed.threshold == 0.25 and settings.threshold == 1.0
    changed.device, changed.unknown_to_us = 3, "yes"
    assert copy.deepcopy(changed).device == 3 and changed.to_dict()["device"] == 3
    assert dataclasses.asdict(changed)["scope"]["fusion"] == "dot-attention"
    assert MendHyperParams("x").alg_name == "MEND"
    assert DualEditHyperParams("x").gate.kind == "prompt-end"
    assert MSCKEHyperParams("x", archive=Path("a/b")).archive == "a/b"


def test_importing_them_is_cheap():
    code = (
        "import sys, importlib; importlib.import_module('easyedit_mm_plugins.methods.settings'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The command ---------------------------------------------------------------------------------


def test_the_command_lists_and_shows():
    from typer.testing import CliRunner

    from easyedit_mm_plugins.cli.app import app

    run = CliRunner().invoke
    listed = run(app, ["hparams", "list"]).output.splitlines()
    assert [line.split()[0] for line in listed] == [str(name) for name in NAMES]
    line = next(line for line in listed if line.split()[0] == "MSCKE/scenes-llava")
    assert line.split(maxsplit=2)[1:] == ["editing", "trained editor shipped"]
    shown = run(app, ["hparams", "show", "TRAINING/MSCKE/blip2"]).output
    assert shown == as_yaml("TRAINING/MSCKE/blip2")
    assert "# BCE on in-scope questions (1), eq. 9; released: 1.\nigen_loss: 1.0\n" in shown
    assert shown.index("# Model\n") < shown.index("# Method\n") < shown.index("# Training\n")
