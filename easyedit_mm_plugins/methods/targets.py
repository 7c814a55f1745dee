"""Targets that a model cannot say: found in the records before long work begins.

A small model's tokenizer may lack a word, or write it so that no decoding gives it back. An edit to
such a target can only fail, whatever the method does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from ..backbones.base import Backbone
from ..core.errors import DataError
from ..data import EditRecord
from ..data.matching import normalise, same_answer

LOG = logging.getLogger(__name__)
_SHOWN = 3  # targets in full in a warning


class _Found(NamedTuple):
    record: str
    kind: str
    answer: str
    why: str


def unsayable(backbone: Backbone, answer: str) -> str | None:
    """Why no answer of ``backbone`` can equal ``answer``, or ``None`` if one can."""
    ids = _tokens(backbone, answer)
    if not ids or not normalise(answer):
        return "it has no token" if not ids else "nothing of it is left to compare"
    if backbone.tokenizer.unk_token_id in ids:
        return "the tokenizer lacks a word of it"
    said = backbone.decode([ids])[0]
    return None if same_answer(said, answer) else f"its tokens read {said!r}"


def check_targets(
    backbone: Backbone,
    records: Sequence[EditRecord],
    said: Collection[str],
    *,
    read: Collection[str] = (),
    room: int | None = None,
) -> None:
    """Warn, once and in one line, of targets of ``records`` that ``backbone`` cannot say.

    Args:
        said: kinds of questions whose answers the model is to say.
        read: kinds at whose answers' tokens a model is read; without a token that cannot be.
        room: the most tokens that an answer may have.

    Raises:
        DataError: an answer to be read has no token, or no edit's target can be said. It names the
            first record and its field.
    """
    if getattr(backbone, "tokenizer", None) is None:  # nothing is known of its words
        return
    tokens = cache(lambda answer: len(_tokens(backbone, answer)))
    why = cache(lambda answer: unsayable(backbone, answer))
    mute, unread, long = [], [], []
    for record in records:
        for kind, questions in record.questions().items():
            for answer in (question.answer for question in questions):
                if kind not in said and kind not in read:
                    continue
                length, problem = tokens(answer), why(answer)
                found = _Found(record.case_id, kind, answer, problem or f"{length} tokens")
                if kind in read and not length:
                    unread.append(found)
                elif kind in said and problem:
                    mute.append(found)
                elif kind in said and room is not None and length > room:
                    long.append(found)
    if unread:
        raise _error(backbone, unread, records, "give them other answers, or leave the records out")
    remedy = "leave these records out, or take a model that has the words"
    if records and len({f.record for f in mute if f.kind == "edit"}) == len(records):
        raise _error(backbone, mute, records, remedy)
    if mute:
        _warn(f"{_text(backbone, mute, records)}; each counts as missed: {remedy}")
    if long:
        limit = f"answers end after {room} tokens: raise max_new_tokens (Protocol, compare's eval)"
        _warn(f"{_text(backbone, long, records)}; each counts as missed, since {limit}")


def _tokens(backbone: Backbone, answer: str) -> list[int]:
    try:
        return backbone.answer_ids(answer)
    except DataError:
        return []


def _text(backbone: Backbone, found: Sequence[_Found], records: Sequence[EditRecord]) -> str:
    some = [f"record {f.record}, field {f.kind}: {f.answer!r} ({f.why})" for f in found[:_SHOWN]]
    if len(found) > _SHOWN:
        some.append(f"and {len(found) - _SHOWN} more")
    count = len({f.record for f in found})
    what = "1 target" if len(found) == 1 else f"{len(found)} targets"
    return f"{backbone.name} cannot say {what}, in {count} of {len(records)} records: " + "; ".join(
        some
    )


def _error(
    backbone: Backbone, found: Sequence[_Found], records: Sequence[EditRecord], remedy: str
) -> DataError:
    text, first = _text(backbone, found, records), found[0]
    return DataError(text, record=first.record, field=first.kind, remedy=remedy)


@lru_cache(maxsize=64)  # the same text once, not for every method that is measured
def _warn(text: str) -> None:
    LOG.warning("%s", text)
