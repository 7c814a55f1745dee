"""MSCKE-Self as an editor: MSCKE whose scope is read from the edited model itself.

The base model runs on all questions once. At the scope's layer it is known which of them are in
scope of an edit: the others go on as they are, so their answers are the base model's own, and in
scope the counterfactual model answers. Ours, in no paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.splice import Batch, answer_logits
from ...data import EditRecord, Question
from ..base import Forced, Visible, force_with_base
from ..factory import shipped_editor
from ..mscke.config import CounterfactualConfig
from ..mscke.counterfactual import Counterfactual, new_counterfactual
from ..mscke.model import MSCKE
from ..routed import Hit, RoutedEditor
from ..store import EditStore, InForce, Kept
from .calibration import SelfCalibration, of_records
from .config import SelfScopeConfig
from .parts import trained_counterfactual, trained_scope
from .reading import decided, new_scope, read_keys, until
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
        scope: SelfScopeConfig | SelfScope,
        counterfactual: CounterfactualConfig | Counterfactual,
        threshold: float | None = None,
        device: str | torch.device | None = None,
    ) -> Self:
        """An untrained editor; either part may be one that is ready."""
        model: Any = counterfactual
        if isinstance(counterfactual, CounterfactualConfig):
            model = new_counterfactual(backbone, counterfactual)
        place = device or backbone.device
        if isinstance(model, torch.nn.Module):
            model.to(place)
        threshold = 0.5 if threshold is None else threshold
        heads = scope if isinstance(scope, SelfScope) else new_scope(scope, backbone)
        return cls(backbone, heads.to(place), model, threshold)

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
        if settings.scope_of is None:
            return cls.from_config(backbone, settings.scope, answers, settings.threshold)
        scope, threshold = trained_scope(settings.scope_of, backbone)
        threshold = threshold if settings.threshold is None else settings.threshold
        return cls.from_config(backbone, scope, answers, threshold)

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
            hits.extend(decided(self.scope, hidden, batch, now, self.threshold, visible))
            return 2 * len(self.outside(hits)) >= len(hits)

        said = until(self.backbone.decoder, self.scope.layer, decide, run)
        return hits, said

    # Thresholds -------------------------------------------------------------------------------

    def calibrate(
        self,
        records: Sequence[EditRecord],
        *,
        edits: int = 1,
        at_most: float | None = None,
        more: Sequence[Question] = (),
    ) -> SelfCalibration:
        """As :meth:`RoutedEditor.calibrate`: the scope's threshold and the picture's."""
        keys = partial(read_keys, self.backbone, self.scope)
        at_most = self.at_most if at_most is None else at_most
        found = of_records(self.scope, records, keys, edits=edits, at_most=at_most, more=more)
        self.take(found)
        return found

    def take(self, found: SelfCalibration) -> None:
        """Set all thresholds to those of a calibration."""
        self.threshold = found.threshold
        found.apply(self.scope)

    def describe(self) -> dict[str, Any]:
        """Thresholds, what the heads read, and the counterfactual model."""
        return {
            "threshold": self.threshold,
            "picture_threshold": self.scope.picture_threshold,
            "layer": self.scope.layer,
            "binding": self.scope.config.binding,
            "counterfactual": self.counterfactual.describe(),
        }
