"""The nearest edit: MSCKE eq. 1-2."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.mscke.lookup import compare_all, lookup
from easyedit_mm_plugins.methods.store import EditStore, Kept

DIM = 4


def similarity(queries, keys):
    return torch.exp(-(torch.cdist(queries, keys) ** 2))


def store_of(n: int) -> EditStore:
    store = EditStore(DIM)
    store.add([Question(f"q{i}", None, "a") for i in range(n)], Kept(torch.randn(n, DIM)))
    return store


def test_the_most_similar_edit_is_found_eq_1_2():
    now, queries = store_of(40).now, torch.randn(7, DIM)
    hits = compare_all(now, queries, similarity)
    rho = similarity(queries, now.keys)
    assert [h.id for h in hits] == [now.ids[i] for i in rho.argmax(-1)]  # arg max, not arg min
    assert [h.score for h in hits] == pytest.approx(rho.max(-1).values.tolist())


def test_one_call_of_the_similarity_a_lookup_and_no_copy_of_the_keys():
    now, calls = store_of(30).now, []

    def counted(queries, keys):
        calls.append((tuple(queries.shape), tuple(keys.shape), keys.data_ptr()))
        return similarity(queries, keys)

    compare_all(now, torch.randn(9, DIM), counted)
    assert calls == [((9, DIM), (30, DIM), now.keys.data_ptr())]
    assert now.keys.is_contiguous()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([similarity, lambda q, k: -torch.cdist(q, k)]),
)
def test_a_row_sees_its_visible_edits_only(rows, alone, similar):
    now, queries = store_of(8).now, torch.randn(len(rows), DIM)
    visible = [{f"e{i + 1}" for i in row} for row in rows]  # e9 and e10 are not in force
    hits = compare_all(now, queries, similar, visible, alone=alone)
    for hit, seen, query in zip(hits, visible, queries, strict=True):
        allowed = [i for i in now.ids if i in seen]
        if not allowed:
            assert hit == (None, 0.0)
            continue
        rho = similar(query[None], now.keys[[now.ids.index(i) for i in allowed]])[0]
        assert hit.id == allowed[int(rho.argmax())]
        assert hit.score == pytest.approx(float(rho.max()), abs=1e-6)


def test_nothing_is_found_among_no_edits_and_wrong_arguments_are_named():
    queries = torch.randn(2, DIM)
    for find, rho in ((lookup, torch.exp), (compare_all, similarity)):
        assert find(EditStore(DIM).now, queries, rho) == [(None, 0.0)] * 2
        with pytest.raises(ConfigError, match="1 rows for 2 questions"):
            find(store_of(1).now, queries, rho, [["e1"]])


def test_the_newest_of_equal_edits_is_found():
    store, row = store_of(3), torch.randn(1, DIM)
    for _ in range(2):
        store.add([Question("q", None, "a")], Kept(row))
    now = store.now
    assert compare_all(now, row, similarity)[0].id == "e5"
    assert compare_all(now, row, similarity, [["e1", "e4", "e5"]], alone=True)[0].id == "e5"
    assert lookup(store_of(0).now, row, torch.exp) == [(None, 0.0)]
    store = EditStore(DIM, metric="distance")
    store.add([Question("q", None, "a")] * 2, Kept(row.repeat(2, 1)))
    assert lookup(store.now, row, torch.exp) == [("e2", 1.0)]
    assert lookup(store.now, row, torch.exp, [["e1", "e9"]]) == [("e1", 1.0)]
