"""What an editor or a backbone is given must be a list of questions; anything else is said."""

from __future__ import annotations

import pytest

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.base import Unedited
from easyedit_mm_plugins.methods.routed import RoutedEditor

ASKED = Question("what color is the circle?", None, "red")
WRONG = [
    ("text", "a str is no list of questions"),
    (ASKED, "a Question is no list of questions"),
    (None, "a NoneType is no list"),
    ([ASKED, "text"], "question 1: is a str, not a Question"),
    ([Question("what?", None, None)], "question 0, field answer: is a NoneType"),
    ([Question(b"what?")], "question 0, field text: is a bytes"),
]


class Routed(RoutedEditor):
    """Looks at a question before any model does."""

    name = "routed-fake"
    edits = property(lambda self: {})

    def route(self, questions, *, visible=None):
        return [question.image.nothing for question in questions]

    def add(self, edits):
        raise AssertionError("add must not be reached")

    def remove(self, ids):
        pass


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_is_no_list_of_questions_is_refused_by_every_way_in(tiny_backbone, given, message):
    editors = [Unedited(tiny_backbone), Routed(tiny_backbone, None)]
    ways = [way for e in editors for way in (e.add, e.generate, e.force)]
    for way in (*ways, tiny_backbone.generate, tiny_backbone.answer_logits):
        with pytest.raises(DataError, match=message):
            way(given)
    assert editors[0].edits == {}
    with pytest.raises(DataError, match=message):
        editors[0].generate(questions=given)
    with pytest.raises(DataError, match=message):
        editors[0].add(edits=given)


def test_iterators_are_taken_as_lists_are(tiny_backbone):
    editor = Unedited(tiny_backbone)
    ids = editor.add(question for question in [ASKED])
    assert editor.edits == {ids[0]: ASKED}
    assert editor.generate(iter([ASKED])) == editor.generate([ASKED])
