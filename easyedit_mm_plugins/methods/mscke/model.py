"""MSCKE as an editor: memory, scope classifier, base and counterfactual model (eq. 1-3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from ...backbones.base import Backbone
from ...core.errors import CheckpointError, ConfigError
from ...data import Question
from ..base import Visible
from ..checkpoint import AGAIN, read_header, write_header
from ..edit_file import SavedEdits
from ..routed import Hit, RoutedEditor
from ..store import EditStore, Kept
from .classifier import ScopeClassifier
from .config import CounterfactualConfig, ScopeConfig
from .counterfactual import COUNTERFACTUALS, Counterfactual, new_counterfactual
from .lookup import compare_all, lookup

PARTS = ("scope", "counterfactual")


class MSCKE(RoutedEditor):
    """Edits a frozen vision-language model from outside.

    A query whose similarity rho to its nearest edit reaches the threshold is answered by the
    counterfactual model from that edit, any other by the base model's own path (eq. 3).

    Args:
        backbone: the base model f_base; never changed.
        scope: the scope classifier f_cls.
        counterfactual: the counterfactual model f_cfr.
        threshold: in [0, 1]; the paper's is 0.5.

    Raises:
        ConfigError: the threshold is out of range.
    """

    name = "mscke"
    scope_class: ClassVar[Any] = ScopeClassifier

    def __init__(
        self,
        backbone: Backbone,
        scope: ScopeClassifier,
        counterfactual: Counterfactual,
        threshold: float = 0.5,
    ) -> None:
        store = EditStore(scope.stored, scope.null.device, metric=scope.metric)
        super().__init__(backbone, counterfactual, threshold, store)
        self.scope = scope.eval()

    @classmethod
    def from_config(
        cls,
        backbone: Backbone,
        scope: ScopeConfig,
        counterfactual: CounterfactualConfig,
        threshold: float = 0.5,
        device: str | torch.device | None = None,
    ) -> Self:
        """An untrained editor, ready for :class:`MSCKETrainer`."""
        device = device or backbone.device
        classifier = ScopeClassifier.from_config(scope).to(device)
        model = new_counterfactual(backbone, counterfactual)
        if isinstance(model, torch.nn.Module):
            model.to(device)
        return cls(backbone, classifier, model, threshold)

    # Edits ------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, edits: Sequence[Question]) -> Kept:
        """Encode each edit once (eq. 4, 6)."""
        scope = self.scope.eval()
        parts = [scope.encode_edits(edits[i : i + 64]) for i in range(0, len(edits), 64)]
        self.counterfactual.prepare(edits)
        return Kept(scope.kept(torch.cat(parts)))

    def forget(self, edits: Sequence[Question]) -> None:
        """The counterfactual model forgets them too."""
        self.counterfactual.release(edits)

    # Queries ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """The nearest edit k* and its rho for each question (eq. 1-2), threshold not applied."""
        now = self.store.now
        if not now.edits or not questions:
            return [Hit(None, 0.0)] * len(questions)
        if self.scope.training:  # eval() walks through all modules, in every call for nothing
            self.scope.eval()
        queries = self.scope.encode_queries(questions)
        if self.scope.metric is None:
            similarity, alone = self.scope.similarity, self.scope.mixes
            return compare_all(now, queries, similarity, visible, alone=alone)
        return lookup(now, self.scope.kept(queries), self.scope.rho, visible)

    def describe(self) -> dict[str, Any]:
        """Threshold, fusion, similarity, encoder and counterfactual model."""
        return {
            "threshold": self.threshold,
            "encoder": self.scope.config.encoder,
            "fusion": self.scope.config.fusion,
            "similarity": self.scope.config.similarity,
            "counterfactual": self.counterfactual.describe(),
        }

    # On disk ----------------------------------------------------------------------------------

    def save_pretrained(
        self, folder: str | Path, *, half: bool = True, parts: Mapping[str, str] | None = None
    ) -> None:
        """Write the trained parts: ``scope/``, ``counterfactual/`` and ``config.json``, last.

        Args:
            folder: made if absent.
            half: store weights as fp16 (they are used as fp32); ``False`` keeps every bit.
            parts: parts that lie elsewhere, by name ("scope", "counterfactual"): their path as
                seen from ``folder``, which is noted instead of writing them again.
        """
        folder, parts = Path(folder), dict(parts or {})
        for part in PARTS:
            if part not in parts:
                getattr(self, part).save_pretrained(folder / part, half=half)
        settings = {"threshold": self.threshold, "counterfactual": self.counterfactual.kind}
        further = {"parts": parts} if parts else {}
        write_header(folder, self.name, self.backbone, **settings, **further)

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe; their threshold replaces a trained editor's own.

        Raises:
            BackboneError: the encoder's or the counterfactual model's weights cannot be had.
            CheckpointError, ConfigError: see :meth:`Editor.from_hparams`.
        """
        if settings.archive is None:
            parts = settings.scope, settings.counterfactual, settings.threshold
            return cls.from_config(backbone, *parts)
        editor = cls.from_pretrained(settings.archive, backbone)
        editor.threshold = settings.threshold
        return editor

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An editor saved by :meth:`save_pretrained`, for the backbone it was trained on.

        Raises:
            CheckpointError: something is missing or damaged, or the editor is for another
                backbone; the message names both.
        """
        folder = Path(folder)
        config = read_header(folder, cls.name, backbone, ("threshold", "counterfactual"))
        at = part_folders(folder, config)
        scope = cls.scope_class.from_pretrained(at["scope"]).to(backbone.device)
        kind = COUNTERFACTUALS.get(config["counterfactual"])
        model = kind.from_pretrained(at["counterfactual"], backbone)
        if isinstance(model, torch.nn.Module):
            model.to(backbone.device)
        try:
            return cls(backbone, scope, model, config["threshold"])
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error

    def made_by(self) -> str:
        """The classifier that made the features."""
        return f"scope classifier {self.scope.fingerprint()}"

    def unpack(self, saved: SavedEdits) -> Kept:
        """The saved features; nothing is encoded again."""
        keys = self.scope.kept(saved.keys(self.scope.stored))
        self.counterfactual.prepare(list(saved.edits.values()))
        return Kept(keys)


def part_folders(
    folder: Path, config: dict[str, Any], names: Sequence[str] = PARTS
) -> dict[str, Path]:
    """Where each part of the editor in ``folder`` lies: below it, or where ``parts`` says.

    Raises:
        CheckpointError: ``parts`` is malformed, or names a folder that is not there.
    """
    parts = config.get("parts", {})
    if not isinstance(parts, dict) or not all(isinstance(p, str) for p in parts.values()):
        raise CheckpointError(f"{folder / 'config.json'}: parts is {parts!r}", remedy=AGAIN)
    found = {part: folder / parts.get(part, part) for part in names}
    for part in names:
        if part in parts and not found[part].is_dir():
            raise CheckpointError(
                f"{folder} takes its {part} from {found[part]}, which is not there",
                remedy="keep the two folders side by side as they were, or save the editor whole",
            )
    return found
