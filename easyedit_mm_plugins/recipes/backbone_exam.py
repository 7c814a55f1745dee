"""The embedded backbones' exam: generated answers on held-out scenes and held-out wordings."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from ..scenes import language
from ..scenes.world import render, sample_scene


@dataclass(frozen=True)
class ExamQuestion:
    """One exam question; ``image`` is None for a fact."""

    type: str
    text: str
    answer: str
    image: Image.Image | None


def make_exam(per_type: int, seed: int = 0) -> list[ExamQuestion]:
    """``per_type`` questions of every question type on test scenes, and all facts once."""
    rng = random.Random(f"exam {seed}")
    counts: dict[str, int] = defaultdict(int)
    exam: list[ExamQuestion] = []
    while len(exam) < per_type * len(language.QUESTION_TYPES):
        scene = sample_scene(rng, "test")
        image = render(scene, rng.getrandbits(32))
        for kind in ("open", "open", "verify", "verify", "exist", "count"):
            question = language.sample_question(scene, rng, kind)
            if counts[question.type] < per_type:
                counts[question.type] += 1
                text = language.phrase(question, rng, "test")
                answer = language.answer(scene, question)
                exam.append(ExamQuestion(question.type, text, answer, image))
    for fact in language.FACTS:
        text = rng.choice(language.fact_questions(fact))
        exam.append(ExamQuestion("fact", text, fact.answer, None))
    return exam


def grade(
    exam: Sequence[ExamQuestion],
    generate: Callable[[Sequence[ExamQuestion]], list[str]],
    batch: int = 64,
) -> dict:
    """Exact match in percent, by question type, and the mean over image question types.

    Args:
        generate: answers a batch of exam questions.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    # Facts have no image; batches hold one kind only, so that any generate() will do.
    ordered = sorted(exam, key=lambda q: q.image is None)
    n_image = sum(q.image is not None for q in ordered)
    for part in (ordered[:n_image], ordered[n_image:]):
        for start in range(0, len(part), batch):
            questions = part[start : start + batch]
            for question, given in zip(questions, generate(questions), strict=True):
                right[question.type].append(given.strip().lower() == question.answer)
    scores = {t: 100 * sum(r) / len(r) for t, r in sorted(right.items())}
    kinds = [scores[t] for t in language.QUESTION_TYPES if t in scores]
    return {
        "exact_match_mean": round(sum(kinds) / len(kinds), 2),
        "facts": round(scores.get("fact", float("nan")), 2),
        "n": len(exam),
        "types": {t: {"n": len(right[t]), "exact_match": round(s, 2)} for t, s in scores.items()},
    }


def stock_generate(model, tokenizer, processor) -> Callable[[Sequence[ExamQuestion]], list[str]]:
    """Answers through the stock Hugging Face ``generate`` (input_ids and pixel_values)."""
    import torch

    from ..scenes.tokenizer import EOS, PAD
    from .packing import TEMPLATE
    from .small_models import prompt_ids

    def generate(questions: Sequence[ExamQuestion]) -> list[str]:
        image = questions[0].image is not None
        rows = []
        for q in questions:
            text = TEMPLATE.format(q.text) if image else q.text
            words = tokenizer(text, add_special_tokens=False).input_ids
            rows.append(prompt_ids(model, words, image))
        length = max(map(len, rows))
        ids = torch.tensor([[PAD] * (length - len(r)) + r for r in rows])
        inputs = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        options = {
            "max_new_tokens": 4,
            "do_sample": False,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        }
        if image:
            pictures = [q.image for q in questions]
            inputs["pixel_values"] = processor(images=pictures, return_tensors="pt").pixel_values
            out = model.generate(**inputs, **options)
        else:
            out = _language_model(model).generate(**inputs, **options)
        return tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)

    return generate


def _language_model(model):
    """Something with ``generate`` over text alone."""
    return model.language_model if hasattr(model, "qformer") else model
