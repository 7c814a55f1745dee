"""Counterfactual answers: plausible, of the same type, and not the right one.

The paper does not say where an edit's new answer comes from. Here it is drawn from the data's
answers to questions of the same type, in proportion to their frequency.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable

from .prompts import normalise
from .sources import QA, ImageGroup


class AnswerPool:
    """How often each answer occurs, by question type and answer type."""

    def __init__(self, groups: Iterable[ImageGroup]) -> None:
        self._fine: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._coarse: dict[str, Counter[str]] = defaultdict(Counter)
        for group in groups:
            for pair in group.pairs:
                self._fine[pair.question_type, pair.answer_type][pair.answer] += 1
                self._coarse[pair.answer_type][pair.answer] += 1

    def draw(self, pair: QA, seed: int) -> str | None:
        """A different answer for ``pair``, decided by the data, the pair and the seed alone.

        From the source's own alternatives if it has them, else from questions of the same type,
        else from all answers of the same answer type; None if there is no other answer at all.
        """
        rng = random.Random(f"alt {seed} {pair.qid} {pair.question}")
        taken = {normalise(a) for a in (pair.answer, *pair.accepted)}
        if pair.alternatives is not None:
            left = [a for a in pair.alternatives if normalise(a) not in taken]
            return rng.choice(left) if left else None
        none: Counter[str] = Counter()
        for pool in (
            self._fine.get((pair.question_type, pair.answer_type), none),
            self._coarse.get(pair.answer_type, none),
        ):
            others = sorted(answer for answer in pool if normalise(answer) not in taken)
            if others:
                return rng.choices(others, [pool[answer] for answer in others])[0]
        if pair.answer_type == "yes/no" and normalise(pair.answer) in ("yes", "no"):
            return "no" if normalise(pair.answer) == "yes" else "yes"
        return None
