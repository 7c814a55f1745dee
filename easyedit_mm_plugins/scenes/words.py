"""Word-level tokenizers over a closed vocabulary, as both editions of the world have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

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


def words_of(texts: Iterable[str]) -> list[str]:
    """Every word of ``texts`` in alphabetical order."""
    splitter = _splitter()
    return sorted({w for t in texts for w, _ in splitter.pre_tokenize_str(t.lower())})


def word_level(
    words: Sequence[str],
    *,
    context: int,
    specials: Sequence[str] = SPECIALS,
    starts: bool = True,
    special_words: Sequence[str] | None = None,
    own: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation; decodes with spaces.

    Args:
        words: the vocabulary, ``specials`` first.
        context: the model's positions.
        specials: the names of padding, start, end, unknown word and image.
        starts: whether it puts the start token first.
        special_words: what is special beside padding, end and unknown word; by default the image.
        own: further words, one token each, after the vocabulary.
    """
    from tokenizers import Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos, unk, image = specials
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=unk))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = _splitter()
    if starts:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, BOS)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        **({"bos_token": bos} if starts else {}),
        eos_token=eos,
        unk_token=unk,
        additional_special_tokens=[image] if special_words is None else list(special_words),
        model_max_length=context,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens(list(own))
    return tokenizer
