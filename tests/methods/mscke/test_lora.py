"""The LoRA counterfactual model: adapters beside the base model, which never sees them."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import BaseTunerLayer

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke import MSCKE, CounterfactualConfig, MSCKETrainer, SmallLM
from easyedit_mm_plugins.methods.mscke.counterfactual import new_counterfactual
from easyedit_mm_plugins.methods.mscke.lora import LoRA, share_weights
from easyedit_mm_plugins.methods.mscke.lora_editor import (
    MSCKELoRA,
    MSCKELoRAHyperParams,
    MSCKELoRATrainingHyperParams,
)

from ...conftest import build_tiny, picture
from ...support.mscke_tiny import TINY_OPT, hparams, tiny_mscke, tiny_records, tiny_scope

FAMILIES = ("blip2", "llava", "minigpt4")
EDITS = [
    Question("what color is the circle?", picture(0), "green"),
    Question("what shape is the red one", picture(1), "square"),
    Question("what is the capital of france", None, "paris"),
]
QUERIES = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", picture(1), "left"),
    Question("what is the capital of france", None, "paris"),
]


def lora(backbone, seed=None, **changes) -> LoRA:
    """An adapter; with a seed its second matrices are drawn, so that it does something."""
    config = CounterfactualConfig(kind="lora", **{"rank": 2, **changes})
    model = new_counterfactual(backbone, config).eval()
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    return model


def on_rows(model: LoRA, lm) -> list[torch.Tensor]:
    """Logits of the pairs' rows by ``lm``."""
    batch = model._batch(model.rows(EDITS, QUERIES, with_answers=True))
    with torch.no_grad():
        return answer_logits(lm, batch)


def equal(a, b) -> bool:
    return all(map(torch.equal, a, b))


@settings(max_examples=6, deadline=None)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 99), rank=st.integers(1, 4))
def test_off_it_is_the_base_model_to_the_bit_and_on_it_is_not(family, seed, rank):
    backbone = build_tiny(family)
    base = backbone.answer_logits(QUERIES)
    model = lora(backbone, seed, rank=rank)
    plain = on_rows(model, backbone.language_model)
    assert not equal(on_rows(model, model.lm), plain)
    layers = [m for m in model.lm.modules() if isinstance(m, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    assert layers and equal(on_rows(model, model.lm), plain)
    assert equal(backbone.answer_logits(QUERIES), base)


@pytest.mark.parametrize("family", FAMILIES)
def test_untrained_it_answers_as_the_base_does(family):
    backbone = build_tiny(family)
    model = lora(backbone)
    assert equal(on_rows(model, model.lm), on_rows(model, backbone.language_model))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_models_modules_are_left_alone_and_its_weights_shared(family):
    backbone = build_tiny(family)
    backbone.model.requires_grad_(True)
    names = [(n, type(m)) for n, m in backbone.model.named_modules()]
    before = {n: t.clone() for n, t in backbone.model.state_dict().items()}
    first, second = lora(backbone, 1), lora(backbone, 2)
    assert [(n, type(m)) for n, m in backbone.model.named_modules()] == names
    assert all(p.requires_grad for p in backbone.model.parameters())
    for model in (first, second):
        own = {p.data_ptr() for p in model.parameters()}
        base = {p.data_ptr() for p in backbone.language_model.parameters()}
        held = {p.data_ptr() for p in model.lm.parameters()}
        assert held == base | own and not base & own
    assert not {p.data_ptr() for p in first.parameters()} & {
        p.data_ptr() for p in second.parameters()
    }
    said = first.answer_logits(EDITS, QUERIES)
    loss, _ = second.nll(EDITS, QUERIES)
    loss.sum().backward()
    assert all(p.grad is not None for p in second.parameters())
    assert all(p.grad is None for p in [*first.parameters(), *backbone.model.parameters()])
    assert equal(first.answer_logits(EDITS, QUERIES), said)
    assert all(torch.equal(before[n], t) for n, t in backbone.model.state_dict().items())


def test_the_adapters_are_all_it_adds():
    backbone = build_tiny("llava")
    model = lora(backbone, rank=3)
    sizes = [
        3 * (m.in_features + m.out_features)
        for n, m in backbone.language_model.named_modules()
        if isinstance(m, torch.nn.Linear) and ".layers." in n
    ]
    assert model.describe() == {"kind": "lora", "rank": 3, "parameters": sum(sizes)}
    assert model.megabytes == pytest.approx(4e-6 * sum(sizes))
    assert all("lora_" in name for name in model.state_dict())
    few = lora(backbone, targets=["*layers.1.self_attn.[qv]_proj"])
    assert len(list(few.parameters())) == 4


def test_it_reads_the_rows_that_the_small_model_reads():
    backbone = build_tiny("blip2")
    small = SmallLM.from_config(backbone, CounterfactualConfig(lm=TINY_OPT))
    pairs = zip(
        small.rows(EDITS, QUERIES, with_answers=True),
        lora(backbone).rows(EDITS, QUERIES, with_answers=True),
        strict=True,
    )
    for ours, theirs in pairs:
        assert ours.answer == theirs.answer
        for a, b in zip(ours.segments, theirs.segments, strict=True):
            assert a == b if isinstance(a, list) else len(a) == len(b)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_a_loop(family):
    model = lora(build_tiny(family), 3)
    with torch.no_grad():
        together = model.answer_logits(EDITS, QUERIES)
        for i, row in enumerate(together):
            (alone,) = model.answer_logits([EDITS[i]], [QUERIES[i]])
            torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-4)
    alone = [model.generate([e], [q])[0] for e, q in zip(EDITS, QUERIES, strict=True)]
    assert model.generate(EDITS, QUERIES) == alone


@pytest.mark.parametrize("half", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path, half):
    backbone = build_tiny("blip2")
    model = lora(backbone, 4, alpha=3.0, targets=["*layers.0.*"])
    model.save_pretrained(tmp_path, half=half)
    again = LoRA.from_pretrained(tmp_path, backbone)
    expected, found = model.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value.half().float() if half else value)
    if not half:
        assert equal(again.answer_logits(EDITS, QUERIES), model.answer_logits(EDITS, QUERIES))
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) < 40_000  # no base weights


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    backbone = build_tiny("blip2")
    lora(backbone, 5).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="adapter for the base model"):
        LoRA.from_pretrained(tmp_path, build_tiny("llava"))
    config = json.loads((tmp_path / "config.json").read_text())
    config["counterfactual"]["rank"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="does not fit"):
        LoRA.from_pretrained(tmp_path, backbone)
    config["counterfactual"]["ranks"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="did you mean rank"):
        LoRA.from_pretrained(tmp_path, backbone)


