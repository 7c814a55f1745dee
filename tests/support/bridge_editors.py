"""Editors for the bridge's tests: real subclasses of the contract, with simple rules."""

from __future__ import annotations

import torch

from easyedit_mm_plugins.methods.base import Answer, Editor, Forced, Unedited, force_with_base

__all__ = ["Changer", "Parrot"]


class Parrot(Unedited):
    """In scope: the edit's own words, perhaps with "please". It then says the edit's answer."""

    name = "parrot"
    isolates_rows = True

    def route(self, questions, visible):
        for row, question in enumerate(questions):
            words = question.text.replace("please ", "")
            held = [
                i
                for i, edit in self.edits.items()
                if edit.text == words and (visible is None or i in visible[row])
            ]
            yield held[-1] if held else None

    def generate(self, questions, *, visible=None, max_new_tokens=8, **kwargs):
        base = super().generate(questions, max_new_tokens=max_new_tokens)
        routes = self.route(questions, visible)
        return [
            Answer(self.edits[route].answer, route, 0.9) if route else answer
            for answer, route in zip(base, routes, strict=True)
        ]

    def force(self, questions, *, visible=None, top_k=1):
        rows = []
        base_rows = force_with_base(self.backbone, questions, top_k)
        for base, route in zip(base_rows, self.route(questions, visible), strict=True):
            if route:
                said = self.backbone.answer_ids(self.edits[route].answer)
                said = (said + said[-1:] * len(base.target_ids))[: len(base.target_ids)]
                others = [i for i in range(top_k + 1) if i not in said]
                top = torch.tensor([[i, *others][:top_k] for i in said])
                base = Forced(base.target_ids, top, route, 0.9)
            rows.append(base)
        return rows


class Changer(Editor):
    """A method that changes what every row says and cannot tell rows apart."""

    name = "changer"
    isolates_rows = False

    def __init__(self, backbone):
        super().__init__(backbone)
        self.inner = Parrot(backbone)

    @property
    def edits(self):
        return self.inner.edits

    def add(self, edits):
        return self.inner.add(edits)

    def remove(self, ids):
        self.inner.remove(ids)

    def generate(self, questions, *, visible=None, max_new_tokens=8, **kwargs):
        assert visible is None
        return self.inner.generate(questions)

    def force(self, questions, *, visible=None, top_k=1):
        assert visible is None
        return self.inner.force(questions, top_k=top_k)
