"""How answers are obtained and compared, under a name that every result carries.

``generated``
    The model answers greedily; answers are compared whole, after normalisation
    (``data/matching.py``). This is what a user of the edited model sees. An answer that stays empty
    has not changed; but silence meets no target, and no edit generalises to it.
``teacher-forced``
    The target is given to the model, and at each answer position its top-1 token is read. Against
    the target: the share of positions where top-1 is the target's token. Against another model:
    the share of positions where both have the same top-1.
``released``
    Teacher-forced as in FGVEdit's release: agreement with the unedited model on image questions is
    counted over the top-10 token ids, position by position and rank by rank; text locality over
    the top-1; generality is the accuracy against y_e instead of the agreement of eq. 17.

Only answer positions are read. EasyEdit's HEAD counts prompt positions into locality as well, its
PyPI release does not; the prompt's positions say little about an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, UnknownNameError
from ..core.registry import did_you_mean
from ..data import Question
from ..data.matching import normalise, same_answer
from .metrics import Judged

if TYPE_CHECKING:
    from ..methods.base import Editor

PROTOCOLS = ("generated", "teacher-forced", "released")
_IMAGE_LOCALITY = ("out_scope", "image_loc")


@dataclass
class Reply:
    """One answer: a text (generated), or token ids per answer position (teacher-forced).

    Attributes:
        target_ids: the target's tokens, length n.
        top_ids: the model's k best tokens at each position, best first, n lists of k.
        route: id of the edit that answered, ``None`` for the base model.
        score: the editor's scope score, if it has one.
    """

    text: str = ""
    target_ids: list[int] | None = None
    top_ids: list[list[int]] | None = None
    route: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Protocol:
    """A named way to measure; see the module's docstring.

    Args:
        name: one of :data:`PROTOCOLS`.
        locality_top_k: ranks compared with the unedited model on image questions; by default 10
            under ``released`` and 1 otherwise.
        max_new_tokens: length limit of a generated answer.
        seed: of torch while answering, and of the bootstrap.
        bootstrap: resamples behind the 95 % intervals.

    Raises:
        UnknownNameError: no such protocol; offers the nearest name.
        ConfigError: a number out of range.
    """

    name: str = "generated"
    locality_top_k: int | None = None
    max_new_tokens: int = 8
    seed: int = 0
    bootstrap: int = 1000

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            hint = did_you_mean(str(self.name), [*PROTOCOLS])
            raise UnknownNameError(f"unknown protocol {self.name!r}; {hint}")
        if self.locality_top_k is None:
            object.__setattr__(self, "locality_top_k", 10 if self.name == "released" else 1)
        least = {"locality_top_k": 1, "max_new_tokens": 1, "bootstrap": 1, "seed": 0}
        for field, lowest in least.items():
            value = getattr(self, field)
            if not isinstance(value, int) or value < lowest:
                raise ConfigError(
                    f"protocol: {field} is {value!r}, but must be a whole number from {lowest} on"
                )
        if not self.forced and self.locality_top_k != 1:
            raise ConfigError(
                "protocol: locality_top_k compares ranks of tokens, but 'generated' compares texts",
                remedy="leave it at 1, or use 'teacher-forced' or 'released'",
            )

    @classmethod
    def of(cls, protocol: str | Protocol) -> Protocol:
        """``protocol`` itself, or the one of that name with its defaults."""
        return protocol if isinstance(protocol, Protocol) else cls(protocol)

    @property
    def forced(self) -> bool:
        """Whether answers are read under teacher forcing."""
        return self.name != "generated"

    def settings(self) -> dict[str, Any]:
        """Everything that can change a number."""
        return asdict(self)

    def ask(
        self,
        editor: Editor,
        questions: Sequence[Question],
        visible: Sequence[Collection[str]] | None = None,
    ) -> list[Reply]:
        """Put ``questions`` to ``editor`` in one call; row b sees the edits ``visible[b]``."""
        if not self.forced:
            answers = editor.generate(
                questions, visible=visible, max_new_tokens=self.max_new_tokens
            )
            return [Reply(text=a.text, route=a.route, score=a.score) for a in answers]
        forced = editor.force(questions, visible=visible, top_k=self.locality_top_k or 1)
        tokenizer = getattr(editor.backbone, "tokenizer", None)
        replies = []
        for answer in forced:
            top = [[int(i) for i in position] for position in answer.top_ids]
            best = [ids[0] for ids in top]
            text = tokenizer.decode(best).strip() if tokenizer is not None else ""
            target = [int(i) for i in answer.target_ids]
            replies.append(Reply(text, target, top, answer.route, answer.score))
        return replies

    def judge(
        self, kind: str, question: Question, before: Reply, after: Reply, edit: Reply
    ) -> Judged:
        """Compare the edited model's reply with the target and with two other replies.

        Args:
            kind: the question's kind in its record ("edit", "rephrase", "in_scope", ...).
            before: the unedited model's reply to this question.
            after: the edited model's reply to this question.
            edit: the edited model's reply to the edit.
        """
        if not self.forced:
            speaks = normalise(after.text) != ""
            return Judged(
                kind,
                target=float(speaks and same_answer(after.text, question.answer)),
                before=float(same_answer(after.text, before.text)),
                edit=float(speaks and same_answer(after.text, edit.text)),
            )
        target = token_accuracy(after.top_ids or [], after.target_ids or [])
        ranks = (self.locality_top_k or 1) if kind in _IMAGE_LOCALITY else 1
        own = token_agreement(after.top_ids or [], edit.top_ids or [])
        if self.name == "released":
            own = target
        return Judged(
            kind,
            target=target,
            before=token_agreement(after.top_ids or [], before.top_ids or [], ranks),
            edit=own,
        )


def token_accuracy(top_ids: Sequence[Sequence[int]], target_ids: Sequence[int]) -> float:
    """Share of positions whose top-1 is the target's token; 0 without positions.

    Args:
        top_ids: n lists, best token first.
        target_ids: n tokens.
    """
    hits = [top[0] == target for top, target in zip(top_ids, target_ids, strict=True)]
    return sum(hits) / len(hits) if hits else 0.0


def token_agreement(
    first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], ranks: int = 1
) -> float:
    """Share of (position, rank) pairs, up to ``ranks``, where both have the same token.

    Positions that only the longer one has count as disagreement; without positions nothing differs,
    which is 1.
    """
    longest = max(len(first), len(second))
    same = total = 0
    for position in range(longest):
        pair = [x[position][:ranks] if position < len(x) else [] for x in (first, second)]
        total += max(len(pair[0]), len(pair[1]))
        same += sum(a == b for a, b in zip(*pair, strict=False))
    return same / total if total else 1.0