def test_settings_that_cannot_be_used(monkeypatch):
    backbone = build_tiny("llava")
    with pytest.raises(ConfigError, match=r"called 'model\.layers\.0\.self_attn\.q'; did you mean"):
        lora(backbone, targets=["model.layers.0.self_attn.q"])
    for changes in ({"rank": 0}, {"rank": 1.5}, {"alpha": -1}, {"dropout": 2}, {"targets": []}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            CounterfactualConfig(**changes)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="needs peft"):
        lora(backbone)


def test_adapters_are_float32_on_a_narrower_model_and_drop_only_in_training():
    backbone = build_tiny("llava")
    backbone.model.bfloat16()
    backbone.language_model.bfloat16()
    model = lora(backbone, 6, dropout=0.5)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    first = on_rows(model, model.lm)
    assert equal(on_rows(model, model.lm), first)
    model.train()
    assert not equal(on_rows(model, model.lm), first)
    model.eval()
    assert equal(on_rows(model, model.lm), first)


def test_tied_weights_stay_tied():
    backbone = build_tiny("blip2")
    twin = share_weights(backbone.language_model)
    tied = backbone.language_model.get_output_embeddings().weight
    assert tied is backbone.language_model.get_input_embeddings().weight
    assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight
    assert twin.get_output_embeddings().weight.data_ptr() == tied.data_ptr()


def editor(family="llava", cls=MSCKE) -> MSCKE:
    backbone = build_tiny(family)
    return cls(backbone, tiny_scope(), lora(backbone), threshold=0.0)


def test_the_trainer_trains_it_and_goes_on_where_it_was_killed(tmp_path):
    def trainer(made, out, **changes):
        config = {"kind": "lora", "rank": 2, "drop_image": 0.5}
        settings = {"train": "counterfactual", "lr": 2e-2, "counterfactual": config}
        return MSCKETrainer(
            made, tiny_records(), tiny_records(2), hparams(**{**settings, **changes}), out
        )

    torch.manual_seed(0)
    whole = editor()
    start = whole.counterfactual.state_dict()
    start = {name: value.clone() for name, value in start.items()}
    before = {n: t.clone() for n, t in whole.backbone.model.state_dict().items()}
    first = trainer(whole, tmp_path / "a", max_iters=30, val_interval=30)
    untrained = first.validate()["loss/cfr_val"]
    assert first.run()["loss/cfr_val"] < 0.7 * untrained
    assert all(torch.equal(before[n], t) for n, t in whole.backbone.model.state_dict().items())

    killed = editor()
    killed.counterfactual.load_state_dict(start)
    second = trainer(killed, tmp_path / "b", max_iters=30, val_interval=30)
    for _ in range(4):
        second.train_step()
    second.save()
    again = editor()
    trainer(again, tmp_path / "b", max_iters=30, val_interval=30).run()
    for name, value in whole.counterfactual.state_dict().items():
        assert torch.equal(again.counterfactual.state_dict()[name], value), name


def test_an_editor_with_its_classifier_elsewhere(tmp_path):
    small = tiny_mscke("llava")
    small.save_pretrained(tmp_path / "mscke", half=False)
    made = editor(cls=MSCKELoRA)
    made.save_pretrained(tmp_path / "lora", half=False, parts={"scope": "../mscke/scope"})
    assert not (tmp_path / "lora/scope").exists()
    again = MSCKELoRA.from_pretrained(tmp_path / "lora", made.backbone)
    assert again.scope.fingerprint() == small.scope.fingerprint()
    base = made.backbone.generate(QUERIES)
    with again.edited(EDITS[:1]):
        inside = again.generate(QUERIES)
        assert [a.text for a in inside] == again.counterfactual.generate([EDITS[0]] * 3, QUERIES)
    assert [a.text for a in again.generate(QUERIES)] == base
    with pytest.raises(CheckpointError, match="holds a mscke-lora editor"):
        MSCKE.from_pretrained(tmp_path / "lora", made.backbone)
    (tmp_path / "mscke").rename(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"scope/config\.json does not exist"):
        MSCKELoRA.from_pretrained(tmp_path / "lora", made.backbone)


def test_hparams_are_for_this_counterfactual_model():
    for cls in (MSCKELoRAHyperParams, MSCKELoRATrainingHyperParams):
        extra = {"max_iters": 1} if cls is MSCKELoRATrainingHyperParams else {}
        assert cls(model_name="scenes-blip2", **extra).counterfactual.kind == "lora"
        with pytest.raises(ConfigError, match="small-lm"):
            cls(model_name="scenes-blip2", counterfactual={"kind": "small-lm"}, **extra)
