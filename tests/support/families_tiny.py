"""A tiny random model of each family with a small processor, saved to a folder as users have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

FAMILIES = (
    "llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3",
    "smolvlm", "internvl", "gemma3", "paligemma", "paligemma2",
)  # fmt: skip
_TEXT = (
    "Question: what color is the circle? where is the star? Short answer: red green blue top left "
    "bottom right is the square yes no paris capital of france user assistant\n"
) * 20
_MARKS = {
    "llava": {"image_token": "<image>"},
    "llava_next": {"image_token": "<image>"},
    "llava_onevision": {"image_token": "<image>"},
    "qwen2_vl": {"image_token": "<|image_pad|>"},
    "qwen2_5_vl": {"image_token": "<|image_pad|>"},
    "qwen3_vl": {"image_token": "<|image_pad|>"},
    "idefics3": {"image_token": "<image>"},
    "smolvlm": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
    },
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "gemma3": {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    },
    "paligemma": {"image_token": "<image>"},
    "paligemma2": {"image_token": "<image>"},  # the same classes around Gemma 2
}
_EXTRA = {
    "qwen2_vl": ["<|vision_start|>", "<|vision_end|>", "<|video_pad|>"],
    "idefics3": ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    + [f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)],
}
_EXTRA |= dict.fromkeys(("qwen2_5_vl", "qwen3_vl"), _EXTRA["qwen2_vl"])
_EXTRA["smolvlm"] = _EXTRA["idefics3"]
_PLACE = {
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "gemma3": "<start_of_image>",
    "internvl": "<IMG_CONTEXT>\n",
}
_PLACE |= dict.fromkeys(("qwen2_5_vl", "qwen3_vl"), _PLACE["qwen2_vl"])
_CHAT = (
    "{start}{{% for m in messages %}}<|turn|>{{{{ m['role'] }}}}\n{{% for c in m['content'] %}}"
    "{{% if c['type'] == 'image' %}}{image}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}"
    "{{% endfor %}}<|end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|turn|>assistant\n{{% endif %}}"
)


def version() -> tuple[int, ...]:
    """Of transformers."""
    import transformers

    return tuple(int(part) for part in transformers.__version__.split(".")[:2])


def needs(family: str) -> None:
    """Skip where the installed transformers lacks the family, with the reason."""
    import transformers

    from easyedit_mm_plugins.backbones.families import FAMILIES as KNOWN

    since = KNOWN[family.removesuffix("2")].since if family == "paligemma2" else KNOWN[family].since
    if version() < tuple(int(part) for part in since.split(".")):
        pytest.skip(f"{family} needs transformers {since}, here is {transformers.__version__}")


def tokenizer(family: str) -> Any:
    """Byte-level BPE on a few words, with the family's marks as special tokens."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    marks = _MARKS[family]
    extra = [*marks.values(), *_EXTRA.get(family, [])]
    specials = list(dict.fromkeys(["<pad>", "<s>", "</s>", "<|turn|>", "<|end|>", *extra]))
    trainer = trainers.BpeTrainer(
        vocab_size=330 + len(specials),
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([_TEXT], trainer)
    if family in ("llava", "llava_next"):  # others begin without a start token
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
        )
    kinds = dict.fromkeys(("paligemma", "paligemma2", "gemma3"), "GemmaTokenizerFast")
    kinds |= dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "Qwen2TokenizerFast")
    kind = kinds.get(family, "PreTrainedTokenizerFast")
    if version() >= (5, 0):
        kind = "PreTrainedTokenizerFast"
    start = {} if family.startswith("qwen") else {"bos_token": "<s>"}
    names = {k: v for k, v in marks.items()}
    more = {"extra_special_tokens": names}
    built = getattr(transformers, kind)(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<|end|>",
        unk_token=None,
        additional_special_tokens=[t for t in specials if t not in ("<pad>", "<s>", "<|end|>")],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **start,
        **more,
    )
    return built


def _vision(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        **changes,
    }


def _text(words: int, **changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        **changes,
    }


def _ids(tok: Any, *tokens: str) -> list[int]:
    return [tok.convert_tokens_to_ids(t) for t in tokens]


