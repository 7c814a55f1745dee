"""A share of the attack; ``make hostile`` makes all of it."""

from __future__ import annotations

import pytest

from .attack import run
from .kinds import KINDS


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name.replace(" ", "-"))
def test_hostile_input_is_refused_or_means_what_it_says(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tally = run(kind, kind.inputs[1], 0, tmp_path.resolve())
    found = [f"{n} times {what}\n    {example}" for what, (n, example) in tally.defects.items()]
    assert not found, "\n".join(found)
    assert tally.counts.total() > kind.inputs[1] / 2
