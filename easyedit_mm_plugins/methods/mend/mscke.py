"""MSCKE-MEND: MSCKE's scope classifier decides, MEND's edited parameters answer in scope.

MSCKE section 5.1: "we replace the original counterfactual model with MEND [19], and introduce an
enhanced version, called MSCKE-MEND". Out of scope the base model's own path runs, which no edit
touches; so a MEND that is trained for this place need not learn locality, only to answer.
"""

from __future__ import annotations

import random
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from ...backbones.base import Backbone
from ..mscke.by_editor import EditorCounterfactual
from ..mscke.classifier import ScopeClassifier
from ..mscke.config import (
    CounterfactualConfig,
    MSCKEHyperParams,
    MSCKESettings,
    MSCKETrainingHyperParams,
)
from ..mscke.losses import Drawn
from ..mscke.model import MSCKE
from ..mscke.training import MSCKETrainer
from ..settings import Weight, build, settings_class
from .config import MendConfig, MendLosses
from .losses import mend_losses, mend_total, weighed
from .model import Mend
from .sharing import SharesStatistics
from .training import mend_groups

NETWORK = "counterfactual/network"
_MEND = "counterfactual.mend"


class MendCounterfactual(EditorCounterfactual):
    """The base model edited by :class:`Mend`."""

    kind: ClassVar[str] = "mend"
    editor: Mend

    @classmethod
    def from_config(cls, backbone: Backbone, config: CounterfactualConfig) -> Self:
        """An untrained MEND of ``config.mend``'s settings (:class:`MendConfig`)."""
        return cls(Mend(backbone, mend_config(config)))

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A MEND saved by itself or as a part of an editor.

        Raises:
            CheckpointError: it is missing, damaged, of another method or for another backbone.
        """
        return cls(Mend.from_pretrained(folder, backbone))


def mend_config(config: CounterfactualConfig) -> MendConfig:
    """What ``counterfactual.mend`` says, checked.

    Raises:
        ConfigError: an unknown setting, or a value that cannot be used.
    """
    given = config.mend
    return given if isinstance(given, MendConfig) else build(MendConfig, given or {}, _MEND)


class MSCKEMEND(MSCKE):
    """:class:`MSCKE` whose counterfactual model is MEND; see the module's docstring."""

    name = "mscke-mend"
    counterfactual: MendCounterfactual

    @classmethod
    def from_parts(
        cls, backbone: Backbone, scope: str | Path, mend: str | Path, threshold: float = 0.5
    ) -> Self:
        """An editor of a trained classifier and a trained MEND, each from its folder.

        The classifier may come from an editor of any method or backbone (table 3).

        Raises:
            CheckpointError: a part is missing or damaged, or the MEND is for another backbone.
        """
        classifier = ScopeClassifier.from_pretrained(scope).to(backbone.device)
        return cls(
            backbone, classifier, MendCounterfactual.from_pretrained(mend, backbone), threshold
        )


@settings_class
class MendCounterfactualConfig(CounterfactualConfig):
    """Its defaults."""

    kind: Literal["mend"] = "mend"
    """The base model edited by MEND; other kinds are for MSCKE's class and alg_name."""
    mend: MendConfig | None = field(default_factory=MendConfig)  # type: ignore[assignment]
    """MEND's own settings."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mend = self.mend or MendConfig()


@settings_class
class _Mend(MSCKESettings):
    counterfactual: MendCounterfactualConfig = field(default_factory=MendCounterfactualConfig)

    _alg: ClassVar[str] = "MSCKE-MEND"
    _title: ClassVar[str] = "MSCKE-MEND"


@settings_class
class MSCKEMENDHyperParams(_Mend, MSCKEHyperParams):
    """Editing: ``MultimodalEditor.from_hparams(MSCKEMENDHyperParams.from_hparams(...))``."""


@settings_class
class MSCKEMENDTrainingHyperParams(_Mend, MendLosses, MSCKETrainingHyperParams):
    """Training MSCKE-MEND's two parts, by :class:`MSCKEMENDTrainer` or EasyEdit's
    ``MultimodalTrainer``. ``cfr_lr``, ``cedit`` and ``iedit`` are MEND's.
    """

    iloc: Weight = 0.0
    """Of the KL on out-of-scope questions; 0: the scope classifier keeps them away."""


class MSCKEMENDTrainer(SharesStatistics, MSCKETrainer):
    """:class:`MSCKETrainer` with MEND's loss for the counterfactual model."""

    name: ClassVar[str] = "MSCKE-MEND"
    editor: MSCKEMEND
    hparams: MSCKEMENDTrainingHyperParams

    def part_modules(self, editor: MSCKE) -> dict[str, nn.Module]:
        """MEND's network lies one folder deeper."""
        network = editor.counterfactual.editor.network
        modules = {"scope": editor.scope, "counterfactual": network}
        names = {"scope": "scope", "counterfactual": NETWORK}
        return {names[part]: modules[part] for part in self.parts}

    def statistics_of(self) -> nn.Module | None:
        """MEND's, if it is trained."""
        return self.modules.get(NETWORK)

    def answering_loss(
        self, drawn: Drawn, rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, list[Any]]]:
        """MEND's loss, and which answers are right or, out of scope, unmoved."""
        drawn = weighed(drawn, self.hparams)
        by_kind, right = mend_losses(self.editor.counterfactual.editor, drawn)
        return mend_total(by_kind, self.hparams), right

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The classifier's groups and MEND's."""
        hp, modules = self.hparams, self.modules
        groups = self.scope_groups(modules["scope"]) if "scope" in modules else []
        if NETWORK in modules:
            network = self.editor.counterfactual.editor.network
            groups += mend_groups(network, hp.lr if hp.cfr_lr is None else hp.cfr_lr, hp.lr_lr)
        return groups
