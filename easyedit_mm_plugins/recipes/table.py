"""The table of recipes: what can be trained from scratch, and what must be there first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import backbone, classifiers, dualedit, lte, mend, mscke, mscke_self, serac, small_models
from .job import Job, train_method


@dataclass(frozen=True)
class Recipe:
    """How one kind of shipped weights is trained.

    Attributes:
        about: what it trains, for ``--help``.
        train: called with the recipe's name, a loaded backbone (or one of ``names``) and the job;
            returns the result's folder, or ``None`` where it leaves it out.
        needs: recipes whose results must be there first.
        once: one result serves every backbone.
        names: what it makes, where that is not one editor for each embedded backbone.
        shipped_as: the folder below ``assets/``; by default the result's own name.
        options: further options of its command, see ``__main__.py``.
    """

    about: str
    train: Callable[[str, Any, Job], Path | None]
    needs: tuple[str, ...] = ()
    once: bool = False
    names: tuple[str, ...] = ()
    shipped_as: str = "{folder}"
    options: tuple[str, ...] = ()


# Editors are called as their method is. What others need comes before them.
RECIPES = {
    "backbone": Recipe(
        "an embedded backbone",
        backbone.train,
        names=small_models.NAMES,
        options=(
            "seed",
            "minutes",
            "tower_steps",
            "vision_from",
            "leg",
            "lr",
            "vision_share",
            "hidden",
        ),
    ),
    "scenes-clip": Recipe("the CLIP of the scope classifier", mscke.train_clip, once=True),
    "scope": Recipe(
        "MSCKE's scope classifier alone", mscke.train_scope, once=True, options=("seed", "clip")
    ),
    "serac-classifier": Recipe(
        "SERAC's text classifier", serac.train_classifier, once=True, options=("seed",)
    ),
    "classifiers": Recipe(
        "the scope classifiers of MSCKE's tables 2 and 3",
        classifiers.train,
        names=classifiers.NAMES,
        shipped_as="scopes-scenes/{name}",
    ),
    "ke": Recipe("KE's hypernetwork", train_method),
    "mend": Recipe("MEND", mend.train_mend),
    "lte": Recipe("LTE's adapter, which follows edits before a question", lte.train),
    "dualedit": Recipe("DualEdit and its gate", dualedit.train, options=("gate_only",)),
    "visedit": Recipe("VisEdit", dualedit.train),
    "mscke": Recipe(
        "MSCKE: scope classifier and counterfactual model",
        mscke.train,
        needs=("scope",),
        options=("seed", "clip", "start"),
    ),
    "serac": Recipe(
        "SERAC: its classifier with MSCKE's counterfactual model",
        serac.join,
        needs=("serac-classifier", "mscke"),
    ),
    "mscke-mend": Recipe(
        "MEND behind MSCKE's scope classifier",
        mend.train_mscke_mend,
        needs=("mend", "mscke"),
    ),
    "mscke-self": Recipe(
        "MSCKE-Self: its heads before MSCKE's counterfactual model",
        mscke_self.train,
        needs=("mscke",),
    ),
    "mscke-mend-self": Recipe(
        "MSCKE-MEND-Self, of the heads of MSCKE-Self and the MEND of MSCKE-MEND",
        mscke_self.join,
        needs=("mscke-self", "mscke-mend"),
    ),
    "lte-self": Recipe(
        "LTE-Self, of the adapter of LTE and the heads of MSCKE-Self",
        lte.join,
        needs=("lte", "mscke-self"),
    ),
    "mscke-lora": Recipe(
        "a LoRA adapter behind MSCKE's scope classifier", mscke.train_lora, needs=("mscke",)
    ),
}
