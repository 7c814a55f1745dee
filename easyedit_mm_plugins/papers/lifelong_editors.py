"""What the lifelong benchmark asks: editors with edits that stay in force while questions come."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..backbones import Backbone
from ..core.errors import ConfigError
from ..data import EditRecord, Question
from ..data.images import image_key
from ..methods.base import Answer, Editor, Forced, Visible, force_with_base
from ..methods.deltas import Delta, DeltaEditor, Full, changed_generate, changed_logits, combine


@dataclass(frozen=True)
class Block:
    """Edits that are in force together, in this order, and what is asked meanwhile.

    Attributes:
        asked: records by part of a task ("" is the task itself); the edit of each is in force.
        undone: edits that come after the others and are taken back before anything is asked.
    """

    edits: Sequence[Question]
    asked: dict[str, list[EditRecord]] = field(default_factory=dict)
    undone: Sequence[Question] = ()


class InSequence(Editor):
    """A method that changes weights, its edits applied one after the other.

    Each is learned on the model that the earlier ones left. In its own editor each is learned on
    the unedited model, and several in force are the sum of their changes.

    Args:
        editor: with no edits of its own; it is asked to learn only.
    """

    def __init__(self, editor: DeltaEditor) -> None:
        super().__init__(editor.backbone)
        self.editor, self.name = editor, editor.name
        self.total: Delta = {}
        self._before: list[tuple[list[str], Delta]] = []  # of each call of add: ids, total before
        _show_weights(self, editor)

    def add(self, edits: Sequence[Question]) -> list[str]:
        """Apply ``edits``, in order.

        Raises:
            DataError, TrainingError: as the method's; none of them is in force then.
        """
        self.editor.check_edits(edits)
        total = self.total
        for edit in edits:
            with _written(self.backbone, total):
                (change,) = self.editor.learn([edit])
            total = combine([total, change])
        ids = self.store.add(edits)
        self._before.append((ids, self.total))
        self.total = total
        return ids

    def remove(self, ids: Collection[str]) -> None:
        """Take back the edits of the last calls of :meth:`add`, whole calls only.

        Raises:
            ConfigError: later edits were learned on top of them. KeyError: one is not in force.
        """
        left, keep = set(ids), len(self._before)
        while left and keep and left.issuperset(self._before[keep - 1][0]):
            keep -= 1
            left.difference_update(self._before[keep][0])
        if left and left <= set(self.edits):
            raise ConfigError(
                "edits in sequence are taken back from the last one on",
                remedy="remove all that were added after them as well",
            )
        super().remove(ids)
        if keep < len(self._before):
            self.total = self._before[keep][1]
            del self._before[keep:]

    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers of the model as all edits left it."""
        kwargs["max_new_tokens"] = max_new_tokens
        if not self.total:
            texts = self.backbone.generate(questions, **kwargs)
        else:
            texts = changed_generate(
                self.backbone, questions, [self.total] * len(questions), **kwargs
            )
        return [Answer(text) for text in texts]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions of the model as all edits left it."""
        if not self.total:
            return force_with_base(self.backbone, questions, top_k)
        logits = changed_logits(self.backbone, questions, [self.total] * len(questions))
        return [
            Forced(self.backbone.answer_ids(q.answer), row.topk(top_k, dim=-1).indices.cpu())
            for q, row in zip(questions, logits, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """The method's settings, and that edits are applied in sequence."""
        return {**self.editor.describe(), "applied": "in sequence"}


@contextmanager
def _written(backbone: Backbone, total: Delta) -> Iterator[None]:
    """Inside the block the model's weights are changed by ``total``; after it they are as before.

    Written and not hooked, so that weight decay sees the weights as they are.
    """
    every = backbone.linear_modules()
    weights = {name: every[name].weight for name in total}
    kept = {name: weight.detach().clone() for name, weight in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                change = total[name]
                whole = change.weight if isinstance(change, Full) else change.up.T @ change.down
                weight += whole.to(weight)
        seen = any(name.startswith("connector.") for name in total)
        with backbone.changed_connector() if seen else nullcontext():
            yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])


class Standing(Editor):
    """An editor with edits in force already, for :func:`evaluation.evaluate`.

    Its ``edited`` adds nothing: it names the edits that are there. A question of a case sees all
    edits of its own block.
    """

    isolates_rows: ClassVar[bool] = True

    def __init__(self, editor: Editor, blocks: Sequence[Sequence[str]]) -> None:
        super().__init__(editor.backbone)
        self.editor, self.name = editor, editor.name
        in_force = editor.edits
        self._ids = {_content(in_force[i]): i for ids in blocks for i in ids}
        # With a single block nothing needs to be hidden.
        sees = [frozenset(ids) for ids in blocks] if len(blocks) > 1 else []
        self._sees = {i: seen for seen in sees for i in seen}
        route = getattr(editor, "route", None)
        if callable(route):
            self.route = route
        _show_weights(self, editor)

    @contextmanager
    def edited(self, edits: Sequence[Question]) -> Iterator[list[str]]:
        """The ids of ``edits``, which are in force before and after."""
        yield [self._ids[_content(edit)] for edit in edits]

    def _visible(self, visible: Visible) -> Visible:
        if visible is None or not self._sees:
            return None
        return [self._sees[next(iter(own))] for own in visible]

    def generate(
        self, questions: Sequence[Question], *, visible: Visible = None, **kwargs: Any
    ) -> list[Answer]:
        """Answers, each under all edits of the block that ``visible`` names one of."""
        return self.editor.generate(questions, visible=self._visible(visible), **kwargs)

    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions, as :meth:`generate`."""
        return self.editor.force(questions, visible=self._visible(visible), top_k=top_k)

    def describe(self) -> dict[str, Any]:
        """The editor's settings."""
        return self.editor.describe()


def _content(edit: Question) -> tuple[str, Any, str]:
    return (edit.text, image_key(edit.image), edit.answer)


def _show_weights(wrapper: Editor, editor: Editor) -> None:
    """Let a run folder see the modules whose weights it notes of an editor."""
    for name, value in vars(editor).items():
        if hasattr(value, "named_parameters") and not hasattr(wrapper, name):
            setattr(wrapper, name, value)


@contextmanager
def standing(editor: Editor, blocks: Sequence[Block]) -> Iterator[Standing]:
    """``blocks`` are in force inside the block and gone after it, however it ends.

    Several blocks need an editor that isolates rows.
    """
    if len(blocks) > 1 and not editor.isolates_rows:
        raise ConfigError(f"{editor.name} cannot hide one block's edits from another's questions")
    try:
        ids = iter(editor.add([edit for block in blocks for edit in block.edits]))
        own = [[next(ids) for _ in block.edits] for block in blocks]
        if undone := [edit for block in blocks for edit in block.undone]:
            editor.remove(editor.add(undone))
        yield Standing(editor, own)
    finally:
        editor.clear()
