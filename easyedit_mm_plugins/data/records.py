"""The two types of the data: a question, and an edit with the questions that test it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..core.errors import DataError
from ..core.text import text_problem

if TYPE_CHECKING:
    import torch
    from PIL import Image

# A path, an opened picture, an RGB float tensor [3, H, W] in [0, 1], or None for text only.
ImageLike: TypeAlias = "str | Path | Image.Image | torch.Tensor | None"


@dataclass(frozen=True)
class Question:
    """A question, with or without an image, with or without the answer that it should get.

    ``text`` is the bare question: prompt templates belong to the backbone. For an edit ``answer``
    is y_e; for a locality question it is the reference answer of the data set.

    Of a scope question ``hard`` says whether its texts leave the scope open (``None``: nobody has
    said), ``sort`` what sort of question it is ("relation", "existence", ...), where the data set
    names sorts. Two questions that differ in these alone are equal.
    """

    text: str
    image: ImageLike = None
    answer: str = ""
    hard: bool | None = dataclasses.field(default=None, compare=False)
    sort: str = dataclasses.field(default="", compare=False)

    def with_answer(self, answer: str) -> Question:
        """The same question with another answer."""
        return replace(self, answer=answer)


def check_questions(questions: Iterable[Question]) -> list[Question]:
    """``questions`` as a list.

    Raises:
        DataError: it is a single question, or an entry is no :class:`Question` of texts.
    """
    if isinstance(questions, (str, Question)) or not isinstance(questions, Iterable):
        raise DataError(
            f"a {type(questions).__name__} is no list of questions",
            remedy="give a list: [Question(text, image)]",
        )
    found = list(questions)
    for i, question in enumerate(found):
        if not isinstance(question, Question):
            raise DataError(
                f"is a {type(question).__name__}, not a Question",
                record=f"question {i}",
                remedy="write Question(text, image)",
            )
        for field, value in (("text", question.text), ("answer", question.answer)):
            is_text = isinstance(value, str)
            problem = text_problem(value) if is_text else f"is a {type(value).__name__}, not a text"
            if problem:
                raise DataError(problem, record=f"question {i}", field=field)
    return found


# Kinds of questions of a record, by what an edit should do to them.
INSIDE = ("edit", "rephrase", "image_rephrase", "image_far", "in_scope")
OUTSIDE = ("out_scope", "text_loc", "image_loc", "image_near")


@dataclass(frozen=True)
class EditRecord:
    """One benchmark case: an edit and the questions that test it (MSCKE section 4.1).

    Attributes:
        case_id: unique within its data set.
        edit: (i_e, t_e, y_e), eq. 15.
        rephrase: t_r on i_e, answer y_e, eq. 17.
        in_scope: (t_in, y_in) on i_e, answers after the edit, eq. 13.
        out_scope: (t_out, y_out) on i_e, answers that must not change, eq. 14.
        text_loc: t_l without an image, eq. 16.
        image_rephrase: t_e on another picture of the same thing, answer y_e (E-VQA's V-Gen).
        image_loc: another question on another image (E-VQA's M-Loc).
        image_far: t_e on a picture of the same thing that differs more, answer y_e (ours).
        image_near: a question on a picture that differs from i_e in one thing alone (ours).
        pair: two records of one pair have the same texts, and their scopes are swapped.
    """

    case_id: str
    edit: Question
    rephrase: tuple[Question, ...] = ()
    in_scope: tuple[Question, ...] = ()
    out_scope: tuple[Question, ...] = ()
    text_loc: tuple[Question, ...] = ()
    image_rephrase: tuple[Question, ...] = ()
    image_loc: tuple[Question, ...] = ()
    image_far: tuple[Question, ...] = ()
    image_near: tuple[Question, ...] = ()
    pair: str | None = None

    def questions(self) -> dict[str, tuple[Question, ...]]:
        """All questions by kind, the edit itself first."""
        return {
            "edit": (self.edit,),
            "rephrase": self.rephrase,
            "in_scope": self.in_scope,
            "out_scope": self.out_scope,
            "text_loc": self.text_loc,
            "image_rephrase": self.image_rephrase,
            "image_loc": self.image_loc,
            "image_far": self.image_far,
            "image_near": self.image_near,
        }
