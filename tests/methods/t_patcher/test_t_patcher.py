"""T-Patcher: neurons against a model that really has them, the paper's losses by hand, and edits
that stand together, go without a trace and come back from disk."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.core.errors import (
    BackboneError,
    CheckpointError,
    ConfigError,
    DataError,
    TrainingError,
)
from easyedit_mm_plugins.data import Question, load_records
from easyedit_mm_plugins.data.records import OUTSIDE
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.deltas import (
    Neurons,
    changed_generate,
    changed_logits,
    combine,
)
from easyedit_mm_plugins.methods.t_patcher import TPatcher, TPatcherConfig, TPatcherHyperParams
from easyedit_mm_plugins.methods.t_patcher.losses import activation_loss, memory_loss
from easyedit_mm_plugins.methods.t_patcher.patch import Patches, last_block
from easyedit_mm_plugins.scenes.records import write_scenes

from ...conftest import build_tiny, picture
from ...support.undo import edit_and_undo

FAMILIES = ("blip2", "llava", "minigpt4")
EDITS = [
    Question("what color is the circle?", picture(0), "red"),
    Question("where is the star?", picture(1), "top left"),
    Question("how many", None, "three two one"),
    Question("what color is the circle?", picture(0), "blue"),
]
ASKED = [
    Question("what color is the circle?", picture(0), "green"),
    Question("what is the capital of france", None, "paris"),
    Question("is the square blue?", picture(2), "yes"),
]
MEMORY = [
    Question("what shape is the red one", picture(3), "square star"),
    Question("capital of france", None, "paris"),
    Question("is the square blue?", picture(4), "no"),
]
_EDITORS: dict[str, TPatcher] = {}


def exact(family):
    """A tiny backbone in float64: Adam amplifies no rounding."""
    backbone = build_tiny(family)
    backbone.model.double()
    if backbone.language_model not in list(backbone.model.modules()):
        backbone.language_model.double()
    return backbone


def config(**changes):
    return TPatcherConfig(**{"num_steps": 6, "edit_lr": 0.05, "batch_size": 8, **changes})


def patcher(family="llava", memory=MEMORY, **changes):
    return TPatcher(exact(family), config(**changes), memory)


def shared(family):
    """One editor a family for tests that leave it as they found it."""
    if family not in _EDITORS:
        _EDITORS[family] = patcher(family)
    return _EDITORS[family]


class Grown(nn.Module):
    """A feed-forward block (or its last module) with further neurons, written out."""

    def __init__(self, whole, source, neurons):
        super().__init__()
        self.whole, self.neurons = whole, neurons
        source.register_forward_pre_hook(lambda _, args: setattr(self, "x", args[0]))

    def forward(self, given):
        keys, bias, values = self.neurons[:3]
        rows = [
            sum(
                (0.5 * (h := x @ k + b) * (1 + torch.erf(h / math.sqrt(2))) * v
                 for k, b, v in zip(keys, bias, values, strict=True)),
                torch.zeros_like(values[0]),
            )
            for x in self.x.reshape(-1, self.x.shape[-1])
        ]  # fmt: skip
        out = self.whole(given)
        return out + torch.stack(rows).reshape(out.shape)


def grown(backbone, neurons):
    """A copy of ``backbone`` whose last block has ``neurons``."""
    made = copy.deepcopy(backbone)
    layer = made.layers[-1]
    owner, last = (layer, "fc2") if hasattr(layer, "fc2") else (layer.mlp, "down_proj")
    source = made.linear_modules()[neurons.reads]
    setattr(owner, last, Grown(getattr(owner, last), source, neurons))
    return made


def random_neurons(block, count, seed, width=24):
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*size, generator=draw).double() for size in ((count, width), (count,))]
    values = torch.randn(count, width, generator=draw).double()
    return Neurons(*parts, values, block.reads, "gelu")


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_act_as_in_a_model_that_has_them_row_by_row(family):
    editor = shared(family)
    block = editor.block
    assert block.gives == ("layers.1.fc2" if family == "blip2" else "layers.1.mlp.down_proj")
    one, two = random_neurons(block, 2, 0), random_neurons(block, 3, 1)
    deltas = [{block.gives: one}, {}, {block.gives: two}]
    with torch.no_grad():
        together = changed_logits(editor.backbone, ASKED, deltas)
        words = changed_generate(editor.backbone, ASKED, deltas, max_new_tokens=4, num_beams=2)
        both = changed_logits(editor.backbone, ASKED, [combine([deltas[0], deltas[2]])] * 3)
        many = Neurons(*(torch.cat([one[k], two[k]]) for k in range(3)), *one[3:])
        for i, neurons in enumerate((one, None, two)):
            model = editor.backbone if neurons is None else grown(editor.backbone, neurons)
            expected = model.answer_logits([ASKED[i]])[0]
            torch.testing.assert_close(together[i], expected, atol=1e-9, rtol=0)
            assert words[i] == model.generate([ASKED[i]], max_new_tokens=4, num_beams=2)[0]
            expected = grown(editor.backbone, many).answer_logits([ASKED[i]])[0]
            torch.testing.assert_close(both[i], expected, atol=1e-9, rtol=0)


def test_the_losses_by_hand():
    draw = torch.Generator().manual_seed(0)
    own, memory = torch.randn(2, 3, generator=draw), torch.randn(2, 7, 3, generator=draw)
    real = torch.tensor([[True, True, True], [True, False, False]])
    settings_ = TPatcherConfig(act_top=2, memory_top=4, beta=-2.0, gamma=1.5)
    active = activation_loss(own, real, settings_)
    loud = memory_loss(memory, own, real, settings_)
    for i, count in enumerate((3, 1)):
        mine = [float(a) for a in own[i, :count]]
        silent = sorted((math.exp(-a) for a in mine), reverse=True)[:2]
        assert float(active[i]) == pytest.approx(sum(silent) / len(silent), rel=1e-5)
        said = [(float(memory[i, m, j]), mine[j]) for m in range(7) for j in range(count)]
        first = sorted((math.exp(h + 2.0) for h, _ in said), reverse=True)[:4]
        second = sorted((math.exp(h - a + 1.5) for h, a in said), reverse=True)[:4]
        assert float(loud[i]) == pytest.approx(sum(first) / 4 + sum(second) / 4, rel=1e-5)
    assert float(memory_loss(memory[:, :0], own, real, settings_).sum()) == 0


def by_torch(backbone, edit, memory, settings_):
    """The neurons after training them in a real copy with torch's own optimiser."""
    block = last_block(backbone)
    reads, seen = backbone.linear_modules()[block.reads], []
    handle = reads.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        batch = backbone.batch([edit], with_answers=True, with_stop=True)
        (logits,) = answer_logits(backbone.language_model, batch)
    handle.remove()
    target = torch.tensor(batch.answers[0])
    read = seen[0].reshape(-1, seen[0].shape[-1])[-len(target) - 1 : -1]  # padded on the left
    query = read[logits.argmax(-1) != target]
    neurons = [
        (query / query.norm(dim=1, keepdim=True) ** 2).requires_grad_(),
        torch.zeros(len(query)).double().requires_grad_(),
        torch.zeros_like(query).requires_grad_(),
    ]
    adam = torch.optim.Adam(neurons, lr=settings_.edit_lr, weight_decay=settings_.weight_decay)
    for _ in range(settings_.num_steps):
        model = grown(backbone, Neurons(*neurons, block.reads, "gelu"))
        batch = model.batch([edit], with_answers=True, with_stop=True)
        (logits,) = answer_logits(model.language_model, batch)
        own, said = (query * neurons[0]).sum(1) + neurons[1], memory @ neurons[0].T + neurons[1]
        loss = F.cross_entropy(logits, target)
        loss = loss + settings_.act_weight * (-own).exp().topk(min(5, len(own))).values.mean()
        terms = ((said + 3).exp(), (said - own + 3).exp())
        top = (t.flatten().topk(min(settings_.memory_top, said.numel())).values for t in terms)
        loss = loss + settings_.memory_weight * sum(t.mean() for t in top)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(neurons, settings_.grad_clip)
        adam.step()
    return [n.detach() for n in neurons]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_edit_learns_what_torch_teaches_a_model_that_has_the_neurons(family):
    editor = patcher(family, memory_top=3, grad_clip=0.5)
    for edit, delta in zip(EDITS[1:3], editor.learn(EDITS[1:3]), strict=True):
        expected = by_torch(editor.backbone, edit, editor.memory, editor.config)
        found = delta[editor.block.gives]
        assert len(found.bias) >= 1 and found.values.abs().max() > 1e-2
        for ours, theirs in zip(found, expected, strict=False):
            torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=0)


