"""Settings: the paper's values, and what is refused."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.dualedit import (
    AdapterConfig,
    DualEdit,
    DualEditConfig,
    DualEditHyperParams,
    DualEditTrainingHyperParams,
    GateConfig,
)
from easyedit_mm_plugins.methods.dualedit.gate import paper_threshold

from ...support.dualedit_tiny import hparams, tiny_dualedit


def test_defaults_are_the_papers_section_3_2_and_appendix_d(backbone):
    config = DualEditConfig()
    assert [(a.layer, a.tokens) for a in config.adapters] == [(16, "text"), (19, "visual")]
    assert {a.form for a in config.adapters} == {"paper"}
    assert config.gate.kind == "prompt-end" and config.gate_layer == 16
    training = hparams(max_iters=50000)
    fields = DualEditTrainingHyperParams.__dataclass_fields__
    assert fields["lr"].default == 1e-4 and fields["batch_size"].default == 4
    assert not training.gated
    assert paper_threshold(backbone) == (0.8 if "blip2" in backbone.name else 0.6)


@pytest.mark.parametrize("name", ["blip2", "blip2-hf", "llava", "minigpt4"])
def test_the_papers_models_get_the_papers_values(name):
    editing = DualEditHyperParams.from_hparams(f"DUALEDIT/{name}")
    training = DualEditTrainingHyperParams.from_hparams(f"DUALEDIT/{name}")
    assert [a.layer for a in editing.adapters] == [a.layer for a in training.adapters] == [16, 19]
    assert (training.lr, training.batch_size, training.max_iters) == (1e-4, 4, 50000)
    assert editing.gate.threshold == (0.8 if name.startswith("blip2") else 0.6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapters": []}, "at least 1 item"),
        ({"adapters": [{"layer": 1, "token": "text"}]}, "did you mean tokens"),
        ({"adapters": [{"layer": 1, "tokens": "image"}]}, "tokens is .image"),
        ({"adapters": [{"layer": -1, "tokens": "text"}]}, "layer is -1, but must be at least 0"),
        ({"adapters": [{"layer": 1, "tokens": "text", "form": "relased"}]}, "released"),
        ({"gate": {"kind": "prompt_end"}}, "did you mean prompt-end"),
        ({"gate": {"threshold": 1.01}}, "at most 1"),
        ({"gate": {"threshold": -1.5}}, "at least -1"),
        ({"gate": {"threshold": True}}, "valid number"),
        ({"gate": {"threshold": float("nan")}}, "finite number"),
        ({"gate": {"layer": 17}}, "after the first edited layer"),
        ({"text_tokens": "answer"}, "text_tokens"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        DualEditConfig(**values)


def test_layers_that_do_not_exist_are_named(tiny_backbone):
    with pytest.raises(ConfigError, match=r"text adapter is on layer 16, but .* layers 0 to 1"):
        DualEdit(tiny_backbone, DualEditConfig(gate=GateConfig(layer=0)))
    with pytest.raises(ConfigError, match="visual adapter is on layer 2"):
        DualEdit(tiny_backbone, DualEditConfig([AdapterConfig(2, "visual")], GateConfig(layer=0)))
    with pytest.raises(ConfigError, match="nothing reads"):
        DualEdit(tiny_backbone, DualEditConfig([AdapterConfig(1, "visual")]))


def test_a_threshold_outside_minus_one_to_one_is_refused():
    editor = tiny_dualedit()
    with pytest.raises(ConfigError, match="at most 1"):
        editor.threshold = 2
    editor.threshold = -1
    assert editor.threshold == -1.0


def test_hparams_files_of_others_and_misspelt_keys_are_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("alg_name: MSCKE\nmodel_name: llava\n")
    with pytest.raises(ConfigError, match="is for MSCKE"):
        DualEditHyperParams.from_hparams(tmp_path / "a")
    file.write_text("alg_name: DUALEDIT\nmodel_name: llava\ngates: 1\n")
    with pytest.raises(ConfigError, match=r"unknown key 'gates'; did you mean .*gate"):
        DualEditHyperParams.from_hparams(file)
    with pytest.raises(ConfigError, match="one of max_iters and max_epochs"):
        hparams(max_epochs=1)
    with pytest.raises(ConfigError, match="batch_size"):
        hparams(batch_size=0)


def test_a_trained_editor_gets_the_gate_that_the_settings_name(tmp_path):
    trained = tiny_dualedit()
    trained.thresholds["released"] = 0.25
    trained.save_pretrained(tmp_path)
    own = {"model_name": "tiny", "archive": str(tmp_path)}
    for gate, kind, threshold in (
        ({"kind": "prompt-end"}, "prompt-end", 0.9),
        ({"kind": "prompt-end", "threshold": 0.5}, "prompt-end", 0.5),
        ({"kind": "released"}, "released", 0.25),
        ({"kind": "released", "threshold": 0.75}, "released", 0.75),
        ({"kind": "off"}, "off", None),
    ):
        settings = DualEditHyperParams(**own, gate=GateConfig(**gate))
        editor = DualEdit.from_hparams(settings, trained.backbone)
        assert editor.config.gate.kind == kind
        assert threshold is None or editor.threshold == threshold
    settings = DualEditHyperParams(**own, gate=GateConfig("learned"))
    with pytest.raises(ConfigError, match="no learned gate"):
        DualEdit.from_hparams(settings, trained.backbone)
