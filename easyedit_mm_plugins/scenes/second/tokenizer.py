"""A word-level tokenizer over the closed vocabulary of scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..words import BOS, EOS, IMAGE, PAD, SPECIALS, UNK, WRAP, word_level, words_of
from . import language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "BOS",
    "CONTEXT",
    "EOS",
    "IMAGE",
    "PAD",
    "SPECIALS",
    "UNK",
    "build_tokenizer",
    "vocabulary",
]

CONTEXT = 512  # positions of every embedded backbone
# Qwen2-VL's names for the same five, and what else its prompts hold.
QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>", "<|image_pad|>")
QWEN_WRAP = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary(name: str = "scenes-llava") -> list[str]:
    """Specials first, then every word of the world in alphabetical order, then the model's own."""
    words = words_of(language.all_texts())
    if name == "scenes-qwen":
        return [*QWEN_SPECIALS, *words, *QWEN_WRAP]
    return [*SPECIALS, *words, *(WRAP if name == "scenes-minigpt4" else ())]


def build_tokenizer(name: str = "scenes-llava") -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation; decodes with spaces.

    It puts ``<s>`` first, but for ``scenes-qwen``, whose prompts the chat template begins. The one
    of ``scenes-minigpt4`` has the words of :data:`WRAP` besides, one token each.
    """
    words = vocabulary(name)
    if name == "scenes-qwen":
        _, start, _, _, image = QWEN_SPECIALS
        tokenizer = word_level(
            words[: -len(QWEN_WRAP)],
            context=CONTEXT,
            specials=QWEN_SPECIALS,
            starts=False,
            special_words=[start, image, *QWEN_WRAP],
        )
        tokenizer.chat_template = CHAT_TEMPLATE
        return tokenizer
    own = WRAP if name == "scenes-minigpt4" else ()
    return word_level(words[: len(words) - len(own)], context=CONTEXT, own=own)
