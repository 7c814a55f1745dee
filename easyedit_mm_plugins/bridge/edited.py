"""The model that ``MultimodalEditor.edit`` returns: base outputs out of scope, edits in scope."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..core.errors import DataError
from ..data.records import ImageLike, Question
from ..data.several import Several
from ..host.backbones import denormalise
from ..methods.base import Editor
from ..methods.deltas import DeltaEditor, applied
from ..methods.routed import RoutedEditor
from .forward import EditedOutput, backbone_forward
from .requests import bare, templates_of

RANKS = 10  # EasyEdit compares up to ten ranks


class EditedModel(nn.Module):
    """A base model with edits in force, usable wherever EasyEdit uses its models.

    A row that no edit covers gets exactly the base model's output. A row in scope gets the
    editor's logits at the answer's positions; of a method that tells only its best tokens, these
    ten are put on top of the base model's logits (ranks then, not probabilities). Under a method
    that changes weights every row is the changed model's, at all positions.

    The edits lie in the editor's memory until :meth:`undo`, or until this object is gone; other
    edited models of the same editor never see them.

    Attributes:
        model: the base model, untouched.
        editor: the method.
        ids: the edits in force here.
    """

    editor: Editor
    backbone: Backbone

    def __init__(self, editor: Editor, ids: Sequence[str]) -> None:
        super().__init__()
        self.model = editor.backbone.model
        # Not submodules: state_dict() and parameters() stay the base model's.
        object.__setattr__(self, "editor", editor)
        object.__setattr__(self, "backbone", editor.backbone)
        self.ids = list(ids)
        self._release = weakref.finalize(self, _remove, editor, self.ids)
        self._release.atexit = False

    def undo(self) -> nn.Module:
        """Take the edits back and return the base model, bit for bit as it was."""
        self._release()
        self.ids = []
        return self.model

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def edits(self) -> dict[str, Question]:
        """The edits in force here."""
        return {i: edit for i, edit in self.editor.edits.items() if i in self.ids}

    def visible(self, count: int) -> list[frozenset[str]] | None:
        """The ``visible`` argument that shows ``count`` rows the edits of this object only."""
        return [frozenset(self.ids)] * count if self.editor.isolates_rows else None

    def edit(self, batch: dict[str, Any], condition: Any = None) -> tuple[EditedModel, dict]:
        """EasyEdit's ``EditableModel.edit``: a further model that holds ``batch`` as well."""
        again = self.editor.add(list(self.edits.values())) if self.ids else []
        return EditedModel(self.editor, [*again, *self.editor.add(self.questions(batch))]), {}

    @torch.no_grad()
    def forward(self, samples: Any) -> Any:
        """EasyEdit's samples, a dictionary or (head) a list of them, -> the base's output type.

        ``samples`` holds ``image`` (normalised pixels [B, 3, 364, 364] or ``None``),
        ``text_input`` (prompt and target in one), ``prompts_len``, ``labels``.
        """
        with self._changed():
            out: Any = (
                self.model(samples) if self._takes_samples else self._backbone_forward(samples)
            )
        if not self.ids or self._changes or not self.editor.isolates_rows:
            return out  # nothing is edited, or the model itself is
        logits, mask, changed = out.logits, out.attention_mask, False
        questions = self.questions(samples)
        for i, values in enumerate(self._in_scope(questions)):
            if values is None:
                continue
            if not changed:
                logits, changed = logits.clone(), True
            self._overlay(logits[i], mask[i], questions[i], values)
        if changed:
            out.logits = logits
        return out

    @torch.no_grad()
    def generate(
        self,
        prompts: Any,
        image: Any = None,
        *,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """Answers with the edits in force.

        Args:
            prompts: a question or a list of them (text or :class:`Question`), or EasyEdit's
                samples with ``prompt`` or ``text_input``.
            image: an image for each text, or one for all: a path, a PIL image, or RGB [3, H, W];
                in a list of images a list stands for several that one text is about.
            kwargs: go to the language model's ``generate``.
        """
        questions = self._asked(prompts, image)
        answers = self.editor.generate(
            questions,
            visible=self.visible(len(questions)),
            max_new_tokens=max_new_tokens,
            **kwargs,
        )
        return [answer.text for answer in answers]

    # EasyEdit's samples <-> questions ----------------------------------------------------------

    def _backbone_forward(self, samples: Any) -> EditedOutput:
        return backbone_forward(self.backbone, self.questions(samples), changed=self._changes)

    @property
    def _changes(self) -> bool:
        return bool(self.ids) and isinstance(self.editor, DeltaEditor)

    def _changed(self) -> AbstractContextManager[None]:
        """Inside, the base model is under the changes of a method that changes weights."""
        if not (self.ids and isinstance(self.editor, DeltaEditor)):
            return nullcontext()
        delta = self.editor.deltas_for(1, self.visible(1))[0]
        return applied(self.backbone.linear_modules(), [delta or {}])

    @property
    def _takes_samples(self) -> bool:
        return getattr(self.backbone, "takes_samples", False)

    def questions(self, samples: Any) -> list[Question]:
        """The rows of ``samples`` as questions with their answers (empty: a prompt alone).

        Raises:
            DataError: a prompt cannot be told from its target.
        """
        if isinstance(samples, (list, tuple)):
            return [q for one in samples for q in self.questions(one)]
        texts = list(samples["text_input"])
        images = _images(samples.get("image"), len(texts))
        lengths = samples.get("prompts_len") or [None] * len(texts)
        pairs = (self._split(t, n, i) for i, (t, n) in enumerate(zip(texts, lengths, strict=True)))
        return [Question(q, image, a) for (q, a), image in zip(pairs, images, strict=True)]

    def _split(self, text: str, prompt_length: int | None, row: int) -> tuple[str, str]:
        for template in templates_of(self.backbone):
            before, after = (part.strip() for part in template.split("{}"))
            cut = text.rfind(after)
            if before and after and text.strip().startswith(before) and cut > 0:
                prompt, answer = text[: cut + len(after)], text[cut + len(after) :]
                return bare(prompt, (template,)), answer.strip()
        if prompt_length is None:
            raise DataError(
                f"cannot tell prompt from target in {text!r}",
                record=f"row {row}",
                field="prompts_len",
                remedy="give prompts_len, or use the template of the backbone",
            )
        # EasyEdit counts a prompt's tokens as the model will: with its start token or without.
        special = getattr(self.backbone, "special", False)
        ids = self.backbone.token_ids(text, special=special)[int(prompt_length) :]
        answer = self.backbone.tokenizer.decode(ids, skip_special_tokens=True).strip()
        prompt = text.rstrip()
        if answer and prompt.endswith(answer):
            prompt = prompt[: -len(answer)]
        return prompt.strip(), answer

    def _asked(self, prompts: Any, image: Any) -> list[Question]:
        if isinstance(prompts, dict):
            texts: Any = prompts.get("prompt", prompts.get("text_input"))
            texts = [texts] if isinstance(texts, str) else list(texts)
            images = _images(prompts.get("image"), len(texts))
        else:
            texts = [prompts] if isinstance(prompts, (str, Question)) else list(prompts)
            images = list(image) if isinstance(image, (list, tuple)) else [image] * len(texts)
        if len(images) != len(texts):
            raise DataError(f"{len(images)} images for {len(texts)} prompts", field="image")
        templates = templates_of(self.backbone)
        return [
            text
            if isinstance(text, Question)
            else Question(bare(text, templates).strip(), _together(shown))
            for text, shown in zip(texts, images, strict=True)
        ]

    # Rows in scope -----------------------------------------------------------------------------

    def _in_scope(self, questions: Sequence[Question]) -> list[Tensor | None]:
        """For each row in scope the editor's logits [n, vocab], or its best token ids [n, k].

        A prompt alone (no answer) gets one position: what the editor would say next.
        """
        asked, alone = list(questions), [i for i, q in enumerate(questions) if not q.answer]
        if alone:
            said = self.editor.generate(
                [asked[i] for i in alone], visible=self.visible(len(alone)), max_new_tokens=1
            )
            for i, answer in zip(alone, said, strict=True):
                asked[i] = asked[i].with_answer(answer.text)
        rows = [i for i, q in enumerate(asked) if q.answer]
        found: list[Tensor | None] = [None] * len(asked)
        for i, values in zip(rows, self._answer_rows([asked[i] for i in rows]), strict=True):
            found[i] = values if values is None or i not in alone else values[:1]
        return found

    def _answer_rows(self, questions: Sequence[Question]) -> list[Tensor | None]:
        visible = self.visible(len(questions))
        if isinstance(self.editor, RoutedEditor):
            inside = self.editor.in_scope(questions, visible=visible)
            found: list[Tensor | None] = [None] * len(questions)
            if inside:
                logits = self.editor.counterfactual.answer_logits(
                    list(inside.values()), [questions[i] for i in inside]
                )
                for i, row in zip(inside, logits, strict=True):
                    found[i] = row
            return found
        ranks = min(RANKS, self.backbone.vocab_size)
        forced = self.editor.force(questions, visible=visible, top_k=ranks)
        return [None if f.route is None else f.top_ids for f in forced]

    def _overlay(self, logits: Tensor, mask: Tensor, question: Question, values: Tensor) -> None:
        """Put the editor's values over the answer positions of one row, logits [T, vocab]."""
        real = mask.nonzero().flatten()
        if question.answer:
            real = real[: len(real) - self._tail]
            positions = real[-len(values) - 1 : -1]
        else:
            positions = real[-1:]
        for position, row in zip(positions, values.to(logits.device), strict=False):
            if row.is_floating_point():
                logits[position, len(row) :] = torch.finfo(logits.dtype).min
                logits[position, : len(row)] = row.to(logits.dtype)
            else:
                best = logits[position].max()
                steps = torch.arange(len(row), 0, -1, device=logits.device, dtype=logits.dtype)
                logits[position, row] = best + steps

    @property
    def _tail(self) -> int:
        """Tokens that the base model puts after a target (MiniGPT-4 of the PyPI release)."""
        end = getattr(self.model, "end_sym", "")
        if not end:
            return 0
        text, ids = "red", self.backbone.token_ids
        return len(ids(text + end, special=False)) - len(ids(text, special=False))


def _together(image: Any) -> ImageLike:
    """Several images that one prompt is about, or an image as it is."""
    return Several(image) if isinstance(image, (list, tuple)) else image


def _images(image: Any, count: int) -> list[ImageLike]:
    if image is None:
        return [None] * count
    if isinstance(image, Tensor):
        pixels = image.unsqueeze(0) if image.ndim == 3 else image
        images: list[ImageLike] = [denormalise(one.float()) for one in pixels]
    else:
        images = list(image) if isinstance(image, (list, tuple)) else [image]
    return images * count if len(images) == 1 else images


def _remove(editor: Editor, ids: list[str]) -> None:
    held = editor.edits
    editor.remove([i for i in ids if i in held])
