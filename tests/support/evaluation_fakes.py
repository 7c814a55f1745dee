"""Editors with known behaviour, and records to try them on."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.base import Answer, Editor, Forced, Unedited
from easyedit_mm_plugins.methods.base import force_with_base as base_forced

SHAPES = ("circle", "square", "star", "triangle")
COLORS = ("red", "green", "blue")


def make_records(n: int, images: list) -> list[EditRecord]:
    """``n`` cases; every third has no in-scope, every fourth no out-of-scope question."""
    records = []
    for i in range(n):
        image, shape, color = images[i % len(images)], SHAPES[i % 4], COLORS[i % 3]
        other = SHAPES[(i + 1) % 4]
        records.append(
            EditRecord(
                case_id=f"c{i}",
                edit=Question(f"what color is the {shape} ?", image, color),
                rephrase=(
                    Question(f"the {shape} is what color ?", image, color),
                    Question(f"color of the {shape} ?", image, color),
                ),
                in_scope=()
                if i % 3 == 2
                else (
                    Question(f"is the {shape} {color} ?", image, "yes"),
                    Question(f"what is the color of the {shape} ?", image, color),
                ),
                out_scope=()
                if i % 4 == 3
                else (Question(f"where is the {other} ?", image, "top"),),
                text_loc=(Question("what is the capital of france ?", None, "paris"),),
                image_rephrase=(
                    Question(f"what color is the {shape} ?", images[(i + 1) % len(images)], color),
                ),
                image_loc=(Question(f"how many {other} ?", images[0], "two"),),
            )
        )
    return records


def _is_path(image):
    return isinstance(image, (str, Path))


class Remembering(Unedited):
    """Keeps the contract: answers of ``know`` (question -> answer) are given while edited.

    ``know`` maps an edit to what follows from it; everything else is the backbone's.
    """

    name = "remembering"

    def __init__(self, backbone, records, kinds=("edit", "rephrase", "in_scope", "image_rephrase")):
        super().__init__(backbone)
        self.asked: list[int] = []
        self.know = {}
        for record in records:
            follows = [q for kind in kinds for q in record.questions()[kind]]
            self.know[(*self._key(record.edit), record.edit.answer)] = {
                self._key(q): q.answer for q in follows
            }

    @staticmethod
    def _key(question):
        image = question.image
        return (question.text, os.path.abspath(image) if _is_path(image) else str(image))

    def _route(self, question, visible):
        for i, edit in self.edits.items():
            seen = visible is None or i in visible
            follows = self.know[(*self._key(edit), edit.answer)]
            if seen and self._key(question) in follows:
                return i, follows[self._key(question)]
        return None, None

    def generate(self, questions, *, visible=None, max_new_tokens=8, **kwargs):
        self.asked.append(len(questions))
        base = self.backbone.generate(questions, max_new_tokens=max_new_tokens)
        answers = []
        for row, question in enumerate(questions):
            route, answer = self._route(question, visible[row] if visible is not None else None)
            score = 0.0 if route is None else 1.0
            answers.append(Answer(base[row] if route is None else answer, route, score))
        return answers

    def force(self, questions, *, visible=None, top_k=1):
        self.asked.append(len(questions))
        forced = []
        for row, base in enumerate(base_forced(self.backbone, questions, top_k)):
            route, answer = self._route(
                questions[row], visible[row] if visible is not None else None
            )
            top = base.top_ids.clone()
            if route is not None:
                top[:, 0] = torch.tensor(self.backbone.answer_ids(answer))
            forced.append(Forced(base.target_ids, top, route, float(route is not None)))
        return forced


class OneByOne(Remembering):
    """The same, but it cannot hide one row's edits from another."""

    name = "one-by-one"
    isolates_rows = False


class Failing(Remembering):
    """Breaks when it has been asked ``after`` times."""

    name = "remembering"

    def __init__(self, *args, after: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.after = after

    def generate(self, questions, **kwargs):
        if len(self.asked) >= self.after:
            raise RuntimeError("out of memory")
        return super().generate(questions, **kwargs)


class FakeBackbone:
    """Enough of a backbone for tests of everything around the models; answers "blue"."""

    name = "fake"
    tokenizer = None
    model = None

    def __init__(self, answer: str = "blue") -> None:
        self.answer, self.calls = answer, 0

    def generate(self, questions, *, max_new_tokens=8, **kwargs):
        self.calls += len(questions)
        return [self.answer if q.image is not None else "Paris." for q in questions]

    def answer_ids(self, answer):
        return [ord(c) % 50 for c in answer]


__all__ = ["Editor", "Failing", "FakeBackbone", "OneByOne", "Remembering", "make_records"]
