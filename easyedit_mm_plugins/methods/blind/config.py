"""Settings of the attackers."""

from __future__ import annotations

from typing import ClassVar

from ..settings import Count, ModelHParams, Share, Text, Whole, settings_class


@settings_class
class BlindHyperParams(ModelHParams):
    """Where an attacker learns. ``archive`` is a trained MSCKE, whose counterfactual model answers
    in scope; null: the shipped one."""

    train: Text = "scenes"
    """The training records: a data set's name, or a JSON file in FGVEdit's schema."""
    records: Count = 6000
    """At most so many of them, from the first."""
    pictures: Count = 2000
    """Fewer for attackers that are shown pictures."""
    answered: Count = 200
    """Fewer for attackers that are shown the base model's answers, some ten a record."""
    threshold: Share = 0.5
    """A question whose probability of being in scope is at least this is in scope."""
    seed: Whole = 0
    """Seed of what is random in the attacker's training."""

    _alg: ClassVar[str] = "BLIND"
    _title: ClassVar[str] = "attackers"
