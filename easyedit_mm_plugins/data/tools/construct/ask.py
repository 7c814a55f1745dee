"""Ask a judge, through the cache, and again where its reply cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import prompts
from .cache import AnswerCache, content_key
from .judge import Judge, image_digest


class Asker:
    """A judge with a cache in front of it.

    Args:
        judge: the model that replies.
        cache: where replies are kept.
        tries: how often a question is asked until the reply can be used.
    """

    def __init__(self, judge: Judge, cache: AnswerCache, tries: int = 3) -> None:
        self.judge, self.cache, self.tries = judge, cache, tries
        self._identity = judge.identity()

    def key(self, prompt: str, image: str | None, history: tuple[str, ...], max_tokens: int) -> str:
        """The cache's name for a request; ``image`` is the hash of the picture's file."""
        return content_key([self._identity, prompt, image, history, max_tokens])

    def verdict(self, q1: str, a1: str, q2: str, a2: str, image: Path | None) -> str:
        """Yes, No or Maybe; Maybe also if no reply was one of the three words."""
        prompt = prompts.scope_prompt(q1, a1, q2, a2, with_image=image is not None)
        found = self._ask(prompt, image, prompts.read_verdict, prompts.VERDICT_AGAIN, 8)
        return found or "Maybe"

    def rephrase(self, question: str) -> str | None:
        """Another wording, or None if no reply gave one."""
        return self._ask(
            prompts.rephrase_prompt(question),
            None,
            lambda reply: prompts.read_rephrase(reply, question),
            prompts.REPHRASE_AGAIN,
            64,
        )

    def after(self, q1: str, a1: str, new: str, q2: str, a2: str, image: Path) -> str | None:
        """The right answer to an in-scope question after the edit."""
        prompt = prompts.after_prompt(q1, a1, new, q2, a2)
        return self._ask(prompt, image, prompts.read_answer, prompts.ANSWER_AGAIN, 24)

    def alternative(self, question: str, answer: str, image: Path) -> str | None:
        """A counterfactual answer of the judge's own."""

        def read(reply: str) -> str | None:
            found = prompts.read_answer(reply)
            same = found and prompts.normalise(found) == prompts.normalise(answer)
            return None if same else found

        prompt = prompts.alternative_prompt(question, answer)
        return self._ask(prompt, image, read, prompts.ANSWER_AGAIN, 24)

    def _ask(
        self,
        prompt: str,
        image: Path | None,
        read: Callable[[str], str | None],
        again: str,
        max_tokens: int,
    ) -> str | None:
        digest = image_digest(image) if image is not None else None
        history: tuple[str, ...] = ()
        for _ in range(self.tries):
            reply = self.cache.ask(
                self.key(prompt, digest, history, max_tokens),
                partial(self.judge.reply, prompt, image, history, max_tokens),
            )
            found = read(reply)
            if found is not None:
                return found
            history = (*history, reply, again)
        return None
