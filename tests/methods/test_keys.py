"""The table of keys: any order of changes, what earlier snapshots see, and what is nearest."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods import keys as module
from easyedit_mm_plugins.methods.keys import METRICS, KeyTable

DIM = 4
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "let go"]), st.integers(0, 6)), max_size=40
)


def key(n: int) -> torch.Tensor:
    """One of few, so that there are equal ones."""
    return torch.randn(DIM, generator=torch.Generator().manual_seed(n % 5))


def expected(query, model, metric, visible=None):
    """(score, id) by comparing one at a time, the newest of equal ones first."""
    seen = [i for i in model if visible is None or i in visible]
    scored = [(float(METRICS[metric](query[None], model[i][None])), i) for i in seen]
    return sorted(reversed(scored), key=lambda pair: -round(pair[0], 4))


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(["dot", "distance"]), st.integers(0, 30), st.integers(1, 4))
def test_snapshots_see_what_was_there_in_any_order_of_changes(steps, metric, seed, k):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SPARE", 2)  # removed rows are left out early
        table, model, n, earlier = KeyTable(DIM, metric=metric), {}, 0, []
        for action, number in steps:
            if action == "add":
                new = {f"e{n + i}": key(n + i) for i in range(number)}
                n += number
                table.add(list(new), torch.stack([*new.values()]) if new else torch.empty(0, DIM))
                model |= new
            elif action == "remove":
                gone = list(model)[number : number + 3]
                table.remove(gone)
                model = {i: row for i, row in model.items() if i not in gone}
            else:  # rows that only these could see may be written over
                del earlier[number:]
            earlier.append((table.snapshot(), dict(model)))
    queries = torch.randn(2, DIM, generator=torch.Generator().manual_seed(seed))
    for now, kept in earlier:
        assert now.ids == list(kept) and len(now) == len(kept)
        assert torch.equal(now.tensor, torch.stack([*kept.values()]) if kept else now.tensor[:0])
        some = [set(now.ids[::2]) | {"e999"}, now.ids[:1]]
        for visible in (None, some):
            found = now.nearest(queries, visible, k)
            for row, near in enumerate(found):
                own = expected(queries[row], kept, metric, visible and visible[row])[:k]
                assert [f.id for f in near] == [i for _, i in own]
                assert [f.score for f in near] == pytest.approx([s for s, _ in own], abs=1e-4)


def test_the_newest_of_equal_keys_is_found_wherever_it_lies():
    table = KeyTable(64)
    row = torch.nn.functional.normalize(torch.randn(1, 64), dim=-1)
    others = torch.nn.functional.normalize(torch.randn(997, 64), dim=-1)
    table.add(["old"], row)
    table.add([f"o{i}" for i in range(997)], others)
    table.add(["new"], row)
    assert [near.id for near in table.snapshot().nearest(row, k=2)[0]] == ["new", "old"]
    table.remove(["new"])
    assert table.snapshot().nearest(row)[0][0].id == "old"


def test_adding_and_removing_one_row_copies_no_others():
    table = KeyTable(DIM)
    table.add([f"e{i}" for i in range(1000)], torch.randn(1000, DIM))
    table.remove(table.add(["x"], torch.zeros(1, DIM)).ids[-1:])  # grows, with room to spare
    place = table.snapshot().tensor.data_ptr()
    for n in range(200):
        held = table.snapshot() if n % 3 else None  # one that is still read
        table.add([f"x{n}"], torch.zeros(1, DIM))
        table.remove([f"x{n}"])
        assert table.snapshot().tensor.data_ptr() == place and (held is None or len(held) == 1000)
    assert len(table.snapshot()._rows.ids) < 1003  # nor do removed rows pile up
    for n in range(0, 1000, 2):
        table.remove([f"e{n}"])
    assert len(table.snapshot()) == 500 and table.snapshot().ids[0] == "e1"


@pytest.mark.parametrize("metric", ["dot", "distance"])
def test_an_index_finds_what_comparing_with_all_finds(metric, monkeypatch):
    """Real use: queries near a key; rows come, go and come again, and an older snapshot is read."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "INDEX_FROM", 1000)
    monkeypatch.setattr(module, "_LATEST", 100)
    torch.manual_seed(0)
    table, exact = KeyTable(16, metric=metric), KeyTable(16, metric=metric, approximate=False)
    earlier, n = [], 0

    def change(count, gone=()):
        nonlocal n
        ids, rows = [f"e{n + i}" for i in range(count)], torch.randn(count, 16)
        rows = torch.nn.functional.normalize(rows, dim=-1)
        n += count
        for one in (table, exact):
            one.remove([i for i in gone if i in one.snapshot()])
            one.add(ids, rows)
        earlier.append((table.snapshot(), exact.snapshot()))

    change(1500)
    assert table.snapshot()._rows.indexed and not exact.snapshot()._rows.indexed
    for number in range(20):
        change(60, [f"e{i}" for i in range(number * 40, number * 40 + 70)])
    change(5, table.snapshot().ids[-300:])  # rows that the index holds are written over
    change(5000)  # the cells are learned anew
    change(0, table.snapshot().ids[100:6000])  # and most are removed
    change(3)
    found = 0
    for now, right in earlier:
        assert now.ids == right.ids
        queries = right.tensor[torch.randint(len(right), (20,))]
        queries = queries + 0.02 * torch.randn_like(queries)
        pairs = zip(now.nearest(queries), right.nearest(queries), strict=True)
        found += sum(a[0].id == b[0].id for a, b in pairs)
        for own in now.nearest(queries[:2], k=3):
            assert len(own) == 3 and all(near.id in now for near in own)
        some = [right.ids[:5]] * 20
        assert [a[0].id for a in now.nearest(queries, some)] == [
            b[0].id for b in right.nearest(queries, some)
        ]
    assert found >= 0.99 * 20 * len(earlier)


