"""Which edits stand before a question.

``text`` is LTE's own: the k edits nearest to the question by a text encoder, however far they are.
It sees no picture. ``self`` is ours: the edit whose scope the question is in by MSCKE-Self
(``mscke_self/scope.py``), or none.

Shapes: B questions, n edits, Z width of a key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...core.errors import CheckpointError
from ...data import Question
from ..base import Visible
from ..checkpoint import AGAIN
from ..in_context import fact
from ..keys import Near
from ..mscke_self.parts import load_scope, trained_scope
from ..mscke_self.reading import read_keys
from ..mscke_self.scope import SelfScope
from ..sentences import SentenceEncoder, WordEncoder, text_encoder
from ..store import EditStore, InForce
from .config import LTESettings


class Retrieval(ABC):
    """Finds the edits that concern a question."""

    kind: ClassVar[str]

    @abstractmethod
    def store(self) -> EditStore:
        """An empty store for the edits' keys."""

    @abstractmethod
    def keys(self, edits: Sequence[Question]) -> Tensor:
        """The keys ``[n, Z]`` of edits."""

    @abstractmethod
    def find(
        self, now: InForce, questions: Sequence[Question], visible: Visible, k: int
    ) -> list[list[Near]]:
        """For each question at most ``k`` edits, the nearest first; ``now`` holds some."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Of what makes the keys: equal keys, comparable edits."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What belongs beside a result, and into an editor's ``config.json``."""

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:  # noqa: B027
        """Write what was trained of it, if anything."""


class TextRetrieval(Retrieval):
    """The edits whose words ("question answer") are nearest to the question's, by cosine."""

    kind = "text"

    def __init__(self, encoder: SentenceEncoder | WordEncoder) -> None:
        self.encoder = encoder

    def store(self) -> EditStore:
        return EditStore(self.encoder.width)

    def keys(self, edits: Sequence[Question]) -> Tensor:
        return self.encoder.units([fact(edit) for edit in edits])

    def find(
        self, now: InForce, questions: Sequence[Question], visible: Visible, k: int
    ) -> list[list[Near]]:
        asked = self.encoder.units([question.text for question in questions])
        return now.table.nearest(asked, visible, k)

    def fingerprint(self) -> str:
        return self.encoder.fingerprint()

    def describe(self) -> dict[str, Any]:
        return {"retrieval": self.kind, "text_encoder": self.encoder.name}


class SelfRetrieval(Retrieval):
    """The one edit whose scope the question is in, if there is one.

    Args:
        scope: MSCKE-Self's heads.
        threshold: what reaches it is in scope.
    """

    kind = "self"

    def __init__(self, backbone: Backbone, scope: SelfScope, threshold: float) -> None:
        self.backbone, self.scope, self.threshold = backbone, scope.eval(), threshold

    def store(self) -> EditStore:
        return EditStore(self.scope.stored, self.scope.bias.device, self.scope.same)

    def keys(self, edits: Sequence[Question]) -> Tensor:
        return read_keys(self.backbone, self.scope, edits)

    def find(
        self, now: InForce, questions: Sequence[Question], visible: Visible, k: int
    ) -> list[list[Near]]:
        keys = read_keys(self.backbone, self.scope, questions)
        with torch.no_grad():
            hits = self.scope.lookup(now, keys, self.threshold, visible)
        return [
            [Near(hit.id, hit.score)] if hit.id is not None and hit.score >= self.threshold else []
            for hit in hits
        ]

    def fingerprint(self) -> str:
        return self.scope.fingerprint()

    def describe(self) -> dict[str, Any]:
        return {"retrieval": self.kind, "threshold": self.threshold}

    def save_pretrained(self, folder: Path, *, half: bool = True) -> None:
        self.scope.save_pretrained(folder, half=half)


def retrieval_for(settings: LTESettings, backbone: Backbone) -> Retrieval:
    """What ``settings`` name.

    Raises:
        BackboneError: the text encoder cannot be loaded. CheckpointError: the MSCKE-Self cannot, or
            none is shipped.
    """
    if settings.retrieval == "text":
        return TextRetrieval(text_encoder(settings.text_encoder, backbone))
    return SelfRetrieval(backbone, *trained_scope(settings.scope_of, backbone))


def saved_retrieval(scope: Path, config: Mapping[str, Any], backbone: Backbone) -> Retrieval:
    """What an editor with this ``config.json`` was saved with; its scope lies in ``scope``.

    Raises:
        CheckpointError: it is malformed, or the scope is missing or damaged.
        BackboneError: the text encoder cannot be loaded.
    """
    kind, encoder = config["retrieval"], config.get("text_encoder")
    if kind == "self":
        threshold = config.get("threshold")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise CheckpointError(f"threshold of {scope.parent} is {threshold!r}", remedy=AGAIN)
        return SelfRetrieval(backbone, load_scope(scope, backbone), float(threshold))
    if kind == "text" and isinstance(encoder, str):
        return TextRetrieval(text_encoder(encoder, backbone))
    raise CheckpointError(
        f"an LTE editor's retrieval is {kind!r} with text_encoder {encoder!r}",
        remedy=AGAIN,
    )
