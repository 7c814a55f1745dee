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
from ...core.errors import CheckpointError, ConfigError
from ...data import Question
from ..base import Visible
from ..checkpoint import AGAIN, read_header
from ..factory import editor_folder, shipped_editor
from ..in_context import fact
from ..keys import Near
from ..mscke.model import part_folders
from ..mscke_self.reading import read_keys
from ..mscke_self.scope import SelfScope
from ..sentences import SentenceEncoder, WordEncoder, text_encoder
from ..store import EditStore, InForce
from .config import LTESettings

SCOPE = "mscke-self"


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

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> SelfRetrieval:
        """The scope of the trained MSCKE-Self in ``folder``; its counterfactual model is left.

        Raises:
            CheckpointError: it is missing, damaged or for another backbone.
        """
        place = editor_folder(folder)
        config = read_header(place, SCOPE, backbone, ("threshold",))
        scope = SelfScope.from_pretrained(part_folders(place, config)["scope"])
        return cls(backbone, scope.to(backbone.device), _threshold(config, place))

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
        ConfigError: ``retrieval: self`` without a trained MSCKE-Self.
        BackboneError: the text encoder cannot be loaded. CheckpointError: the MSCKE-Self cannot.
    """
    if settings.retrieval == "text":
        return TextRetrieval(text_encoder(settings.text_encoder, backbone))
    folder = settings.scope_of or shipped_editor(SCOPE, backbone)
    if folder is None:
        raise ConfigError(
            f"retrieval is self, and no trained MSCKE-Self is shipped for {backbone.name}",
            remedy="train one (easyedit-mm train --method mscke-self) and set scope_of to its "
            "folder, or set retrieval: text",
        )
    return SelfRetrieval.from_pretrained(folder, backbone)


def saved_retrieval(scope: Path, config: Mapping[str, Any], backbone: Backbone) -> Retrieval:
    """What an editor with this ``config.json`` was saved with; its scope lies in ``scope``.

    Raises:
        CheckpointError: it is malformed, or the scope is missing or damaged.
        BackboneError: the text encoder cannot be loaded.
    """
    kind, encoder = config["retrieval"], config.get("text_encoder")
    if kind == "self":
        heads = SelfScope.from_pretrained(scope).to(backbone.device)
        return SelfRetrieval(backbone, heads, _threshold(config, scope.parent))
    if kind == "text" and isinstance(encoder, str):
        return TextRetrieval(text_encoder(encoder, backbone))
    raise CheckpointError(
        f"an LTE editor's retrieval is {kind!r} with text_encoder {encoder!r}",
        remedy=AGAIN,
    )


def _threshold(config: Mapping[str, Any], folder: Path) -> float:
    value = config.get("threshold")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise CheckpointError(f"threshold of {folder} is {value!r}", remedy=AGAIN)
    return float(value)
