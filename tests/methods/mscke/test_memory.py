"""The edit memory: MSCKE eq. 1-2."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import CheckpointError, ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke import EditMemory

from ...conftest import picture

DIM = 4


def similarity(queries, keys):
    return torch.exp(-(torch.cdist(queries, keys) ** 2))


def feature(n: int) -> torch.Tensor:
    return torch.randn(DIM, generator=torch.Generator().manual_seed(n))


def test_the_most_similar_edit_is_found_eq_1_2():
    memory, keys = EditMemory(DIM), torch.randn(40, DIM)
    ids = memory.add([Question(f"q{i}", None, "a") for i in range(40)], keys)
    queries = torch.randn(7, DIM)
    hits = memory.lookup(queries, similarity)
    rho = similarity(queries, keys)
    assert [h.id for h in hits] == [ids[i] for i in rho.argmax(-1)]  # arg max, not arg min
    assert [h.score for h in hits] == pytest.approx(rho.max(-1).values.tolist())


def test_one_call_of_the_similarity_a_lookup_and_no_copy_of_the_keys():
    memory, calls = EditMemory(DIM), []
    memory.add([Question("q", None, "a")] * 30, torch.randn(30, DIM))
    place = memory.keys.data_ptr()

    def counted(queries, keys):
        calls.append((tuple(queries.shape), tuple(keys.shape), keys.data_ptr()))
        return similarity(queries, keys)

    memory.lookup(torch.randn(9, DIM), counted)
    assert calls == [((9, DIM), (30, DIM), place)]
    assert memory.keys.is_contiguous()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 5)), max_size=25))
def test_any_order_of_adding_and_removing_keeps_edits_and_features_together(steps):
    memory, model, n = EditMemory(DIM), {}, 0
    for action, k in steps:
        if action == "add":
            new = list(range(n, n + k))
            n += k
            keys = torch.stack([feature(i) for i in new]) if new else torch.empty(0, DIM)
            ids = memory.add([Question(f"q{i}", None, "a") for i in new], keys)
            assert not set(ids) & set(model)
            model |= dict(zip(ids, new, strict=True))
        else:
            gone = list(model)[k : k + 2]
            memory.remove(gone)
            for i in gone:
                del model[i]
        assert list(memory.edits) == list(model)
        assert [q.text for q in memory.edits.values()] == [f"q{i}" for i in model.values()]
        expected = [feature(i) for i in model.values()]
        assert torch.equal(memory.keys, torch.stack(expected) if expected else torch.empty(0, DIM))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=5))
def test_a_row_sees_its_visible_edits_only(rows):
    memory = EditMemory(DIM)
    ids = memory.add([Question(f"q{i}", None, "a") for i in range(8)], torch.randn(8, DIM))
    queries = torch.randn(len(rows), DIM)
    visible = [{f"e{i + 1}" for i in row} for row in rows]  # e9 and e10 are not in force
    for hit, seen, query in zip(
        memory.lookup(queries, similarity, visible), visible, queries, strict=True
    ):
        allowed = [i for i in ids if i in seen]
        if not allowed:
            assert hit == (None, 0.0)
            continue
        rho = similarity(query[None], memory.keys[[ids.index(i) for i in allowed]])[0]
        assert hit.id == allowed[int(rho.argmax())]
        assert hit.score == pytest.approx(float(rho.max()), abs=1e-6)


def test_an_empty_memory_finds_nothing_and_wrong_arguments_are_named():
    memory = EditMemory(DIM)
    assert memory.lookup(torch.randn(2, DIM), similarity) == [(None, 0.0)] * 2
    memory.add([Question("q", None, "a")], torch.randn(1, DIM))
    with pytest.raises(ConfigError, match="1 rows for 2 questions"):
        memory.lookup(torch.randn(2, DIM), similarity, [["e1"]])
    with pytest.raises(KeyError, match="e7"):
        memory.remove(["e1", "e7"])
    assert len(memory) == 1  # all or nothing


def test_adding_one_edit_does_not_copy_a_thousand():
    memory = EditMemory(DIM)
    memory.add([Question("q", None, "a")] * 1000, torch.randn(1000, DIM))
    memory.add([Question("q", None, "a")], torch.randn(1, DIM))  # grows, with room to spare
    place = memory.keys.data_ptr()
    for _ in range(50):
        memory.add([Question("q", None, "a")], torch.randn(1, DIM))
    assert memory.keys.data_ptr() == place


def test_saved_and_loaded(tmp_path):
    memory = EditMemory(DIM)
    edits = [
        Question("a", tmp_path / "x.png", "1"),
        Question("b", None, "2"),
        Question("c", picture(3), "3"),
    ]
    memory.add(edits, torch.randn(3, DIM))
    memory.remove(["e1"])
    memory.save(tmp_path, classifier="abc")
    again = EditMemory.load(tmp_path, classifier="abc")
    assert list(again.edits) == ["e2", "e3"]
    assert torch.equal(again.keys, memory.keys)
    assert again["e2"] == edits[1]
    assert again["e3"].image == tmp_path / "e3.png" and again["e3"].image.is_file()
    assert again.add([Question("d", None, "4")], torch.randn(1, DIM)) == ["e4"]
    with pytest.raises(CheckpointError, match="scope classifier abc"):
        EditMemory.load(tmp_path, classifier="other")
    (tmp_path / "memory.safetensors").write_bytes(b"123")
    with pytest.raises(CheckpointError, match="damaged"):
        EditMemory.load(tmp_path, classifier="abc")
