"""Families of vision-language models: what each needs and where its weights come from, as data.

A family that is not here works as well, if :class:`HFAuto` can drive it; these are tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PLAIN = "Question: {} Short answer:"


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        model_type: what ``config.json`` calls it.
        title: for people.
        since: the first version of transformers that loads it and that is tested.
        weights: hub ids with their billions of parameters; two bytes each in bfloat16.
        template: prompt of a question about an image, for processors without a chat template.
        needs: packages that its processor needs beside transformers.
    """

    model_type: str
    title: str
    since: str
    weights: dict[str, float] = field(default_factory=dict)
    template: str = PLAIN
    needs: tuple[str, ...] = ()


FAMILIES = {
    family.model_type: family
    for family in (
        Family("blip-2", "BLIP-2", "4.49", {"Salesforce/blip2-opt-2.7b": 3.7}),
        Family(
            *("llava", "LLaVA-1.5", "4.49"),
            {"llava-hf/llava-1.5-7b-hf": 7.1, "llava-hf/llava-1.5-13b-hf": 13.4},
        ),
        Family(
            *("llava_next", "LLaVA-NeXT", "4.49"),
            {"llava-hf/llava-v1.6-mistral-7b-hf": 7.6, "llava-hf/llama3-llava-next-8b-hf": 8.4},
        ),
        Family(
            *("llava_onevision", "LLaVA-OneVision", "4.49"),
            {
                "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": 0.9,
                "llava-hf/llava-onevision-qwen2-7b-ov-hf": 8.0,
            },
        ),
        Family(
            *("qwen2_vl", "Qwen2-VL", "4.49"),
            {"Qwen/Qwen2-VL-2B-Instruct": 2.2, "Qwen/Qwen2-VL-7B-Instruct": 8.3},
        ),
        Family(
            *("qwen2_5_vl", "Qwen2.5-VL", "4.49"),
            {"Qwen/Qwen2.5-VL-3B-Instruct": 3.8, "Qwen/Qwen2.5-VL-7B-Instruct": 8.3},
        ),
        Family(
            *("qwen3_vl", "Qwen3-VL", "4.57"),
            {
                "Qwen/Qwen3-VL-2B-Instruct": 2.1,
                "Qwen/Qwen3-VL-4B-Instruct": 4.4,
                "Qwen/Qwen3-VL-8B-Instruct": 8.8,
            },
        ),
        Family("idefics3", "Idefics3", "4.49", {"HuggingFaceM4/Idefics3-8B-Llama3": 8.5}),
        Family(
            *("smolvlm", "SmolVLM", "4.53"),
            {
                "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": 0.3,
                "HuggingFaceTB/SmolVLM2-2.2B-Instruct": 2.2,
            },
            needs=("num2words",),
        ),
        Family(
            *("internvl", "InternVL (HF)", "4.53"),
            {"OpenGVLab/InternVL3-1B-hf": 0.9, "OpenGVLab/InternVL3-8B-hf": 8.0},
        ),
        Family(
            *("gemma3", "Gemma 3", "4.53"),
            {"google/gemma-3-4b-it": 4.3, "google/gemma-3-12b-it": 12.2},
        ),
        Family(
            *("paligemma", "PaliGemma", "4.49"),
            {"google/paligemma-3b-mix-224": 2.9, "google/paligemma2-3b-mix-224": 3.0},
            template="answer en {}",
        ),
    )
}


def family_named(model_type: str) -> Family:
    """The family of that name; of one that is not here what holds for all."""
    return FAMILIES.get(model_type) or Family(model_type, model_type, "")
