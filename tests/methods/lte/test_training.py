"""Teaching LTE: what a batch asks, the loss by hand, learning, going on after a kill."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.lte import LTETrainer, LTETrainingHyperParams
from easyedit_mm_plugins.methods.lte.losses import (
    FORMS,
    PLAIN,
    Lesson,
    lesson_losses,
    said,
    total_loss,
)

from ...conftest import picture
from ...support.mscke_tiny import tiny_records
from .test_lte import lte


def hparams(**changes) -> LTETrainingHyperParams:
    values = {
        "model_name": "tiny", "lr": 2e-2, "batch_size": 2, "max_iters": 6, "val_batch_size": 2,
        "val_interval": 3, "log_interval": 1, "model_save_pt": 2, "dropout": 0.0, "max_length": 4,
    }  # fmt: skip
    return LTETrainingHyperParams(**{**values, **changes})


def records(n: int = 6):
    """As MSCKE's, each about another thing, with a picture that differs in one thing."""
    found = []
    for i, record in enumerate(tiny_records(n)):
        edit = replace(record.edit, text=f"what color is the {('circle', 'square', 'star')[i % 3]}")
        near = replace(edit, image=picture(300 + i), answer="blue")
        found.append(replace(record, edit=edit, image_near=(near,)))
    return found


def trainer(out, editor=None, **changes) -> LTETrainer:
    found = records()
    return LTETrainer(editor or lte(seed=None), found, found[:2], hparams(**changes), out)


def test_a_batch_asks_inside_and_outside_and_leaves_out_what_words_cannot_tell(tmp_path):
    run = trainer(tmp_path, alone=1.0)
    found = run.lessons(run.train[:2], random.Random(0))
    behind = [lesson for lesson in found if lesson.facts]
    kinds = sorted(lesson.kind for lesson in behind if lesson.kind not in FORMS)
    assert kinds == sorted(2 * ["in_scope", "out_scope", "text_loc", "image_loc"])
    assert len(behind) == len(kinds) + 2  # each edit in one of its forms
    drawn = [run.lessons(run.train[:1], random.Random(i)) for i in range(40)]
    seen = {lesson.kind for found in drawn for lesson in found if lesson.facts}
    assert seen == {*FORMS, "in_scope", "out_scope", "text_loc", "image_loc"} - {"image_far"}
    assert [len(lesson.facts) for lesson in behind] == [1] * len(behind)
    own = {id(record.edit) for record in run.train[:2]}
    assert {id(lesson.facts[0]) for lesson in behind} == own
    plain = [lesson for lesson in found if not lesson.facts]
    assert len(plain) == round(0.5 * len(behind)) and {p.kind for p in plain} == {PLAIN}
    assert not [lesson for lesson in run.lessons(run.train[:2]) if not lesson.facts]


def test_half_of_the_edits_stand_alone_and_others_have_near_ones_of_other_words_after_them(
    tmp_path,
):
    run = trainer(tmp_path)
    rng, lengths = random.Random(1), []
    for _ in range(400):
        own, *others = run.facts(run.train[0], rng)
        assert own == run.train[0].edit and all(o.text != own.text for o in others)
        lengths.append(len(others))
    shares = [lengths.count(n) / 400 for n in range(3)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.08)
    assert run.facts(run.train[0], None) == [run.train[0].edit]


def test_the_loss_is_the_documented_sum_by_hand(tmp_path):
    editor = lte(seed=3)
    base = editor.backbone
    edit = Question("what color is the circle?", picture(0), "green")
    found = [
        Lesson([edit], Question("the circle is what color?", edit.image, "green"), "rephrase"),
        Lesson([edit], Question("where is the star?", edit.image, "unread"), "out_scope"),
        Lesson([edit], Question("what is the capital of france", None, "paris"), "text_loc"),
        Lesson([], Question("what color is the circle?", edit.image, "green"), PLAIN),
    ]
    loss, right = lesson_losses(editor.reader, found, 3)
    answers = [[*base.answer_ids("green"), base.stop_token_id]]
    for lesson in found[1:]:  # step by step: what the base model says
        asked = [lesson.question]
        ids = base.generate_ids(base.batch(asked), max_new_tokens=3)[0]
        answers.append([*ids, base.stop_token_id][:3])
        assert said(base, asked, 3) == answers[-1:]
    for lesson, answer, ours, exact in zip(found, answers, loss, right, strict=True):
        (row,) = editor.reader.rows([lesson.facts], [lesson.question])
        embed = editor.reader.lm.get_input_embeddings()
        parts = [embed(torch.tensor(s)) if isinstance(s, list) else s for s in row.segments]
        whole = torch.cat([*parts, embed(torch.tensor(answer))])[None]
        with torch.no_grad():
            scores = editor.reader.lm(inputs_embeds=whole).logits[0].log_softmax(-1)
        start = whole.shape[1] - len(answer) - 1
        each = [-scores[start + i, token] for i, token in enumerate(answer)]
        torch.testing.assert_close(ours, torch.stack(each).mean(), rtol=1e-4, atol=1e-4)
        assert exact == all(scores[start + i].argmax() == t for i, t in enumerate(answer))
    total = total_loss(loss, found, 0.5)
    torch.testing.assert_close(total, loss[0] + 0.5 * loss[1:3].mean() + 0.5 * loss[3])


def test_it_learns_to_follow_and_the_base_model_stays_what_it_was(tmp_path):
    run = trainer(tmp_path, max_iters=40, val_interval=40)
    base = run.editor.backbone
    before = {n: t.clone() for n, t in base.model.state_dict().items()}
    asked = [record.edit for record in run.val]
    said_before = base.generate(asked)
    untrained = run.validate()["loss/total_val"]
    assert run.run()["loss/total_val"] < 0.7 * untrained
    assert all(torch.equal(before[n], t) for n, t in base.model.state_dict().items())
    assert [a.text for a in run.editor.generate(asked)] == said_before


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    whole = trainer(tmp_path / "a")
    whole.run()
    killed = trainer(tmp_path / "b")
    for _ in range(4):
        killed.train_step()
    killed.save()
    again = trainer(tmp_path / "b")
    again.run()
    assert again.history[-1] == whole.history[-1]
    expected = whole.editor.reader.state_dict()
    for name, value in again.editor.reader.state_dict().items():
        assert torch.equal(expected[name], value), name
