"""The embedded backbones' exam: generated answers on held-out scenes and held-out wordings."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..scenes.second import language
from ..scenes.second.edits import draw_any_edit
from ..scenes.second.world import render, sample_drawing, sample_scene

IN_CONTEXT = ("ike_same", "ike_reworded", "ike_text_only")
MEANS = ("exact_match_mean", "relations", "in_context", "facts")


@dataclass(frozen=True)
class ExamQuestion:
    """One exam question; ``image`` is None for a fact. ``plain``: asked without the template."""

    type: str
    text: str
    answer: str
    image: Image.Image | None
    plain: bool = False


def make_exam(per_type: int, seed: int = 0) -> list[ExamQuestion]:
    """``per_type`` questions of every question type on test scenes, and all facts once.

    Besides, behind a new fact in IKE's wording and a demonstration of another: the fact's own
    question, a held-out wording of it, and a text-only question that it does not concern.
    """
    rng = random.Random(f"exam {seed}")
    counts: dict[str, int] = defaultdict(int)
    exam: list[ExamQuestion] = []
    kinds = ("open", "open", "verify", "verify", "exist", "count", "relation", "relation")
    while len(exam) < per_type * len(language.QUESTION_TYPES):
        scene = sample_scene(rng, "test")
        image = render(scene, sample_drawing(rng))
        for kind in kinds:
            question = language.sample_question(scene, rng, kind)
            if counts[question.type] < per_type:
                counts[question.type] += 1
                text = language.phrase(question, rng, "test")
                answer = language.answer(scene, question) or ""
                exam.append(ExamQuestion(question.type, text, answer, image))
    for fact in language.FACTS:
        text = rng.choice(language.fact_questions(fact))
        exam.append(ExamQuestion("fact", text, fact.answer, None, plain=True))
    for _ in range(per_type):
        exam += _in_context(rng)
    return exam


def _in_context(rng: random.Random) -> list[ExamQuestion]:
    edit, other = draw_any_edit(rng, "test"), draw_any_edit(rng, "test")
    asked, again = (language.phrase(e.question, rng) for e in (edit, other))
    before = language.shown(again, other.value, again, other.value)
    before += language.new_fact(asked, edit.value)
    image = render(edit.scene, sample_drawing(rng))
    reworded = language.phrase(edit.question, rng, "test")
    fact = rng.choice(language.FACTS)
    unrelated = before + rng.choice(language.fact_questions(fact))
    return [
        ExamQuestion("ike_same", before + asked, edit.value, image, plain=True),
        ExamQuestion("ike_reworded", before + reworded, edit.value, image, plain=True),
        ExamQuestion("ike_text_only", unrelated, fact.answer, None, plain=True),
    ]


def grade(
    exam: Sequence[ExamQuestion],
    generate: Callable[[Sequence[ExamQuestion]], list[str]],
    batch: int = 64,
) -> dict:
    """Exact match in percent, by question type, and means over the one-hop questions, those with a
    relation, and those behind a new fact.

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

    def mean(types: Sequence[str]) -> float:
        found = [scores[t] for t in types if t in scores]
        return round(sum(found) / len(found), 2) if found else float("nan")

    return {
        "exact_match_mean": mean(language.ONE_HOP_TYPES),
        "relations": mean(language.RELATION_TYPES),
        "in_context": mean(IN_CONTEXT),
        "facts": mean(("fact",)),
        "n": len(exam),
        "types": {t: {"n": len(right[t]), "exact_match": round(s, 2)} for t, s in scores.items()},
    }


def stock_generate(
    name: str, model: Any, tokenizer: Any, processor: Any
) -> Callable[[Sequence[ExamQuestion]], list[str]]:
    """Answers through the stock Hugging Face ``generate`` (input_ids and pixel_values)."""
    import torch

    from ..scenes.second.tokenizer import EOS, PAD
    from .packing import TEMPLATE
    from .small_models import GRID, MERGE, QUERIES, prompt_ids

    chat = name == "scenes-qwen"

    def generate(questions: Sequence[ExamQuestion]) -> list[str]:
        options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
        options |= {"eos_token_id": EOS, "pad_token_id": PAD}
        inputs: dict[str, Any] = {}
        counts = [0] * len(questions)
        if questions[0].image is not None:
            inputs = dict(processor(images=[q.image for q in questions], return_tensors="pt"))
            tokens = QUERIES if hasattr(model, "qformer") else GRID * GRID
            counts = [tokens] * len(questions)
            if chat:
                counts = (inputs["image_grid_thw"].prod(-1) // MERGE**2).tolist()
        rows = [
            prompt_ids(
                name,
                tokenizer,
                q.text if q.plain or chat else TEMPLATE.format(q.text),
                count,
            )
            for q, count in zip(questions, counts, strict=True)
        ]
        length = max(map(len, rows))
        ids = torch.tensor([[PAD] * (length - len(r)) + r for r in rows])
        inputs |= {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        alone = model if chat or not hasattr(model, "qformer") else model.language_model
        out = (model if any(counts) else alone).generate(**inputs, **options)
        return tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)

    return generate
