"""A word-level tokenizer over the closed vocabulary of scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import language
from .words import BOS, EOS, IMAGE, PAD, SPECIALS, UNK, WRAP, word_level, words_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "BOS",
    "EOS",
    "IMAGE",
    "PAD",
    "SPECIALS",
    "UNK",
    "WRAP",
    "build_tokenizer",
    "vocabulary",
]


def vocabulary() -> list[str]:
    """Specials first, then every word of the world in alphabetical order."""
    return [*SPECIALS, *words_of(language.all_texts())]


def build_tokenizer(name: str = "scenes-llava") -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation, puts ``<s>`` first; decodes with spaces.

    The one of ``scenes-minigpt4`` has the words of :data:`WRAP` besides, one token each.
    """
    own = WRAP if name == "scenes-minigpt4" else ()
    return word_level(vocabulary(), context=256, own=own)