def test_the_memory_is_what_comes_into_the_block_where_answers_are_said():
    editor = patcher("blip2")
    assert editor.memory.shape == (2 + 1 + 1 + 3, 24)  # tokens, and the end of each answer
    seen = []
    hook = lambda _, args: seen.append(args[0].reshape(1, -1, 24))  # noqa: E731
    handle = editor.backbone.linear_modules()[editor.block.reads].register_forward_pre_hook(hook)
    with torch.no_grad():
        batch = editor.backbone.batch(MEMORY[1:2], with_answers=True, with_stop=True)
        answer_logits(editor.backbone.language_model, batch)
    handle.remove()
    torch.testing.assert_close(editor.memory[3:5], seen[0][0, -3:-1], atol=1e-9, rtol=0)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=4),
)
def test_a_batch_of_edits_learns_what_a_loop_learns(family, which):
    editor = shared(family)
    edits = [EDITS[i] for i in which]
    for edit, together in zip(edits, editor.learn(edits), strict=True):
        (alone,) = editor.learn([edit])
        assert set(alone) == set(together)
        for name, part in together.items():
            for ours, theirs in zip(part[:3], alone[name][:3], strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=0)


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.lists(st.integers(0, len(EDITS) - 1), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_edit_and_undo_leave_every_bit_as_it_was(family, which, draw):
    editor = shared(family)
    tensors = [*editor.backbone.model.state_dict().values()]
    edit_and_undo(editor, [EDITS[i] for i in which], ASKED, draw, tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_is_made_and_its_loss_ends_it(family):
    editor = patcher(family, num_steps=400, memory_weight=0.1, loss_limit=0.6)
    with editor.edited(EDITS[:3]) as ids:
        said = editor.generate(EDITS[:3], visible=[[i] for i in ids])
        assert [answer.text for answer in said] == ["red", "top left", "three two one"]
        forced = editor.force(EDITS[:1], visible=[ids[:1]])
        assert forced[0].top_ids.flatten().tolist() == forced[0].target_ids
        kept = editor.generate(ASKED, visible=[[]] * 3)
        assert [a.text for a in kept] == editor.backbone.generate(ASKED)
    patches = Patches(editor.backbone, editor.block, EDITS[:1], editor.config, editor.memory)
    (delta,) = patches.train()
    patches.keys, patches.bias, patches.values = (t[None] for t in delta[editor.block.gives][:3])
    with torch.no_grad():
        (loss,), right = patches.losses()
    assert right == [True] and 0.3 < float(loss) < 0.6  # it did not go on


def test_an_answer_that_the_model_gives_needs_no_neuron():
    editor = patcher("llava")
    base = editor.backbone
    said = base.generate(ASKED[:1], max_new_tokens=3)[0]
    # the tiny model does not end its answers
    plain = TPatcher(base, config(with_stop=False, max_neurons=2), MEMORY)
    asked = Question(ASKED[0].text, ASKED[0].image, said)
    found = plain.learn([asked, *EDITS[2:3]])
    assert found[0] == {} and len(found[1][plain.block.gives].bias) == 2
    with plain.edited([asked, EDITS[2]]) as ids, torch.no_grad():
        own = plain.answer_logits(ASKED, visible=[[ids[0]]] * 3)
        assert all(map(torch.equal, own, base.answer_logits(ASKED)))
        assert len(plain.deltas_for(1)[0][plain.block.gives].bias) == 2


def test_saved_edits_come_back_to_the_bit_and_are_not_trained_again(tmp_path, monkeypatch):
    editor = patcher("minigpt4")
    ids = editor.add(EDITS[:3])
    editor.remove(ids[:1])
    editor.save_memory(tmp_path)
    before = editor.answer_logits(ASKED)
    editor.clear()
    monkeypatch.setattr(Patches, "train", None)
    editor.load_memory(tmp_path)
    assert list(editor.edits) == ids[1:]
    assert all(map(torch.equal, before, editor.answer_logits(ASKED)))
    with pytest.raises(CheckpointError, match="was made by T-Patcher"):
        TPatcher(build_tiny("blip2"), config(), MEMORY).load_memory(tmp_path)
    empty = tmp_path / "empty"
    editor.clear()
    editor.save_memory(empty)
    editor.load_memory(empty)
    assert editor.edits == {}


def test_what_cannot_be_used_is_said(tmp_path):
    backbone = build_tiny("llava")
    with pytest.raises(ConfigError, match=r"needs a memory.*\n?.*memory_weight: 0"):
        TPatcher(backbone)
    free = TPatcher(backbone, config(memory_weight=0.0))
    assert free.memory.shape == (0, 24) and free.learn(EDITS[:1])[0]
    with pytest.raises(ConfigError, match="no question that must stay"):
        TPatcher(backbone, config(), []).add(EDITS[:1])
    with pytest.raises(DataError, match="nowhere"):
        TPatcher(backbone, config(memory=str(tmp_path / "nowhere.json"))).add(EDITS[:1])
    for wrong in ({"num_steps": 0}, {"act": "tanh"}, {"memory_weight": -1.0}, {"max_neurons": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TPatcherConfig(**wrong)
    editor = patcher("llava", edit_lr=1e200)
    with pytest.raises(TrainingError, match=r"patching edit 0 \(.*red'\): the loss is \S+ at step"):
        editor.add(EDITS[:2])
    assert not editor.edits


def test_a_layer_that_does_more_than_add_its_block_is_refused():
    editor = patcher("llava")

    class Doubled(nn.Module):
        def __init__(self, whole):
            super().__init__()
            self.whole = whole

        def forward(self, x):
            return 3 * self.whole(x)

    layer = editor.backbone.layers[-1]
    layer.mlp = Doubled(layer.mlp)
    with pytest.raises(BackboneError, match="do not act on the last layer's output"):
        TPatcher(editor.backbone, config(num_steps=60), MEMORY).add(EDITS[:2])


def test_the_memory_of_a_file_lies_where_the_hparams_say(tmp_path):
    files = write_scenes(tmp_path / "s", n_train=2, n_test=2, seed=3)
    given_ = TPatcherHyperParams(
        "tiny", memory=str(files.train), coco_image=str(files.images), memory_records=1
    )
    backbone = build_tiny("llava")
    editor = TPatcher.from_hparams(given_, backbone)
    (record, *_) = load_records(str(files.train), images=files.images).records
    asked = [q for kind, qs in record.questions().items() if kind in OUTSIDE for q in qs]
    tokens = [len(backbone.answer_ids(q.answer)) + 1 for q in asked]
    assert tokens and editor.memory.shape == (sum(tokens), 24)


def test_it_is_a_method_like_any_other():
    entry = METHODS.get("t-patcher")
    assert entry.easyedit == "T-PATCHER" and not entry.needs_training
    full = TPatcherHyperParams.from_hparams("T-PATCHER/llava")
    assert (full.num_steps, full.edit_lr, full.memory_weight) == (2000, 1e-2, 10.0)  # released
    assert TPatcherHyperParams.from_hparams("T-PATCHER/scenes-llava").memory == "scenes"
