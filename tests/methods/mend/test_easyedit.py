"""The package's MEND against EasyEdit's own code, on whichever generation is at hand."""

from __future__ import annotations

import copy
import types

import pytest
import torch

from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mend import GradientTransform, Mend, MendConfig

from ...support.mend_tiny import stir, tiny_mend

pytest_plugins = ["tests.support.bridge_fixtures"]

TEXT = [
    Question("what color is the circle", None, "red"),
    Question("capital of france", None, "top left"),
    Question("where is the star?", None, "bottom"),
]
FORMS = [
    {},
    {"combine": False},
    {"combine": False, "one_sided": True},
    {"combine": False, "x_only": True},
    {"combine": False, "delta_only": True},
    {"norm": False},
    {"init": "xavier"},
    {"n_hidden": 2, "rank": 2},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", [(5, 9), (9, 5)])
@pytest.mark.parametrize("modes", [None, 3])
def test_the_network_is_easyedits(host, form, sizes, modes):
    theirs_class = host.module("trainer.algs.MEND").GradientTransform
    config = MendConfig(**{"rank": 4, **form})
    ours, theirs = (cls(*sizes, config, modes) for cls in (GradientTransform, theirs_class))
    stir(ours)
    theirs.load_state_dict(ours.state_dict())  # same names and shapes, both ways
    theirs.norm_init = True
    ours.load_state_dict(theirs.state_dict())
    draw = torch.Generator().manual_seed(0)
    u, v = torch.randn(7, sizes[0], generator=draw), torch.randn(7, sizes[1], generator=draw)
    mode = None if modes is None else 2
    for training in (False, True, True):  # the second pass in training sees moved statistics
        ours.train(training), theirs.train(training)
        for a, b in zip(ours(u, v, mode), theirs(u, v, mode), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        for name, buffer in ours.named_buffers():
            torch.testing.assert_close(
                buffer, dict(theirs.named_buffers())[name], rtol=1e-5, atol=1e-5
            )


def easyedits_change(host, editor: Mend, edit: Question) -> dict[str, torch.Tensor]:
    """The change of each weight by EasyEdit's ``MEND.edit``, on a copy of the language model."""
    module = host.module("trainer.algs.MEND")
    lm = copy.deepcopy(editor.backbone.language_model).requires_grad_(True)
    params = [f"model.{name}.weight" for name in editor.modules]
    config = types.SimpleNamespace(
        **{**vars(editor.config), "inner_params": params},
        model_name="llama",
        model_class="LlamaForCausalLM",
        device="cpu",
        model_parallel=True,  # the release writes cuda: into any other device
    )
    mend = module.MEND(lm, config, lambda: None)
    state = editor.network.mend.state_dict()
    if not editor.config.shared:  # a network's name is then its parameter's, which is EasyEdit's
        state = {f"model#{k.replace('_proj.', '_proj#weight.')}": t for k, t in state.items()}
    mend.mend.load_state_dict(state)
    mend.edit_lrs.data.copy_(editor.network.edit_lrs)
    mend.eval()
    ids = editor.backbone.token_ids(edit.text)
    answer = editor.backbone.answer_ids(edit.answer)
    tokens = torch.tensor([[*ids, *answer]])
    before = {n: p.detach().clone() for n, p in lm.named_parameters() if n in params}
    edited, _ = mend.edit(
        {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "labels": torch.tensor([answer]),
        }
    )
    after = dict(edited.model.named_parameters())
    return {
        name: (after[p] - before[p]).detach()
        for name, p in zip(editor.modules, params, strict=True)
    }


@pytest.mark.parametrize("shared", [True, False])
def test_an_edit_changes_the_weights_as_easyedits_own_does(host, shared):
    names = ["layers.0.mlp.down_proj", "layers.0.mlp.up_proj", "layers.1.mlp.down_proj"]
    editor = tiny_mend("llava", inner_params=[*names, "layers.1.mlp.up_proj"], shared=shared)
    deltas = editor.learn(TEXT)  # all at once
    for edit, delta in zip(TEXT, deltas, strict=True):
        theirs = easyedits_change(host, editor, edit)
        assert set(theirs) == set(delta)
        for name, part in delta.items():
            assert part.up.abs().max() > 1e-3
            torch.testing.assert_close(part.up.T @ part.down, theirs[name], atol=1e-5, rtol=1e-4)


def test_the_baseline_runs_easyedits_network_and_says_the_same(host):
    from easyedit_mm_plugins.methods.mend.easyedit import MEND

    ours, theirs = tiny_mend("blip2"), tiny_mend("blip2", MEND)
    network = next(iter(theirs.network.mend.values()))
    own = host.module("trainer.algs.MEND").GradientTransform
    assert isinstance(network, own) and not isinstance(network, GradientTransform)
    theirs.network.load_state_dict(ours.network.state_dict())
    for a, b in zip(ours.learn(TEXT), theirs.learn(TEXT), strict=True):
        for name in a:
            torch.testing.assert_close(a[name].up, b[name].up, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(a[name].down, b[name].down, atol=1e-5, rtol=1e-4)
    assert host.generation in theirs.describe()["transform"]


def test_easyedits_statistics_start_with_one_token_and_survive_loading(host):
    from easyedit_mm_plugins.methods.mend.easyedit import easyedit_transform

    config = MendConfig(rank=2)
    made = easyedit_transform()(4, 3, config, 1)
    plain = GradientTransform(4, 3, config, 1)
    plain.load_state_dict(made.state_dict())
    u, v = torch.randn(6, 4), torch.randn(6, 3)
    for part in ((u[:1], v[:1]), (u[1:3], v[1:3])):
        for a, b in zip(made(*part, 0), plain(*part, 0), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    again = easyedit_transform()(4, 3, config, 1)
    again.load_state_dict(made.state_dict())
    for one in (again, plain):
        one(u[3:], v[3:], 0)
    assert again.k == plain.k == 6
    torch.testing.assert_close(again.u_std, u.std(0))
    torch.testing.assert_close(plain.u_std, u.std(0))
