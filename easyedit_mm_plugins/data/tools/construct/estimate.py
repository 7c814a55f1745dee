"""Estimate the requests and tokens of a build without sending any."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ....core.errors import DataError
from .answers import AnswerPool
from .ask import Asker
from .cache import AnswerCache
from .case import BuildConfig
from .judge import Judge, image_digest
from .prompts import rephrase_prompt, scope_prompt
from .sources import ImageGroup, Source


def gather(source: Source, config: BuildConfig) -> tuple[list[ImageGroup], AnswerPool]:
    """The groups to build from, and the answers of all of the source's groups."""
    groups = list(source.groups())
    pool = AnswerPool(groups)
    groups = groups[: config.limit]
    if config.max_questions is not None:
        groups = [ImageGroup(g.image_id, g.image, g.pairs[: config.max_questions]) for g in groups]
    return groups, pool


def estimate(
    source: Source, judge: Judge, config: BuildConfig, cache: AnswerCache | None = None
) -> dict[str, Any]:
    """Requests of a build by kind, and their tokens by the judge's own estimate.

    Scope questions in the cache are not counted. How many in-scope answers are asked for depends on
    the verdicts; the estimate assumes one for every third question.
    """
    groups, _ = gather(source, config)
    asker = Asker(judge, cache or AnswerCache(), config.tries)
    usable = [g for g in groups if len(g.pairs) > 1]
    counts: dict[str, float] = defaultdict(float)
    tokens = [0.0, 0.0]

    def add(kind: str, prompt: str, with_image: bool, times: float = 1) -> None:
        counts[kind] += times
        for i, n in enumerate(judge.estimate(prompt, with_image)):
            tokens[i] += n * times

    for group in usable:
        first = group.pairs[0]
        digest = None
        if len(asker.cache):
            try:
                digest = image_digest(source.image_root / group.image)
            except DataError:
                continue  # the build leaves such an image out
        for pair in group.pairs[1:]:
            texts = (first.question, first.answer, pair.question, pair.answer)
            for image in (True, False):
                prompt = scope_prompt(*texts, with_image=image)
                if asker.key(prompt, digest if image else None, (), 8) in asker.cache:
                    counts["cached"] += 1
                else:
                    add("scope with image" if image else "scope by text", prompt, image)
            add("in-scope answers", prompt, True, 1 / 3)
        if not first.rephrase:
            add("rephrase", rephrase_prompt(first.question), False)
        if config.alt == "judge":
            add("alternatives", first.question, True)
    return {
        "images": len(groups),
        "usable images": len(usable),
        "question pairs": sum(len(g.pairs) - 1 for g in usable),
        "requests": {k: round(n) for k, n in counts.items() if k != "cached"},
        "requests in all": round(sum(n for k, n in counts.items() if k != "cached")),
        "scope questions in the cache": round(counts["cached"]),
        "tokens in": round(tokens[0]),
        "tokens out": round(tokens[1]),
    }
