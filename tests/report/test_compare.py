"""The paired tests of a report, against what they must come out as."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from easyedit_mm_plugins.evaluation.metrics import EVQA, FGVEDIT, summarise
from easyedit_mm_plugins.report.compare import holm, paired_tests

from ..support.exact import binomial_interval


def cases(**metrics):
    """Cases from lists of values per metric; the other metrics are missing."""
    names = [metric.name for metric in FGVEDIT.metrics]
    n = len(next(iter(metrics.values())))
    return {f"c{i}": {name: metrics.get(name, [None] * n)[i] for name in names} for i in range(n)}


def one_pair(first, second, **options):
    return paired_tests(FGVEDIT, [first, second], [(0, 1)], **options)[(0, 1)]


def test_p_is_that_of_all_permutations():
    """Ten cases have 1024 sign flips; the sampled p must be near the exact one."""
    a = np.array([100.0] * 7 + [0.0] * 3)
    b = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 50.0, 100.0, 100.0, 0.0, 50.0])
    difference = a - b
    observed = abs(difference.mean())
    flips = [abs(np.mean(difference * signs)) for signs in product([1, -1], repeat=10)]
    exact = np.mean([flip >= observed - 1e-9 for flip in flips])
    found = one_pair(cases(reliability=list(a)), cases(reliability=list(b)), samples=20_000)
    assert found["reliability"].difference == pytest.approx(difference.mean())
    assert found["reliability"].p == pytest.approx(exact, abs=0.012)
    assert 0.005 < exact < 0.5  # the comparison says something


def test_a_derived_metric_is_that_of_its_parts_over_the_cases_that_have_them():
    first = cases(specificity_in=[100, 100, None, 100], specificity_out=[100, None, 100, None])
    second = cases(specificity_in=[0, 100, None, 0], specificity_out=[100, None, 0, None])
    found = one_pair(first, second)["specificity"]
    means = [summarise(FGVEDIT, list(c.values()))[0]["specificity"] for c in (first, second)]
    assert (
        found.difference == pytest.approx(means[0] - means[1]) == pytest.approx((200 / 3 + 50) / 2)
    )
    assert found.n == 4


def test_equal_methods_are_not_told_apart_and_clear_ones_are():
    same = cases(reliability=[100.0, 0.0] * 20)
    found = one_pair(same, same)["reliability"]
    assert (found.difference, found.p, found.interval) == (0.0, 1.0, (0.0, 0.0))
    clear = one_pair(cases(reliability=[100.0] * 40), cases(reliability=[0.0] * 40))["reliability"]
    assert clear.p == 1 / 10_001 and clear.difference == 100


def test_the_interval_of_a_difference_holds_95_percent_of_the_resampled_ones():
    first = cases(reliability=[100.0] * 320 + [0.0] * 80)
    found = one_pair(first, cases(reliability=[0.0] * 400), samples=10, bootstrap=4000)
    exact = binomial_interval(400, 0.8, 0.95)
    assert found["reliability"].interval == pytest.approx(exact, abs=0.3)
    assert binomial_interval(400, 0.8, 0.90) != pytest.approx(exact, abs=0.5)


def test_the_order_of_a_pair_only_turns_the_sign():
    rng = np.random.default_rng(3)
    a, b = (cases(locality=list(rng.choice([0.0, 100.0], 30))) for _ in range(2))
    tests = paired_tests(FGVEDIT, [a, b], [(0, 1), (1, 0)])
    forth, back = tests[(0, 1)]["locality"], tests[(1, 0)]["locality"]
    assert forth.p == back.p and back.swapped().difference == forth.difference
    assert back.swapped().interval == pytest.approx(forth.interval)


def test_only_common_cases_count():
    first = cases(reliability=[100.0] * 6)
    second = {name: case for name, case in first.items() if name in ("c1", "c4")}
    found = one_pair(first, second)
    assert found["reliability"].n == 2 and found["reliability"].difference == 0
    assert one_pair(first, {"other": first["c0"]}) == {}
    assert "locality" not in found and "specificity" not in found
    assert paired_tests(FGVEDIT, [], []) == {}


def test_p_values_are_honest_where_methods_do_not_differ():
    """Below 0.05 in about one of twenty comparisons of methods that are equally good."""
    rng = np.random.default_rng(1)
    methods = [
        {
            f"c{i}": {metric.name: 100.0 * value for metric in EVQA.metrics}
            for i, value in enumerate(rng.random(60) < 0.7)
        }
        for _ in range(40)
    ]
    pairs = [(i, i + 1) for i in range(0, 40, 2)]
    ps = [found["average"].p for found in paired_tests(EVQA, methods, pairs, samples=999).values()]
    assert sum(p < 0.05 for p in ps) <= 4 and np.mean(ps) == pytest.approx(0.5, abs=0.25)


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