def test_an_index_is_read_while_rows_come_and_go(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(module, "INDEX_FROM", 500)
    monkeypatch.setattr(module, "_LATEST", 20)
    torch.manual_seed(0)
    table, stop = KeyTable(16), threading.Event()
    rows = torch.nn.functional.normalize(torch.randn(600, 16), dim=-1)
    table.add([f"e{i}" for i in range(600)], rows)

    def change():
        n = 600
        while not stop.is_set():
            new = torch.nn.functional.normalize(torch.randn(30, 16), dim=-1) / 2
            table.add([f"e{n + i}" for i in range(30)], new)
            table.remove([f"e{n + i}" for i in range(0, 30, 2)])
            n += 30

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            for n in range(300):
                (near,) = table.snapshot().nearest(rows[n % 600][None])
                assert near[0].id == f"e{n % 600}" and near[0].score == pytest.approx(1)
        finally:
            stop.set()
        changing.result()


def test_what_does_not_fit_is_refused_whole():
    table = KeyTable(DIM)
    table.add(["a", "b"], torch.ones(2, DIM))
    with pytest.raises(ValueError, match=r"need keys \[1, 4\]"):
        table.add(["c"], torch.ones(1, 3))
    with pytest.raises(ValueError, match="not finite"):
        table.add(["c"], torch.full((1, DIM), float("nan")))
    with pytest.raises(KeyError, match="c"):
        table.remove(["a", "c"])
    now = table.snapshot()
    assert now.ids == ["a", "b"] and "c" not in now and torch.equal(now.of(["b"]), now.tensor[1:])
    with pytest.raises(KeyError, match="c"):
        now.of(["a", "c"])
    with pytest.raises(ConfigError, match="1 rows for 2 questions"):
        now.nearest(torch.ones(2, DIM), [["a"]])
    assert KeyTable(DIM).snapshot().nearest(torch.ones(2, DIM)) == [[], []]


def test_a_snapshot_stays_as_it_is_when_the_table_is_made_anew_without_removed_rows(monkeypatch):
    table, held = KeyTable(DIM), []
    without = module._Rows.without

    def observed(self, *args):
        held.append(table.snapshot())  # what another thread may read just then
        return without(self, *args)

    monkeypatch.setattr(module._Rows, "without", observed)
    table.add([f"e{i}" for i in range(400)], torch.arange(400.0)[:, None].expand(-1, DIM))
    first = 0
    while not held:
        table.remove([f"e{first}"])
        first += 1
    table.remove(["e399"])
    table.add(["new"], torch.full((1, DIM), -1.0))
    kept = range(first, 400)
    assert held[0].ids == [f"e{n}" for n in kept]
    assert held[0].tensor[:, 0].tolist() == [float(n) for n in kept]


def test_a_change_is_seen_whole_or_not_at_all():
    """Pairs of keys come and go; no reader ever finds half a pair, or another row's key."""
    table, stop = KeyTable(DIM), threading.Event()
    table.add(["a0", "b0"], torch.zeros(2, DIM))

    def change():
        n = 1
        while not stop.is_set():
            table.add([f"a{n}", f"b{n}"], torch.full((2, DIM), float(n)))
            table.remove([f"a{n - 1}", f"b{n - 1}"])
            n += 1

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            for _ in range(1500):
                now = table.snapshot()
                ids, rows = now.ids, now.tensor
                assert len(ids) in (2, 4) and [i[1:] for i in ids[::2]] == [
                    i[1:] for i in ids[1::2]
                ]
                assert rows[:, 0].tolist() == [float(i[1:]) for i in ids]
                (best,) = now.nearest(torch.ones(1, DIM))
                assert best[0].id == ids[-1] and best[0].score == DIM * float(ids[-1][1:])
        finally:
            stop.set()
        changing.result()
