"""Values within a limit."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from easyedit_mm_plugins.core.lru import LRU

CALLS = st.lists(st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 5), st.integers(0, 4)))


@given(CALLS, st.integers(0, 9))
def test_what_was_not_asked_for_longest_goes_and_sizes_never_exceed_the_limit(calls, limit):
    kept, model = LRU(limit, lambda value: value), OrderedDict()
    for call, key, value in calls:
        if call == "get":
            assert kept.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            kept.put(key, value)
            model.pop(key, None)
            model[key] = value
            while sum(model.values()) > limit:
                model.popitem(last=False)
        assert kept.used == sum(model.values()) <= limit
        assert len(kept) == len(model) and all(key in kept for key in model)


def test_each_value_counts_one_by_default_and_clear_forgets_all():
    kept = LRU(2)
    for key in "abc":
        kept.put(key, key.upper())
    assert [kept.get(key) for key in "abc"] == [None, "B", "C"]
    kept.clear()
    assert len(kept) == kept.used == 0


def test_several_threads_keep_the_limit():
    kept = LRU(3)

    def work(number):
        for i in range(2000):
            kept.put((number + i) % 7, i)
            kept.get(i % 7)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(kept) == kept.used == 3
