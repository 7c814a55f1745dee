"""MSCKE-Self as an editor: MSCKE whose scope is read from the edited model itself.

The base model runs on all questions once. At the scope's layer it is known which of them are in
scope of an edit: the others go on as they are, so their answers are the base model's own, and in
scope the counterfactual model answers. Ours, in no paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.splice import Batch, answer_logits
from ...data import Question
from ..base import Forced, Visible, force_with_base
from ..checkpoint import read_config, read_header
from ..factory import editor_folder, shipped_editor
from ..mscke.config import CounterfactualConfig
from ..mscke.counterfactual import COUNTERFACTUALS, Counterfactual, new_counterfactual
from ..mscke.model import MSCKE, part_folders
from ..routed import Hit, RoutedEditor
from ..store import EditStore, InForce, Kept
from .config import SelfScopeConfig
from .reading import keys_of, new_scope, read_keys, until
from .scope import SelfScope


class MSCKESelf(MSCKE):
    """See the module's docstring.

    Args:
        backbone: the base model; never changed.
        scope: the two heads.
        counterfactual: answers in scope.
        threshold: of the scope head; the picture key's is the heads' own.

    Raises:
        ConfigError: the threshold is out of range.
    """

    name = "mscke-self"
    scope: SelfScope  # type: ignore[assignment]
    scope_class: ClassVar[Any] = SelfScope
    answers_of: ClassVar[str] = "mscke"  # the method whose shipped counterfactual model answers

    def __init__(
        self,
        backbone: Backbone,
        scope: SelfScope,
        counterfactual: Counterfactual,
        threshold: float = 0.5,
    ) -> None:
        store = EditStore(scope.stored, scope.bias.device, scope.same)
        RoutedEditor.__init__(self, backbone, counterfactual, threshold, store)
        self.scope = scope.eval()

    @classmethod
    def from_config(  # type: ignore[override]
        cls,
        backbone: Backbone,
        scope: SelfScopeConfig,
        counterfactual: CounterfactualConfig | Counterfactual,
        threshold: float | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """An untrained editor; ``counterfactual`` may be a model that is ready."""
        model: Any = counterfactual
        if isinstance(counterfactual, CounterfactualConfig):
            model = new_counterfactual(backbone, counterfactual)
        place = device or backbone.device
        if isinstance(model, torch.nn.Module):
            model.to(place)
        threshold = 0.5 if threshold is None else threshold
        return cls(backbone, new_scope(scope, backbone).to(place), model, threshold)

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """As :meth:`MSCKE.from_hparams`; a trained editor keeps its threshold where none is set.

        Raises:
            BackboneError, CheckpointError, ConfigError: see there.
        """
        if settings.archive is not None:
            editor = cls.from_pretrained(settings.archive, backbone)
            if settings.threshold is not None:
                editor.threshold = settings.threshold
            return editor
        answers: CounterfactualConfig | Counterfactual = settings.counterfactual
        trained = settings.answers_of
        if trained is None and getattr(settings, "train", "scope") == "scope":
            trained = shipped_editor(cls.answers_of, backbone)
        if trained is not None:
            answers = trained_counterfactual(trained, backbone)
        return cls.from_config(backbone, settings.scope, answers, settings.threshold)

    # Edits and queries ------------------------------------------------------------------------

    def encode(self, edits: Sequence[Question]) -> Kept:
        """The keys of each edit's question, from one pass up to the scope's layer."""
        keys = read_keys(self.backbone, self.scope, edits)
        self.counterfactual.prepare(edits)
        return Kept(keys)

    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """The edit that each question is in scope of, or else the nearest one about its picture."""
        now = self.store.now
        if not now.edits or not questions:
            return [Hit(None, 0.0)] * len(questions)
        keys = read_keys(self.backbone, self.scope, questions)
        return self.scope.lookup(now, keys, self.threshold, visible)

    @torch.no_grad()
    def base_texts(
        self, questions: Sequence[Question], visible: Visible, **kwargs: Any
    ) -> tuple[list[Hit], dict[int, str]]:
        """Routes and answers in one pass, see :meth:`_until`."""
        now = self.store.now
        if not now.edits or not questions:
            return super().base_texts(questions, visible, **kwargs)
        batch = self.backbone.batch(questions)
        hits, ids = self._until(
            now, batch, visible, lambda: self.backbone.generate_ids(batch, **kwargs)
        )
        outside = self.outside(hits)
        if ids is not None:
            texts = self.backbone.decode(ids)
            return hits, {i: texts[i] for i in outside}
        rest = [questions[i] for i in outside]
        texts = self.backbone.generate(rest, **kwargs) if rest else []
        return hits, dict(zip(outside, texts, strict=True))

    @torch.no_grad()
    def base_forced(
        self, questions: Sequence[Question], visible: Visible, top_k: int
    ) -> tuple[list[Hit], dict[int, Forced]]:
        """Routes and predictions in one pass, see :meth:`_until`."""
        now = self.store.now
        if not now.edits or not questions:
            return super().base_forced(questions, visible, top_k)
        batch = self.backbone.batch(questions, with_answers=True)
        lm = self.backbone.language_model
        hits, logits = self._until(now, batch, visible, lambda: answer_logits(lm, batch))
        outside = self.outside(hits)
        if logits is not None:
            return hits, {
                i: Forced(batch.answers[i], logits[i].topk(top_k, dim=-1).indices.cpu())
                for i in outside
            }
        rest = [questions[i] for i in outside]
        rows = force_with_base(self.backbone, rest, top_k) if rest else []
        return hits, dict(zip(outside, rows, strict=True))

    def _until(
        self, now: InForce, batch: Batch, visible: Visible, run: Any
    ) -> tuple[list[Hit], Any]:
        """Hits of a batch, and what ``run`` gives for all of its rows.

        ``None`` instead, and the pass ends at the scope's layer, where most rows are in scope: the
        few others then run by themselves.
        """
        hits: list[Hit] = []

        def decide(hidden: Tensor) -> bool:
            keys = keys_of(self.scope, hidden, batch)
            hits.extend(self.scope.lookup(now, keys, self.threshold, visible))
            return 2 * len(self.outside(hits)) >= len(hits)

        said = until(self.backbone.decoder, self.scope.layer, decide, run)
        return hits, said

    def describe(self) -> dict[str, Any]:
        """Thresholds, what the heads read, and the counterfactual model."""
        return {
            "threshold": self.threshold,
            "picture_threshold": self.scope.picture_threshold,
            "layer": self.scope.layer,
            "binding": self.scope.config.binding,
            "counterfactual": self.counterfactual.describe(),
        }


def trained_counterfactual(folder: str | Path, backbone: Backbone) -> Counterfactual:
    """The counterfactual model of the trained editor in ``folder``, MSCKE or a variant of it.

    Raises:
        CheckpointError: it is missing, damaged or for another backbone.
    """
    place = editor_folder(folder)
    method = read_config(place / "config.json", ("method",))["method"]
    config = read_header(place, method, backbone, ("counterfactual",))
    kind = COUNTERFACTUALS.get(config["counterfactual"])
    model: Any = kind.from_pretrained(part_folders(place, config)["counterfactual"], backbone)
    if isinstance(model, torch.nn.Module):
        model.to(backbone.device)
    return model
