"""MSCKE-MEND-Self: the router of MSCKE-Self decides, MEND's edited parameters answer in scope.

Ours, in no paper. It needs no training of its own: the heads of a trained MSCKE-Self and the MEND
of a trained MSCKE-MEND make one.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import ClassVar, Self

from ...backbones.base import Backbone
from ..mscke_self.config import (
    MSCKESelfHyperParams,
    MSCKESelfSettings,
    MSCKESelfTrainingHyperParams,
)
from ..mscke_self.model import MSCKESelf
from ..mscke_self.parts import trained_counterfactual, trained_scope
from ..mscke_self.training import MSCKESelfTrainer
from ..settings import Count, Weight, settings_class
from .config import MendLosses
from .mscke import MendCounterfactual, MendCounterfactualConfig, MSCKEMENDTrainer


class MSCKEMENDSelf(MSCKESelf):
    """:class:`MSCKESelf` whose counterfactual model is MEND; see the module's docstring."""

    name = "mscke-mend-self"
    counterfactual: MendCounterfactual
    answers_of = "mscke-mend"

    @classmethod
    def from_parts(cls, backbone: Backbone, heads: str | Path, answers: str | Path) -> Self:
        """An editor of trained parts: the heads of the editor in the folder ``heads``, MSCKE-Self
        or a variant of it, and the MEND of the MSCKE-MEND in ``answers``.

        Raises:
            CheckpointError: a part is missing or damaged, or for another backbone.
        """
        scope, threshold = trained_scope(heads, backbone)
        return cls.from_config(
            backbone, scope, trained_counterfactual(answers, backbone), threshold
        )


@settings_class
class _MendSelf(MSCKESelfSettings):
    counterfactual: MendCounterfactualConfig = field(default_factory=MendCounterfactualConfig)

    _alg: ClassVar[str] = "MSCKE-MEND-SELF"
    _title: ClassVar[str] = "MSCKE-MEND-Self"


@settings_class
class MSCKEMENDSelfHyperParams(_MendSelf, MSCKESelfHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKEMENDSelfHyperParams.from_hparams(...))``."""


@settings_class
class MSCKEMENDSelfTrainingHyperParams(_MendSelf, MendLosses, MSCKESelfTrainingHyperParams):
    """Training the heads, and with ``train: both`` a new MEND too. ``cfr_lr``, ``cedit`` and
    ``iedit`` are MEND's.
    """

    iloc: Weight = 0.0
    """Of the KL on out-of-scope questions; 0: the scope keeps them away."""
    scope_questions: Count = 3


class MSCKEMENDSelfTrainer(MSCKEMENDTrainer, MSCKESelfTrainer):  # type: ignore[misc]
    """:class:`MSCKESelfTrainer` with MEND's loss for the counterfactual model."""

    name: ClassVar[str] = "MSCKE-MEND-SELF"
    editor: MSCKEMENDSelf  # type: ignore[assignment]
    hparams: MSCKEMENDSelfTrainingHyperParams  # type: ignore[assignment]
