"""The counterfactual model of MSCKE's release, laid out as it was trained."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ...backbones.splice import Segment
from ...data import Question
from .counterfactual import SmallLM

_WRAP = ("###Human: <Img>", "</Img> ")  # MiniGPT-4's words around an image


class ReleasedLM(SmallLM):
    """One row reads ``[image V] Question: {t_e} Short answer: {y_e} Question: {t_test} Short
    answer:``, without start or end tokens; on MiniGPT-4 the image stands between the base model's
    words.

    It comes from a released checkpoint (``release.py``). The release trains it on answers without
    an end, so that free generation goes on after them: measure it teacher-forced.
    """

    kind: ClassVar[str] = "released-lm"

    def segments(self, edit: Question, query: Question, image: Tensor | None) -> list[Segment]:
        """See :class:`PairReader`."""
        base = self.backbone
        text = f"{base.prompt(edit)} {edit.answer} {base.prompt(query)}"
        asked = base.token_ids(text, special=False)
        if image is None:
            return [asked]
        if "minigpt4" not in base.family:
            return [image, asked]
        before, after = (base.token_ids(words, special=False) for words in _WRAP)
        return [before, image, after, asked]
