"""The terms of appendix A against plain formulas."""

from __future__ import annotations

import pytest
import torch

from easyedit_mm_plugins.backbones.splice import answer_logits
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.methods.dualedit.frozen import FrozenStates
from easyedit_mm_plugins.methods.dualedit.losses import draw, edited_logits, losses

from ...conftest import picture
from ...support.dualedit_tiny import edit, tiny_dualedit


def test_reliability_and_generality_are_the_answers_whole_nll_not_a_tokens():
    """-log f_e(o | x) is that of the whole answer: its tokens' add up, however many there are."""
    editor = tiny_dualedit(kind="off")
    answers = ["red", "yes no", "top left bottom right"]
    records = [
        EditRecord(str(i), edit(i, answer), rephrase=(Question("where?", picture(i), answer),))
        for i, answer in enumerate(answers)
    ]
    with torch.no_grad():
        found, _ = losses(editor, FrozenStates(editor, 2**20), draw(records))
    for kind in ("edit", "rephrase"):
        whole = 0.0
        for record in records:
            question = record.questions()[kind][0]
            batch = editor.backbone.batch([question], with_answers=True)
            with torch.no_grad(), editor.edited([record.edit]), editor._edited(batch, None):
                logits = answer_logits(editor.backbone.language_model, batch)[0].double()
            ids = editor.backbone.token_ids(question.answer, special=False)
            assert len(logits) == len(ids) == len(question.answer.split())
            for row, token in zip(logits, ids, strict=True):
                whole += float(row.logsumexp(-1) - row[token])
        assert found[kind].item() == pytest.approx(whole / len(records), rel=1e-4)


def test_in_gated_training_a_cosine_at_the_threshold_opens(monkeypatch):
    editor = tiny_dualedit()
    record = EditRecord("a", edit(0), text_loc=(Question("where?", None, "top"),))
    asked = draw([record])
    assert [a.kind for a in asked] == ["edit", "text_loc"]
    # Orthogonal keys: the cosine to the edit is 0, to the last bit.
    monkeypatch.setattr(editor, "key_of", lambda read: torch.eye(2)[: len(read)])
    for threshold, is_open in ((0.0, True), (1e-6, False)):
        editor.threshold = threshold
        with torch.no_grad():
            logits, _ = edited_logits(editor, FrozenStates(editor, 2**20), asked, gated=True)
        assert (logits[1] is not None) == is_open