def build(family: str) -> tuple[Any, Any]:
    """Model and processor."""
    import transformers as t

    tok = tokenizer(family)
    words = len(tok)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    square = {"size": {"height": 32, "width": 32}, **half}
    place = _PLACE.get(family, "<image>")
    start = "<s>" if family in ("gemma3",) else ""
    chat = None if family.startswith("paligemma") else _CHAT.format(start=start, image=place)
    torch.manual_seed(0)
    if family in ("llava", "llava_next", "llava_onevision"):
        image = tok.convert_tokens_to_ids("<image>")
        if family == "llava":
            config: Any = t.LlavaConfig(
                vision_config=t.CLIPVisionConfig(**_vision(initializer_range=0.1)),
                text_config=t.LlamaConfig(**_text(words)),
                image_token_index=image,
                image_seq_length=16,
            )
            pictures: Any = t.CLIPImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, **half
            )
            processor = t.LlavaProcessor(
                pictures, tok, patch_size=8, vision_feature_select_strategy="default",
                num_additional_image_tokens=1, chat_template=chat,
            )  # fmt: skip
            return t.LlavaForConditionalGeneration(config), processor
        points = [[32, 64], [64, 32], [64, 64]]
        if family == "llava_next":
            config = t.LlavaNextConfig(
                vision_config=t.CLIPVisionConfig(**_vision(initializer_range=0.1)),
                text_config=t.MistralConfig(**_text(words, sliding_window=None)),
                image_token_index=image,
                image_grid_pinpoints=points,
            )
            pictures = t.LlavaNextImageProcessor(
                size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
                image_grid_pinpoints=points, **half,
            )  # fmt: skip
            processor = t.LlavaNextProcessor(
                pictures, tok, patch_size=8, vision_feature_select_strategy="default",
                num_additional_image_tokens=1, chat_template=chat,
            )  # fmt: skip
            return t.LlavaNextForConditionalGeneration(config), processor
        config = t.LlavaOnevisionConfig(
            vision_config=t.SiglipVisionConfig(**_vision()),
            text_config=t.Qwen2Config(**_text(words)),
            image_token_index=image,
            image_grid_pinpoints=points,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
        )
        pictures = t.LlavaOnevisionImageProcessor(
            size={"height": 32, "width": 32}, image_grid_pinpoints=points, **half
        )
        processor = t.LlavaOnevisionProcessor(
            pictures, tok, num_image_tokens=16, vision_feature_select_strategy="full",
            chat_template=chat, video_processor=_videos("LlavaOnevisionVideoProcessor"),
        )  # fmt: skip
        return t.LlavaOnevisionForConditionalGeneration(config), processor
    if family.startswith("qwen"):
        return _qwen(family, tok, chat)
    if family in ("idefics3", "smolvlm"):
        name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[family]
        config = getattr(t, f"{name}Config")(
            vision_config=_vision(initializer_range=0.1),
            text_config=t.LlamaConfig(**_text(words)).to_dict(),
            image_token_id=tok.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
        pictures = getattr(t, f"{name}ImageProcessor")(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, **half
        )
        more = {"video_processor": _videos("SmolVLMVideoProcessor")} if name == "SmolVLM" else {}
        processor = getattr(t, f"{name}Processor")(
            pictures, tok, image_seq_len=4, chat_template=chat, **more
        )
        return getattr(t, f"{name}ForConditionalGeneration")(config), processor
    if family == "internvl":
        config = t.InternVLConfig(
            vision_config=t.InternVLVisionConfig(
                **_vision(image_size=[32, 32], patch_size=[8, 8], initializer_range=0.1)
            ),
            text_config=t.Qwen2Config(**_text(words)),
            image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
            image_seq_length=4,
        )
        pictures = t.GotOcr2ImageProcessor(
            crop_to_patches=True, min_patches=1, max_patches=4, **square
        )
        processor = t.InternVLProcessor(
            pictures, tok, image_seq_length=4, chat_template=chat,
            video_processor=_videos("InternVLVideoProcessor"),
        )  # fmt: skip
        return t.InternVLForConditionalGeneration(config), processor
    if family == "gemma3":
        soft, begin, end = _ids(tok, "<image_soft_token>", "<start_of_image>", "<end_of_image>")
        config = t.Gemma3Config(
            text_config=t.Gemma3TextConfig(
                **_text(words, query_pre_attn_scalar=16, sliding_window=12),
                layer_types=["sliding_attention", "full_attention"] * 2,
            ),
            vision_config=t.SiglipVisionConfig(**_vision()),
            mm_tokens_per_image=4,
            image_token_index=soft,
            boi_token_index=begin,
            eoi_token_index=end,
            initializer_range=0.1,
        )
        processor = t.Gemma3Processor(
            t.Gemma3ImageProcessor(**square), tok, image_seq_length=4, chat_template=chat
        )
        return t.Gemma3ForConditionalGeneration(config), processor
    config = t.PaliGemmaConfig(
        vision_config=t.SiglipVisionConfig(**_vision(projection_dim=32)),
        text_config=t.Gemma2Config(**_text(words, query_pre_attn_scalar=16, initializer_range=0.3))
        if family == "paligemma2"
        else t.GemmaConfig(**_text(words)),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    pictures = t.SiglipImageProcessor(**square)
    pictures.image_seq_length = 16
    processor = t.PaliGemmaProcessor(pictures, tok)
    return t.PaliGemmaForConditionalGeneration(config), processor


def _qwen(family: str, tok: Any, chat: str | None) -> tuple[Any, Any]:
    import transformers as t

    begin, end, image, video = _ids(
        tok, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
    )
    marks = {
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": begin,
        "vision_end_token_id": end,
    }
    sizes = {"depth": 4, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2}
    rope = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "rope_theta": 1e4}
    text = _text(len(tok))
    pixels = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    pixels |= {"min_pixels": 32 * 32, "max_pixels": 96 * 96}
    if version() >= (5, 0):
        rope = {
            "rope_parameters": {
                "rope_type": "default", "type": "mrope", "mrope_section": [2, 3, 3],
                "rope_theta": 1e4,
            }
        }  # fmt: skip
    if family == "qwen2_vl":
        vision = {**sizes, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        config: Any = t.Qwen2VLConfig(
            **_flat_or_nested({**text, **rope}), vision_config=vision, **marks
        )
        model: Any = t.Qwen2VLForConditionalGeneration(config)
        kind = t.Qwen2VLProcessor
    elif family == "qwen2_5_vl":
        vision = {
            **sizes, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 32,
            "window_size": 32, "fullatt_block_indexes": [1, 3],
        }  # fmt: skip
        config = t.Qwen2_5_VLConfig(
            **_flat_or_nested({**text, **rope}), vision_config=vision, **marks
        )
        model = t.Qwen2_5_VLForConditionalGeneration(config)
        kind = t.Qwen2_5_VLProcessor
    else:
        vision = {
            **sizes, "hidden_size": 16, "out_hidden_size": 32, "intermediate_size": 32,
            "deepstack_visual_indexes": [0, 1, 2], "num_position_embeddings": 64,
        }  # fmt: skip
        section = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True}
        key = "rope_parameters" if version() >= (5, 0) else "rope_scaling"
        own = {key: {**section, "rope_theta": 1e4}}
        config = t.Qwen3VLConfig(text_config={**text, **own}, vision_config=vision, **marks)
        model = t.Qwen3VLForConditionalGeneration(config)
        kind = t.Qwen3VLProcessor
        pixels |= {"size": {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}}
    name = "Qwen3VLVideoProcessor" if family == "qwen3_vl" else "Qwen2VLVideoProcessor"
    more = {"video_processor": _videos(name)} if version() >= (4, 52) else {}
    pictures = t.Qwen2VLImageProcessor(**pixels, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return model, kind(pictures, tok, chat_template=chat, **more)


def _flat_or_nested(text: dict[str, Any]) -> dict[str, Any]:
    """Qwen2-VL's config held the decoder's settings itself up to transformers 4.51."""
    return {"text_config": text} if version() >= (5, 0) else text


def _videos(name: str) -> Any:
    import transformers

    kind = getattr(transformers, name, None)
    return kind() if kind is not None else None


def save(family: str, folder: Path) -> tuple[Any, Any]:
    """Model and processor of a family, also written to ``folder``; the processor as read back,
    which may run on another backend than the one that was made."""
    from transformers import AutoProcessor

    needs(family)
    model, processor = build(family)
    model.eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    assert family in (kind, f"{kind}2")
    return model, AutoProcessor.from_pretrained(folder)
