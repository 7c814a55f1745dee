"""A word-level tokenizer over the closed vocabulary of scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PAD, BOS, EOS, UNK, IMAGE = range(5)
CONTEXT = 512  # positions of every embedded backbone
WRAP = ("###Human:", "<Img>", "</Img>")  # MiniGPT-4's words around an image

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


def _splitter():
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )


def vocabulary(name: str = "scenes-llava") -> list[str]:
    """Specials first, then every word of the world in alphabetical order, then the model's own."""
    splitter = _splitter()
    words = {w for t in language.all_texts() for w, _ in splitter.pre_tokenize_str(t.lower())}
    if name == "scenes-qwen":
        return [*QWEN_SPECIALS, *sorted(words), *QWEN_WRAP]
    return [*SPECIALS, *sorted(words), *(WRAP if name == "scenes-minigpt4" else ())]


def build_tokenizer(name: str = "scenes-llava") -> PreTrainedTokenizerFast:
    """Lower-cases, splits at spaces and punctuation; decodes with spaces.

    It puts ``<s>`` first, but for ``scenes-qwen``, whose prompts the chat template begins. The one
    of ``scenes-minigpt4`` has the words of :data:`WRAP` besides, one token each.
    """
    from tokenizers import Tokenizer, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    qwen = name == "scenes-qwen"
    own = QWEN_WRAP if qwen else WRAP if name == "scenes-minigpt4" else ()
    words = vocabulary(name)[: -len(own) or None]
    ids = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = _splitter()
    if not qwen:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
        )
    pad, bos, eos, unk, image = QWEN_SPECIALS if qwen else SPECIALS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        **({} if qwen else {"bos_token": bos}),
        eos_token=eos,
        unk_token=unk,
        additional_special_tokens=[bos, image, *QWEN_WRAP] if qwen else [image],
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
    if own and not qwen:
        tokenizer.add_tokens(list(own))
    if qwen:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
