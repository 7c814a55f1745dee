"""Under ``released`` our numbers are the release's, computed here from logits by their description.

FACTS section 2: accuracies are teacher-forced token accuracies; Specificity is the mean of the
accuracy on ``fg_gen`` and of the agreement on ``fg_loc``, counted over the top-10 token ids per
position; text locality is the agreement of the top-1; a run's figure is the mean over its cases.
"""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.methods.base import Forced, Unedited

from ...conftest import build_tiny, picture

TEXTS = ("what color is the circle?", "where is the star?", "how many triangle?")


def records(n: int = 4) -> list[EditRecord]:
    made = []
    for i in range(n):
        image, text = picture(i), TEXTS[i % 3]
        made.append(
            EditRecord(
                case_id=str(i),
                edit=Question(text, image, "green"),
                rephrase=(Question("please " + text, image, "green"),),
                in_scope=(Question("is the circle green?", image, "yes"),),
                out_scope=(Question("where is the square?", image, "bottom right"),),
                text_loc=(Question(f"capital of france {i}?", None, "paris"),),
            )
        )
    return made


class Perturbed(Unedited):
    """Base logits with seeded noise: an edit that changes something everywhere."""

    name = "perturbed"

    def logits(self, question: Question, edited: bool) -> torch.Tensor:
        with torch.no_grad():
            (row,) = self.backbone.answer_logits([question])
        seed = sum(map(ord, question.text + question.answer))
        noise = torch.randn(row.shape, generator=torch.Generator().manual_seed(seed))
        return row + 1.5 * noise * row.std() * edited

    def force(self, questions, *, visible=None, top_k=1):
        return [
            Forced(
                self.backbone.answer_ids(q.answer),
                self.logits(q, True).topk(top_k, dim=-1).indices,
                "e1",
            )
            for q in questions
        ]


def test_every_figure_is_the_releases_on_the_same_logits():
    editor, cases = Perturbed(build_tiny("llava")), records()

    def accuracy(question: Question) -> float:
        target = torch.tensor(editor.backbone.answer_ids(question.answer))
        predicted = editor.logits(question, True).argmax(-1)
        return (predicted == target).float().mean().item()

    def agreement(question: Question, k: int) -> float:
        after, before = (
            torch.softmax(editor.logits(question, edited), dim=-1).topk(k, dim=-1).indices
            for edited in (True, False)
        )
        return (after.view(-1) == before.view(-1)).float().mean().item()

    per_case = [
        {
            "reliability": accuracy(r.edit),
            "generality_target": accuracy(r.rephrase[0]),
            "locality": agreement(r.text_loc[0], 1),
            "specificity_in": accuracy(r.in_scope[0]),
            "specificity_out": agreement(r.out_scope[0], 10),
        }
        for r in cases
    ]
    theirs = {k: 100 * sum(c[k] for c in per_case) / len(per_case) for k in per_case[0]}
    theirs["generality"] = theirs["generality_target"]
    theirs["specificity"] = (theirs["specificity_in"] + theirs["specificity_out"]) / 2
    ours = evaluate(editor, cases, "released").metrics
    assert {k: ours[k] for k in theirs} == pytest.approx(theirs, abs=1e-4)
    # The figures are not all 0 or 100, and the top-10 differs from the top-1.
    top_1 = 100 * sum(agreement(r.out_scope[0], 1) for r in cases) / len(cases)
    assert 0 < theirs["specificity_out"] < 100 and theirs["specificity_out"] != top_1
    assert evaluate(editor, cases, "teacher-forced").metrics["specificity_out"] == pytest.approx(
        top_1, abs=1e-4
    )


def test_a_rank_that_moves_counts_as_one_of_ten():
    from easyedit_mm_plugins.evaluation.protocol import token_agreement

    before = [list(range(10)), list(range(10))]
    swapped = [[1, 0, *range(2, 10)], list(range(10))]
    assert token_agreement(swapped, before, 10) == 18 / 20
    assert token_agreement(swapped, before, 1) == 1 / 2
