"""The attackers as editors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from ...backbones.base import Backbone
from ...core.errors import CheckpointError
from ...data import EditRecord, FGVEditDataset, Question, load_records, open_image
from ...data.images import image_key
from ...data.tools.attackers import ATTACKERS, Attacker, Scoped, scoped, shown_to
from ..base import Visible
from ..checkpoint import read_header
from ..factory import shipped_editor
from ..mscke.counterfactual import COUNTERFACTUALS, Counterfactual
from ..mscke.model import part_folders
from ..routed import Hit, RoutedEditor
from ..store import Kept
from .config import BlindHyperParams
from .sight import base_of


class Blind(RoutedEditor):
    """Routes by an attacker; answers in scope as MSCKE does.

    It learns from the questions in and out of scope of the training records (those of ``fg_extra``
    too), and that rephrased edits are in scope. What takes no classifier is settled beforehand: the
    edit's own question about its own picture is in scope, and no question without a picture is in
    scope of an edit with one.

    Args:
        backbone: the base model.
        train: training records, a data set's name, or a JSON file; by default ``settings.train``.
        settings: by default those of the class.
        counterfactual: a model, or the folder of a trained MSCKE for the backbone; by default
            ``settings.archive``, else the shipped one.

    Raises:
        CheckpointError: there is no MSCKE for the backbone, or it is damaged.
        ConfigError: the records teach nothing, or scikit-learn is not installed.
        DataError, UnknownNameError: the records cannot be read.
    """

    attacks: ClassVar[str]  # one of ATTACKERS

    def __init__(
        self,
        backbone: Backbone,
        train: Sequence[EditRecord] | str | Path | None = None,
        *,
        settings: BlindHyperParams | None = None,
        counterfactual: Counterfactual | str | Path | None = None,
    ) -> None:
        self.settings = settings or BlindHyperParams(model_name=backbone.name)
        if counterfactual is None or isinstance(counterfactual, (str, Path)):
            folder = counterfactual or self.settings.archive
            counterfactual = mscke_counterfactual(backbone, folder)
        super().__init__(backbone, counterfactual, self.settings.threshold)
        self.shown, self._base = ATTACKERS[self.attacks], base_of(backbone)
        self.source = self.settings.train if train is None else train
        records = self._records(self.source)
        self.attacker = Attacker(self.attacks, self.settings.seed).fit(self._lessons(records))
        self._learned = len(records)

    def _records(self, source: Sequence[EditRecord] | str | Path) -> list[EditRecord]:
        most = self.settings.records
        for needs, fewer in (("pictures", "pictures"), ("answers", "answered")):
            if getattr(self.shown, needs):
                most = min(most, getattr(self.settings, fewer))
        if not isinstance(source, (str, Path)):
            return list(islice(source, most))
        if Path(source).is_file() and not self.shown.needs_model:  # pictures do not matter
            options: Any = {"check": "off", "allow_outside": True}
            return FGVEditDataset(source, most, extra=True, **options).records
        return load_records(str(source), split="train", limit=most, extra=True).records

    def _lessons(self, records: Sequence[EditRecord]) -> list[Scoped]:
        asked = scoped(records)
        if self.shown.edit:
            for record in records:
                asked += [Scoped(record.edit, query, True) for query in record.rephrase]
        return shown_to(self.shown, asked, self._base.pictures, self._base.answers)

    # Edits ------------------------------------------------------------------------------------

    def encode(self, edits: Sequence[Question]) -> Kept:
        """The base model's answers to the edits' questions, where the attacker is shown them."""
        self.counterfactual.prepare(edits)
        return Kept(payloads=self._base.answers(edits) if self.shown.answers else None)

    def forget(self, edits: Sequence[Question]) -> None:
        """The counterfactual model forgets them too."""
        self.counterfactual.release(edits)

    # Queries ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """The edit that each question is most probably in scope of, and that probability."""
        now = self.store.now
        seen = [now.seen_by(None if visible is None else visible[i]) for i in range(len(questions))]
        asking = [i for i, ids in enumerate(seen) if ids]
        asked_now = [questions[i] for i in asking]
        said: dict[int, str] = {}
        if self.shown.answers:
            said = dict(zip(asking, self._base.answers(asked_now), strict=True))
        looked: dict[Any, Any] = {}
        if self.shown.pictures:
            looked = {image_key(q.image): q.image for q in asked_now if q.image is not None}
            looked = dict(zip(looked, self._base.pictures(list(looked.values())), strict=True))
        pairs = [(i, edit_id) for i in asking for edit_id in seen[i]]
        asked = [
            Scoped(
                now.edits[edit_id],
                questions[i],
                inside=False,  # unknown
                before=(now.payloads.get(edit_id, ""), said.get(i, "")),
                seen=looked.get(image_key(questions[i].image)) if looked else None,
            )
            for i, edit_id in pairs
        ]
        hits = [Hit(None, 0.0)] * len(questions)
        for (i, edit_id), score in zip(pairs, self._scores(asked), strict=True):
            if hits[i].id is None or score > hits[i].score:
                hits[i] = Hit(edit_id, score)
        return hits

    def _scores(self, asked: Sequence[Scoped]) -> list[float]:
        """Probabilities; 1 for an edit asked again, 0 where the picture is missing."""
        scores = [1.0 if _again(one) else 0.0 for one in asked]
        told = [
            i
            for i, one in enumerate(asked)
            if not scores[i]
            and (one.query.image is None) == (one.edit.image is None)
            and not (self.shown.pictures and one.seen is None)
        ]
        for i, score in zip(told, self.attacker.score([asked[i] for i in told]), strict=True):
            scores[i] = float(score)
        return scores

    def describe(self) -> dict[str, Any]:
        """That it is an attacker, what it is shown, what it learned from, what answers."""
        named = isinstance(self.source, (str, Path))
        return {
            "kind": "attacker",
            "shown": self.shown.shown,
            "train": str(self.source) if named else "records",
            "records": self._learned,
            "threshold": self.threshold,
            "counterfactual": self.counterfactual.describe(),
        }

    # Made of ----------------------------------------------------------------------------------

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The attacker that ``settings`` describe."""
        return cls(backbone, settings=settings)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """An attacker with the counterfactual model of the trained MSCKE in ``folder``."""
        return cls(backbone, counterfactual=folder)


