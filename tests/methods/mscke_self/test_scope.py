"""The two heads: their equations, look-ups, what they read, thresholds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke_self import SelfScope, SelfScopeConfig
from easyedit_mm_plugins.methods.mscke_self.calibration import calibrate
from easyedit_mm_plugins.methods.mscke_self.reading import picture_places
from easyedit_mm_plugins.methods.mscke_self.scope import K, U, pooled
from easyedit_mm_plugins.methods.store import EditStore, Kept

D, P = 8, 4


def scope(**config) -> SelfScope:
    torch.manual_seed(0)
    return SelfScope(SelfScopeConfig(layer=1, **config), D, P).eval()


def unit(*values: float, width: int) -> torch.Tensor:
    vector = torch.zeros(width)
    vector[: len(values)] = torch.tensor(values)
    return vector / vector.norm()


def key(asked, picture) -> torch.Tensor:
    """A key by hand; ``picture`` None: none."""
    seen = torch.zeros(K)
    if picture is None:
        seen[-1] = 1
    else:
        seen[:-1] = unit(*picture, width=K - 1)
    return torch.cat([unit(*asked, width=U), seen])


def in_force(heads: SelfScope, keys, texts=None) -> EditStore:
    store = EditStore(heads.stored, same=heads.same)
    texts = texts or [f"q{i}" for i in range(len(keys))]
    store.add([Question(t, None, "a") for t in texts], Kept(torch.stack(keys)))
    return store


def test_keys_and_scores_are_the_equations():
    heads = scope()
    states, places = torch.randn(3, D), torch.randn(2, P, D)
    keys = heads.keys(states, [0, 2], places).detach().double().numpy()
    weights = {n: t.double().numpy() for n, t in heads.state_dict().items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def gelu(x):
        return x * torch.special.ndtr(torch.from_numpy(x)).numpy()

    u = linear(gelu(linear(norm(states.double().numpy(), "asked.0"), "asked.1")), "asked.3")
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    seen = linear(norm(places.double().numpy(), "place.0"), "place.1").reshape(2, -1)
    p = linear(gelu(linear(seen, "picture.0")), "picture.2")
    p /= np.linalg.norm(p, axis=-1, keepdims=True)
    assert np.allclose(keys[:, :U], u, atol=1e-5)
    assert np.allclose(keys[[0, 2], U:-1], p, atol=1e-5)
    assert (keys[1, U:-1] == 0).all() and keys[:, -1].tolist() == [0, 1, 0]
    with torch.no_grad():
        s = heads.probability(torch.tensor(u[0] @ u[1])).item()
    assert s == pytest.approx(1 / (1 + np.exp(7 - 10 * (u[0] @ u[1]))), abs=1e-5)


def test_an_edit_fires_where_picture_and_question_agree_and_the_best_product_wins():
    heads = scope(picture_threshold=0.75)
    store = in_force(
        heads,
        [
            key((1, 0.6), (1,)),  # another question about the picture, but near
            key((1, 0), (1,)),
            key((1, 0), (0, 1)),  # the same question about another picture
            key((1, 0), None),
        ],
    )
    ask = torch.stack([key((1, 0), (1, 0.3)), key((1, 0), (1, 3)), key((1, 0), None)])
    hits = heads.lookup(store.now, ask, 0.5)
    assert [h.id for h in hits] == ["e2", "e3", "e4"]
    assert heads.lookup(store.now, ask[:1], 0.5, [["e1", "e9"]])[0].id == "e1"
    assert heads.lookup(store.now, ask[:1], 0.5, [["e3"]])[0] == (None, 0.0)
    assert heads.lookup(store.now, ask[:1], 1.0)[0].score < 1.0  # nothing reaches it
    assert heads.lookup(store.now, ask[:1], 0.5, [[]])[0] == (None, 0.0)
    far = heads.lookup(store.now, key((0, 1), (1,))[None], 0.5)[0]  # right picture, wrong question
    assert far.id == "e1" and far.score < 0.5
    other = heads.lookup(store.now, key((1, 0), (0, 0, 1))[None], 0.5)[0]  # the other way round
    assert other == (None, 0.0)
    with pytest.raises(ConfigError, match="visible"):
        heads.lookup(store.now, ask, 0.5, [["e1"]])


def test_what_fires_comes_before_a_better_product_that_does_not():
    heads = scope(picture_threshold=0.1)
    store = in_force(heads, [key((1, 0.75), (1,)), key((1, 0), (1, 4))])
    hit = heads.lookup(store.now, key((1, 0), (1,))[None], 0.9)[0]
    assert hit.id == "e2" and hit.score >= 0.9
    lower = heads.lookup(store.now, key((1, 0), (1,))[None], 0.5)[0]
    assert lower.id == "e1"


def test_pictures_are_looked_at_only_where_a_question_is_meant():
    heads = scope()
    store = in_force(heads, [key((1, 0), (1,)), key((1, 0), (0, 1))])
    asked = torch.stack([key((0, 1), (1,)), key((1, 0), (0, 1)), key((0, 1), (0, 1))])
    looked = []

    def pictures(rows):
        looked.append(list(rows))
        return asked[list(rows), U:]

    hits = heads.decide(store.now, asked[:, :U], pictures, 0.5)
    assert looked == [[1]] and hits[1].id == "e2"
    assert hits == heads.lookup(store.now, asked, 0.5)
    heads.decide(store.now, asked[::2, :U], pictures, 0.5)
    assert looked == [[1]]


def test_bound_to_the_thing_pictures_do_not_matter_but_having_one_does():
    heads = scope(binding="thing")
    states = torch.randn(1, D)
    with_one, without = (
        heads.keys(states, [0], torch.empty(0)),
        heads.keys(states, [], torch.empty(0)),
    )
    store = in_force(heads, [with_one[0].detach()])
    assert heads.lookup(store.now, with_one, 0.5)[0].id == "e1"
    assert heads.lookup(store.now, without, 0.5)[0].id is None


def test_very_many_edits_are_proposed_by_the_table_and_found_all_the_same(monkeypatch):
    heads = scope()
    torch.manual_seed(1)
    keys = [key(torch.randn(6).tolist(), torch.randn(6).tolist()) for _ in range(200)]
    store = in_force(heads, keys)
    ask = torch.stack(keys[::20])
    every = heads.lookup(store.now, ask, 0.5)
    monkeypatch.setattr("easyedit_mm_plugins.methods.mscke_self.scope.INDEX_FROM", 10)
    monkeypatch.setattr("easyedit_mm_plugins.methods.keys.INDEX_FROM", 10)
    assert [h.id for h in heads.lookup(store.now, ask, 0.5)] == [h.id for h in every]
    assert [h.id for h in every] == [f"e{i + 1}" for i in range(0, 200, 20)]


def test_edits_of_one_meaning_are_found_on_one_picture_only():
    heads = scope()
    heads.same_threshold = 0.94
    store = in_force(heads, [key((1, 0), (1,)), key((1, 0), (0, 1)), key((1, 0.01), (1, 0.1))])
    assert store.now.newer == {"e1": ("e3",)}
    store.remove(["e3"])
    assert store.now.newer == {}


def test_tokens_are_pooled_over_a_square_or_in_runs():
    grid = torch.arange(16.0)[:, None]  # 4 x 4
    assert pooled(grid, 4)[:, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled(grid, 16) is grid
    assert pooled(torch.arange(6.0)[:, None], 3)[:, 0].tolist() == [0.5, 2.5, 4.5]
    assert pooled(torch.ones(2, 3, D), 4).shape == (2, 4, D)  # fewer tokens than places


def test_ragged_pictures_are_read_row_by_row():
    torch.manual_seed(0)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    mask[0, 1:5] = mask[2, 0:8] = True
    mask[2, 3] = False  # a token between an image's
    embeds = torch.randn(3, 9, D)
    batch = SimpleNamespace(image_mask=mask, inputs_embeds=embeds, image_spans=[(1, 5), None, None])
    rows, places = picture_places(batch, P)
    assert rows == [0, 2] and places.shape == (2, P, D)
    assert torch.equal(places[0], embeds[0, 1:5])
    assert torch.allclose(places[1], pooled(embeds[2][mask[2]], P))
    none = SimpleNamespace(image_mask=mask[1:2], inputs_embeds=embeds[1:2], image_spans=[None])
    assert picture_places(none, P)[0] == []


def test_thresholds_come_from_the_worst_of_all_edits_in_force():
    heads = scope()
    edits = torch.stack([key((1, 0), (1,)), key((0, 1), (0, 1)), key((1, 1), (0, 0, 1))])
    asked, own, kinds = [], [], []
    for i, edit in enumerate(edits):
        near = edit.clone()
        near[U + 5] = 0.3
        near[U:] /= near[U:].norm()
        other = edit.clone()
        other[:U] = unit(0, 0, 1, width=U)
        asked += [edit, near, other]
        own += [i] * 3
        kinds += ["edit", "image_rephrase", "out_scope"]
    found = calibrate(heads, edits, torch.stack(asked), torch.tensor(own), kinds)
    assert found.balanced_accuracy == 1 and set(found.right.values()) == {1.0}
    assert found.edits == 3 and 0 < found.threshold < 0.95 and 0.3 <= found.picture <= 0.95
    assert found.threshold <= found.same <= 1
    swapped = ["out_scope", "out_scope", "edit"] * 3
    given = heads, edits, torch.stack(asked), torch.tensor(own), swapped
    assert calibrate(*given).balanced_accuracy < 0.8
    assert calibrate(*given, at_most=0).fires["out_scope"] == 0


def test_edits_that_are_not_in_force_together_do_not_meet():
    heads = scope()
    edits = torch.stack([key((1, 0), (1,)), key((1, 0.5), (1, 0.01)), key((0, 1), (0, 1))])
    own, kinds = torch.tensor([0, 1, 2, 0]), ["edit", "edit", "edit", "out_scope"]
    asked = torch.cat([edits, key((1, 0.5), (1,))[None]])
    alone = calibrate(heads, edits, asked, own, kinds, together=1)
    both = calibrate(heads, edits, asked, own, kinds)
    assert alone.scores["out_scope"][0] < both.scores["out_scope"][0]
    assert alone.edits == 1 and both.edits == 3


def test_saved_heads_are_the_same_and_damage_is_said(tmp_path):
    heads = scope(binding="thing", picture_threshold=0.6)
    heads.picture_threshold, heads.same_threshold = 0.45, 0.97
    heads.save_pretrained(tmp_path, half=False)
    again = SelfScope.from_pretrained(tmp_path)
    assert again.fingerprint() == heads.fingerprint()
    assert (again.picture_threshold, again.same_threshold, again.layer) == (0.45, 0.97, 1)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"thing"', '"things"'))
    with pytest.raises(CheckpointError, match="binding"):
        SelfScope.from_pretrained(tmp_path)
