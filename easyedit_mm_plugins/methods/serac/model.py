"""SERAC as a baseline: EasyEdit's own ``SERAC_MULTI`` wherever its structure allows.

EasyEdit's code, run as it is: the edit memory (``SERAC_MULTI.edit``), the text that its classifier
sees (``build_cls_cache_inputs``), the similarity exp(-scale * squared distance) of a BERT's first
position, and the choice of the nearest edit (``run_classifier``).

What stands in for it, and why:

* Its counterfactual model reads the image through ``language_projection``, which it draws anew at
  every ``edit()`` and never trains, takes one row at a time, and appends OPT's token 13. Here the
  counterfactual model is the one that MSCKE uses, weights included. MSCKE differs from SERAC by
  the scope classifier alone (paper, section 3.2), so the comparison measures just that.
* Its ``generate`` takes token ids and no image; ours answers from the route.
* It needs a model with a ``Qformer``; a stand-in with that attribute lets it work for any backbone.

Routing is hard (``supervised: True``, as released), a score of 0.5 counts as in scope.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...core.errors import CheckpointError
from ...core.shipped import ASSETS
from ...data.records import Question
from ...host import easyedit as host
from ..base import Visible
from ..checkpoint import AGAIN, check_checksums, read_config, read_header, write_header
from ..mscke.counterfactual import COUNTERFACTUALS, Counterfactual
from ..routed import Hit, RoutedEditor
from ..store import InForce

# The released SERAC_MULTI hyperparameters that decide a similarity.
_CONFIG = {
    "model_name": "blip2",  # text comes from samples["text_input"]
    "model_class": "Blip2OPT",
    "name": "opt",
    "cls_name": "bert",
    "cls_class": "BertModel",
    "cross_attend": False,
    "dist_heads": 1,
    "bound_embeds": False,
    "cos": False,
    "square": True,
    "supervised": True,
    "soft_weighting": False,
    "freeze_cntr": False,
    "freeze": None,
}


class _Base(nn.Module):
    """What SERAC_MULTI asks of a base model when only its scope half is used."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.config = None
        self.Qformer = SimpleNamespace(config=SimpleNamespace(hidden_size=hidden_size))


