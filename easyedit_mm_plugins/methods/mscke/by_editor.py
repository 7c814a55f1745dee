"""Another editing method as MSCKE's counterfactual model.

"... or employ alternative editing methods that accurately reflect the new facts" (section 3.2): the
scope classifier decides, and in scope the answer is that of the base model edited by the other
method, each row by the one edit that the classifier found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ...data import Question
from ..base import Editor
from ..checkpoint import read_config
from ..entries import METHODS
from .config import CounterfactualConfig
from .counterfactual import Counterfactual


class EditorCounterfactual(Counterfactual):
    """``editor`` answers in scope. An edit is made when it comes into force, once.

    Args:
        editor: any method that keeps rows apart; its other edits, if it has any, are not seen.

    Raises:
        ConfigError: the method cannot restrict a row to its own edit.
    """

    kind: ClassVar[str] = "editor"

    def __init__(self, editor: Editor) -> None:
        if not editor.isolates_rows:
            raise ConfigError(
                f"{editor.name} does not keep the rows of a batch apart",
                remedy="as a counterfactual model take a method with isolates_rows",
            )
        self.editor = editor
        # By identity: the memory hands back the very objects that it was given, and a question
        # may hold a picture, which has no hash. The edit is kept so that its identity stays taken.
        self._ids: dict[int, tuple[Question, list[str]]] = {}

    @classmethod
    def from_config(cls, backbone: Backbone, config: CounterfactualConfig) -> Self:
        """Refused: which editor, and trained how, is more than ``kind`` says."""
        raise ConfigError(
            f"counterfactual.kind {cls.kind!r} cannot be made from settings alone",
            remedy="build the editor and give it to EditorCounterfactual(editor)",
        )

    def prepare(self, edits: Sequence[Question]) -> None:
        """Put ``edits`` in force in the editor; none of them is if one fails."""
        ids = self.editor.add(edits)
        for edit, edit_id in zip(edits, ids, strict=True):
            self._ids.setdefault(id(edit), (edit, []))[1].append(edit_id)

    def release(self, edits: Sequence[Question]) -> None:
        """Take ``edits`` back from the editor."""
        gone = []
        for edit in edits:
            held = self._ids[id(edit)][1]
            gone.append(held.pop())
            if not held:
                del self._ids[id(edit)]
        self.editor.remove(gone)

    @contextmanager
    def _visible(self, edits: Sequence[Question]) -> Iterator[list[list[str]]]:
        """For each row the id of its edit; edits that nobody prepared are in force meanwhile."""
        new = list({id(e): e for e in edits if id(e) not in self._ids}.values())
        if new:
            self.prepare(new)
        try:
            yield [self._ids[id(edit)][1][:1] for edit in edits]
        finally:
            if new:
                self.release(new)

    def generate(
        self,
        edits: Sequence[Question],
        queries: Sequence[Question],
        *,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """See :class:`Counterfactual`."""
        if not queries:
            return []
        with self._visible(edits) as visible:
            answers = self.editor.generate(
                queries, visible=visible, max_new_tokens=max_new_tokens, **kwargs
            )
        return [answer.text for answer in answers]

    def answer_logits(self, edits: Sequence[Question], queries: Sequence[Question]) -> list[Tensor]:
        """See :class:`Counterfactual`.

        Raises:
            ConfigError: the editor gives no logits; :meth:`top_ids` works nevertheless.
        """
        if not hasattr(self.editor, "answer_logits"):
            raise ConfigError(f"{self.editor.name} gives predictions, no logits")
        with self._visible(edits) as visible:
            return self.editor.answer_logits(queries, visible=visible)

    def top_ids(
        self, edits: Sequence[Question], queries: Sequence[Question], k: int
    ) -> list[Tensor]:
        """See :class:`Counterfactual`."""
        with self._visible(edits) as visible:
            return [row.top_ids for row in self.editor.force(queries, visible=visible, top_k=k)]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What was trained in the editor; runs tell one training from another by it."""
        for name, part in vars(self.editor).items():
            if isinstance(part, nn.Module):
                yield from part.named_parameters(name)

    def describe(self) -> dict[str, Any]:
        """Kind, the editor's name and its settings."""
        return {"kind": self.kind, "editor": self.editor.name, **self.editor.describe()}

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write the editor, as it writes itself.

        Raises:
            ConfigError: the method has nothing to save.
        """
        if not hasattr(self.editor, "save_pretrained"):
            raise ConfigError(f"{self.editor.name} has nothing to save")
        self.editor.save_pretrained(folder, half=half)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """The editor in ``folder``, which says what method it is of.

        Raises:
            CheckpointError: it is missing or damaged. UnknownNameError: an unknown method.
        """
        config = read_config(Path(folder) / "config.json", ("method",))
        return cls(METHODS.get(config["method"]).editor_class.from_pretrained(folder, backbone))
