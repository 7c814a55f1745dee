"""The table of recipes: what can be trained from scratch, and what must be there first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import backbone, classifiers, dualedit, mend, mscke, serac, small_models
from .job import Job, train_method


@dataclass(frozen=True)
class Recipe:
    """How one kind of shipped weights is trained.

    Attributes:
        train: called with the recipe's name, a loaded backbone (or one of ``names``) and the job;
            returns the result's folder, or ``None`` where it leaves it out.
        needs: recipes whose results must be there first.
        once: one result serves every backbone.
        names: what it makes, where that is not one editor for each embedded backbone.
        shipped_as: the folder below ``assets/``; by default the result's own name.
        options: further options of its command, see ``__main__.py``.
    """

    train: Callable[[str, Any, Job], Path | None]
    needs: tuple[str, ...] = ()
    once: bool = False
    names: tuple[str, ...] = ()
    shipped_as: str = "{folder}"
    options: tuple[str, ...] = ()


# Editors are called as their method is. What others need comes before them.
RECIPES = {
    "backbone": Recipe(
        backbone.train,
        names=small_models.NAMES,
        options=("seed", "minutes", "tower_steps", "vision_from"),
    ),
    "scenes-clip": Recipe(mscke.train_clip, once=True, options=("clip",)),
    "scope": Recipe(mscke.train_scope, once=True, options=("seed", "clip")),
    "serac-classifier": Recipe(serac.train_classifier, once=True, options=("seed",)),
    "classifiers": Recipe(
        classifiers.train, names=classifiers.NAMES, shipped_as="scopes-scenes/{name}"
    ),
    "mend": Recipe(train_method),
    "dualedit": Recipe(dualedit.train, options=("gate_only",)),
    "visedit": Recipe(dualedit.train),
    "mscke": Recipe(mscke.train, needs=("scope",), options=("seed", "clip", "start")),
    "serac": Recipe(serac.join, needs=("serac-classifier", "mscke")),
    "mscke-mend": Recipe(mend.train_mscke_mend, needs=("mend", "mscke")),
    "mscke-lora": Recipe(mscke.train_lora, needs=("mscke",)),
}
