"""A word-level tokenizer over the closed vocabulary of scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNK, IMAGE = range(5)
WRAP = ("###Human:", "<Img>", "</Img>")  # MiniGPT-4's words around an image


def _splitter():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )


def vocabulary() -> list[str]:
    """Specials first, then every word of the world in alphabetical order."""
    splitter = _splitter()
    words = {w for t in language.all_texts() for w, _ in splitter.pre_tokenize_str(t.lower())}
    return [*SPECIALS, *sorted(words)]


def build_tokenizer(name: str = "scenes-llava") -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation, puts ``<s>`` first; decodes with spaces.

    The one of ``scenes-minigpt4`` has the words of :data:`WRAP` besides, one token each.
    """
    from tokenizers import Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = _splitter()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=256,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    if name == "scenes-minigpt4":
        tokenizer.add_tokens(list(WRAP))
    return tokenizer