class BlindRule(Blind):
    """By the rule of names: see ``data/tools/attackers.py``."""

    name, attacks = "blind-rule", "rule"


class BlindQuery(Blind):
    """By the query's text alone."""

    name, attacks = "blind-query", "query"


class BlindText(Blind):
    """By the texts alone: the edit, its answer and the query."""

    name, attacks = "blind-text", "text"


class BlindAnswers(Blind):
    """By the texts and the base model's answers to the edit's question and to the query."""

    name, attacks = "blind-answers", "answers"


class BlindPicture(Blind):
    """By the query's picture alone."""

    name, attacks = "blind-picture", "picture"


class BlindQueryPicture(Blind):
    """By the query's text and picture, without the edit."""

    name, attacks = "blind-query-picture", "query-picture"


def mscke_counterfactual(backbone: Backbone, folder: str | Path | None = None) -> Counterfactual:
    """The counterfactual model of the MSCKE in ``folder``, by default of the shipped one.

    Raises:
        CheckpointError: there is none for the backbone, or it is damaged.
    """
    place = Path(folder) if folder is not None else shipped_editor("mscke", backbone)
    if place is None:
        raise CheckpointError(
            f"attackers answer with MSCKE's counterfactual model, and no MSCKE is shipped for "
            f"{backbone.name}",
            remedy="train one (easyedit-mm train mscke) and give its folder",
        )
    config = read_header(place, "mscke", backbone, ("threshold", "counterfactual"))
    kind = COUNTERFACTUALS.get(config["counterfactual"])
    model: Any = kind.from_pretrained(part_folders(place, config)["counterfactual"], backbone)
    if isinstance(model, torch.nn.Module):
        model.to(backbone.device)
    return model


def _again(one: Scoped) -> bool:
    """Whether the query is the edit's own question about the same picture."""
    if one.query.text.strip() != one.edit.text.strip():
        return False
    mine, edits = one.query.image, one.edit.image
    if mine is None or edits is None or image_key(mine) == image_key(edits):
        return (mine is None) == (edits is None)
    return np.array_equal(np.asarray(open_image(mine)), np.asarray(open_image(edits)))