class SERAC(RoutedEditor):
    """EasyEdit's SERAC with the counterfactual model of MSCKE; see the module's docstring.

    Args:
        backbone: the base model.
        classifier: a BERT whose first position is compared.
        classifier_tok: its tokenizer, with a ``sep_token``.
        counterfactual: answers in scope; ``None`` while the classifier is trained.
        threshold: 0.5 as in EasyEdit.

    Raises:
        BridgeError: EasyEdit is not installed, or does not import.
    """

    name = "serac"
    classifier: Any  # of transformers, with save_pretrained

    def __init__(
        self,
        backbone: Backbone,
        classifier: nn.Module,
        classifier_tok: Any,
        counterfactual: Counterfactual | None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(backbone, counterfactual, threshold)
        module = host.load().module("trainer.algs.SERAC")
        hidden = SimpleNamespace(hidden_size=backbone.hidden_size)
        replacement: Any = nn.Identity()
        replacement.config = hidden
        device = next(classifier.parameters()).device
        with torch.random.fork_rng(devices=[]):  # it draws a projection that is never used
            self._root = module.SERAC_MULTI(
                _Base(backbone.hidden_size),
                SimpleNamespace(**_CONFIG, device=str(device)),
                None,
                classifier.eval(),
                classifier_tok,
                replacement,
                backbone.tokenizer,
            ).eval()
        self.classifier, self.classifier_tok = classifier, classifier_tok
        self.beside: Path | None = None  # the MSCKE editor that it was saved beside

    def _edited(self, now: InForce, ids: tuple[str, ...]) -> Any:
        """SERAC_MULTI with the edits ``ids`` in its memory, made by its own ``edit``."""
        if ids not in now.derived:
            edits = [now.edits[i] for i in ids]
            batch = {
                "text_input": [self.edit_text(e) for e in edits],
                "labels": [e.answer for e in edits],
            }
            with torch.random.fork_rng(devices=[]):
                now.derived[ids] = self._root.edit(batch)[0].eval()
        return now.derived[ids]

    def edit_text(self, edit: Question) -> str:
        """An edit as EasyEdit's data sets write it: prompt and target in one text."""
        return f"{self.backbone.prompt(edit)} {edit.answer}"

    @torch.no_grad()
    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """Nearest edit and its score by SERAC_MULTI's ``run_classifier``."""
        now = self.store.now
        seen = [now.seen_by(own) for own in visible or ()] or [now.seen_by(None)] * len(questions)
        hits = [Hit(None, 0.0)] * len(questions)
        for ids in dict.fromkeys(s for s in seen if s):
            rows = [i for i, s in enumerate(seen) if s == ids]
            texts = [self.backbone.prompt(questions[i]) for i in rows]
            scores, nearest, _ = self._edited(now, ids).run_classifier({"text_input": texts})
            for i, score, k in zip(rows, scores.tolist(), nearest.tolist(), strict=True):
                hits[i] = Hit(ids[k], score)
        return hits

    def log_similarity(self, edits: Sequence[Question], questions: Sequence[Question]) -> Tensor:
        """EasyEdit's log similarities [questions, edits], differentiable: for training."""
        self._root.cache_inputs = [self.edit_text(e) for e in edits]
        self._root.cache_labels = [e.answer for e in edits]
        try:
            contexts = self._root.build_cls_cache_inputs()
        finally:
            self._root.cache_inputs, self._root.cache_labels = [], []
        texts = [self.backbone.prompt(q) for q in questions]
        return self._root.embedding_logsim_matrix(contexts, texts)

    def describe(self) -> dict[str, Any]:
        """Whose code runs, and the settings that decide a route."""
        return {
            "threshold": self.threshold,
            "scope": f"SERAC_MULTI of EasyEdit ({host.load().generation})",
            "counterfactual": self.counterfactual and self.counterfactual.describe(),
        }

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write the classifier and its tokenizer; the counterfactual model is MSCKE's."""
        folder = Path(folder)
        # Whole files only: transformers writes them into a new folder, config.json comes last.
        saved = self.classifier.half() if half else self.classifier
        saved.save_pretrained(folder / "classifier")
        self.classifier.float()
        self.classifier_tok.save_pretrained(folder / "classifier")
        settings: dict[str, Any] = {"threshold": self.threshold}
        settings["counterfactual"] = getattr(self.counterfactual, "kind", "small-lm")
        if self.beside is not None:
            at = os.path.relpath(self.beside.resolve(), folder.resolve())
            settings["parts"] = {"counterfactual": Path(at).as_posix()}
        write_header(folder, self.name, **settings)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        backbone: Backbone,
        *,
        counterfactual: str | Path | Counterfactual | None = None,
    ) -> Self:
        """A classifier saved by :meth:`save_pretrained`, with MSCKE's counterfactual model.

        Args:
            folder: the classifier's.
            backbone: any; the classifier sees text alone.
            counterfactual: a model, or the folder of an MSCKE editor for this backbone; by
                default what ``parts`` in ``folder``/config.json names, else the shipped one.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        folder, kept_beside = Path(folder), None
        config = read_header(folder, cls.name, needed=("threshold", "counterfactual"))
        if not isinstance(config["counterfactual"], str):
            raise CheckpointError(f"{folder}: counterfactual is not a text", remedy=AGAIN)
        try:
            if counterfactual is None:  # that of the MSCKE it was trained beside, or the shipped
                beside = config.get("parts", {}).get("counterfactual")
                shipped = ASSETS / f"mscke-{backbone.name}"
                kept_beside = folder / beside if beside else None
                counterfactual = kept_beside or shipped
            if isinstance(counterfactual, (str, Path)):
                kind = COUNTERFACTUALS.get(config["counterfactual"])
                part = Path(counterfactual) / "counterfactual"
                whole = part.with_name("config.json")  # of the MSCKE editor
                if whole.is_file():
                    check_checksums(whole, read_config(whole), "counterfactual/")
                model: Counterfactual = kind.from_pretrained(part, backbone)
            else:
                model = counterfactual
            kind = AutoConfig.from_pretrained(folder / "classifier").model_type
            # SERAC compares first positions; a BERT would draw a pooler that is never used.
            pooler = {"add_pooling_layer": False} if kind == "bert" else {}
            classifier, said = AutoModel.from_pretrained(
                folder / "classifier", output_loading_info=True, **pooler
            )
            if said["missing_keys"]:  # transformers would draw them anew
                raise ValueError(f"it lacks {sorted(said['missing_keys'])[0]}")
            classifier = classifier.float()
            tokenizer = AutoTokenizer.from_pretrained(folder / "classifier")
        except CheckpointError:
            raise
        except Exception as error:  # of damaged files transformers raises nearly anything
            raise CheckpointError(
                f"no SERAC classifier can be loaded from {folder}: {error}",
                remedy="train one, or check the folder's name",
            ) from error
        editor = cls(
            backbone,
            classifier.to(backbone.device),
            tokenizer,
            model,
            config["threshold"],
        )
        editor.beside = kept_beside
        return editor
