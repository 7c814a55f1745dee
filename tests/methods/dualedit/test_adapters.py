"""The adapters' formulas against independent computations (DualEdit section 3.2)."""

from __future__ import annotations

import math

import pytest
import torch

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.dualedit import AdapterConfig
from easyedit_mm_plugins.methods.dualedit.adapters import new_adapter, pad_memory

D, N, T = 12, 7, 5


def _random(form: str, **kwargs):
    torch.manual_seed(0)
    adapter = new_adapter(AdapterConfig(0, "text", form, **kwargs), D)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return adapter, torch.randn(T, D), torch.randn(N, D)


def _softmax(scores: list[float]) -> list[float]:
    top = max(scores)
    raised = [math.exp(s - top) for s in scores]
    return [r / sum(raised) for r in raised]


def test_paper_form_is_the_formula_of_section_3_2():
    adapter, tokens, states = _random("paper")
    out = adapter(tokens[None], *pad_memory([adapter.memory(states)]))[0]
    w1, w2, w3 = (getattr(adapter, n).weight.detach().double().T for n in ("w1", "w2", "w3"))
    h, h_e = tokens.double(), states.double()
    for t in range(T):
        q = h[t] @ w1
        weights = _softmax([float(q @ (h_e[n] @ w2)) for n in range(N)])
        expected = sum(w * (h_e[n] @ w3) for n, w in enumerate(weights))
        assert torch.allclose(out[t].double(), expected, atol=1e-5)


def test_released_form_equals_an_independent_reference():
    adapter, tokens, states = _random("released", width=8, heads=4)
    out = adapter(tokens[None], *pad_memory([adapter.memory(states)]))[0]
    w = {name: value.double().tolist() for name, value in adapter.state_dict().items()}

    def linear(name, x):
        pairs = zip(w[f"{name}.weight"], w[f"{name}.bias"], strict=True)
        return [sum(a * b for a, b in zip(row, x, strict=True)) + bias for row, bias in pairs]

    def norm(name, x):
        mean = sum(x) / D
        scale = math.sqrt(sum((v - mean) ** 2 for v in x) / D + 1e-5)
        g, b = w[f"{name}.weight"], w[f"{name}.bias"]
        return [(v - mean) / scale * g[i] + b[i] for i, v in enumerate(x)]

    e = [norm("norm_e", row) for row in states.double().tolist()]
    keys, values = ([linear(n, row) for row in e] for n in ("key", "value"))
    for t, token in enumerate(tokens.double().tolist()):
        query = linear("query", norm("norm_h", token))
        mixed = []
        for start in range(0, 8, 2):  # four heads of size 2
            at = range(start, start + 2)
            scores = [sum(query[i] * key[i] for i in at) / math.sqrt(2) for key in keys]
            weights = _softmax(scores)
            mixed += [sum(p * v[i] for p, v in zip(weights, values, strict=True)) for i in at]
        expected = [a + b for a, b in zip(token, linear("out", mixed), strict=True)]
        assert out[t].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", ["paper", "released"])
def test_padding_of_edit_samples_changes_nothing(form):
    adapter, tokens, states = _random(
        form, **({"heads": 2, "width": 8} if form == "released" else {})
    )
    short, long = adapter.memory(states[:3]), adapter.memory(states)
    alone = adapter(tokens[None], *pad_memory([short]))
    beside = adapter(tokens.expand(2, -1, -1), *pad_memory([short, long]))
    assert torch.allclose(alone[0], beside[0], atol=1e-6)
    assert not torch.allclose(beside[0], beside[1], atol=1e-3)


def test_an_untrained_released_adapter_changes_nothing():
    torch.manual_seed(0)
    adapter = new_adapter(AdapterConfig(0, "text", "released", 16, 2), D)
    tokens = torch.randn(1, T, D)
    memory = pad_memory([adapter.memory(torch.randn(N, D))])
    assert torch.equal(adapter(tokens, *memory), tokens)


def test_half_precision_tokens_come_back_in_half_precision():
    adapter, tokens, states = _random("released", width=8, heads=2)
    memory = pad_memory([tuple(m.half() for m in adapter.memory(states.half()))])
    out = adapter(tokens.half()[None], *memory)
    assert out.dtype == torch.float16
    exact = adapter(tokens[None], *pad_memory([adapter.memory(states)]))
    assert torch.allclose(out.float(), exact, atol=0.05)


def test_shapes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="formula has one"):
        new_adapter(AdapterConfig(0, "text", "paper", heads=2), D)
    with pytest.raises(ConfigError, match="multiple of its 3 heads"):
        new_adapter(AdapterConfig(0, "text", "released", width=16, heads=3), D)
