"""Editors with adapters on other layers, all trained briefly and alike: tables 1, 3 and figure 5.

As in the release, they are trained without a gate: every question passes the adapters, which must
learn locality. For gated rows the gate of eq. 4 is put before the same weights, with a threshold
calibrated on training records that were held back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.errors import CheckpointError
from ..core.files import digest, write_json
from ..methods.dualedit import DualEdit, DualEditConfig, DualEditTrainer
from ..methods.dualedit.calibration import calibrate
from ..methods.dualedit.config import GateConfig
from ..methods.training_run import training_settings
from . import ExperimentSettings
from .tables import is_embedded

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..data import EditRecord

LOG = logging.getLogger(__name__)
PAPERS_LAYERS = 32  # of both base models of the paper
RECORDS, HELD_BACK = 480, 100
# What differs from the shipped training settings, which are made for a long run.
RECIPE: dict[str, Any] = {
    "max_iters": 120,
    "batch_size": 8,
    "gated": False,
    "val_interval": 120,
    "model_save_pt": 40,
    "log_interval": 40,
}


@dataclass(frozen=True, order=True)
class Layers:
    """Where the text and the visual adapter are; ``None``: there is none."""

    text: int | None
    visual: int | None

    @property
    def name(self) -> str:
        """Of its folder and rows: "t4-v1", "t4", "v1"."""
        parts = (("t", self.text), ("v", self.visual))
        return "-".join(f"{kind}{layer}" for kind, layer in parts if layer is not None)

    def only(self, paths: Sequence[str]) -> Layers:
        """Without the adapters that ``paths`` ("text", "visual") does not name."""
        return Layers(
            self.text if "text" in paths else None, self.visual if "visual" in paths else None
        )

    def scaled(self, count: int) -> Layers:
        """The paper's layers, of 32, at the same depth of a decoder with ``count`` layers.

        A visual adapter is never on the last layer, whose image tokens nothing reads.
        """
        tops = (count - 1, count - 2)
        found = [
            None if layer is None else min(round(layer * count / PAPERS_LAYERS), top)
            for layer, top in zip((self.text, self.visual), tops, strict=True)
        ]
        return Layers(*found)


def config_of(layers: Layers, base: DualEditConfig) -> DualEditConfig:
    """``base`` with its adapters on other layers, or without one of them, and no gate."""
    wanted = {"text": layers.text, "visual": layers.visual}
    adapters = [
        replace(adapter, layer=layer)
        for adapter in base.adapters
        if (layer := wanted[adapter.tokens]) is not None
    ]
    return replace(base, adapters=adapters, gate=GateConfig("off"))


class Variants:
    """Trained variants for one backbone; each is trained when it is first asked for, and kept.

    Args:
        settings: of the experiment; folders lie in ``dualedit-variants`` beside its run folder.
        backbone: if it is not embedded, the variants must be there, as ``easyedit-mm train`` makes
            them with the same layers.
    """

    def __init__(self, settings: ExperimentSettings, backbone: Backbone, data: str) -> None:
        self.root = settings.out.parent / "dualedit-variants" / backbone.name
        self.backbone, self.data = backbone, data
        self.settings = settings
        self.hparams: Any = training_settings("dualedit", backbone.name)
        if is_embedded(backbone.name):
            self.hparams = self.hparams.replace(**RECIPE)
        self._records: tuple[list[EditRecord], list[EditRecord]] | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that all variants are trained with."""
        free = ("archive", "adapters", "gate", "results_dir", "device")
        values = {k: v for k, v in asdict(self.hparams).items() if k not in free}
        return {"data": self.data, "records": RECORDS, "held_back": HELD_BACK, **values}

    def editor(self, layers: Layers) -> DualEdit:
        """The variant without a gate.

        Raises:
            CheckpointError: it is not there and cannot be trained here.
        """
        if not is_embedded(self.backbone.name):
            return self._given(layers)
        folder = self.root / f"{layers.name}-{digest(self.recipe)[:8]}"
        if not (folder / "config.json").is_file():
            self._train(layers, folder)
        return DualEdit.from_pretrained(folder, self.backbone)

    def gated(self, layers: Layers) -> DualEdit:
        """The same weights behind the gate of eq. 4, calibrated on records held back."""
        made = self.editor(layers).with_gate("prompt-end", 0.0)
        made.threshold = calibrate(made, self.records()[1]).threshold
        return made

    def records(self) -> tuple[list[EditRecord], list[EditRecord]]:
        """Training records, and those held back; the same for every variant."""
        if self._records is None:
            limit = RECORDS + HELD_BACK
            found = self.settings.records(limit, data=self.data, split="train").records
            cut = len(found) - min(HELD_BACK, len(found) // 2)
            self._records = found[:cut], found[cut:]
        return self._records

    def _given(self, layers: Layers) -> DualEdit:
        places = (self.root / layers.name, self.root / layers.name / "best")
        for folder in places:
            if (folder / "config.json").is_file():
                return DualEdit.from_pretrained(folder, self.backbone).with_gate("off")
        raise CheckpointError(
            f"no trained variant {layers.name} of {self.backbone.name}: variants are trained here "
            "for embedded backbones alone",
            remedy=f"train one (easyedit-mm train --method dualedit --out {places[0]} with its "
            "layers in the hparams file)",
        )

    def _train(self, layers: Layers, folder: Path) -> None:
        LOG.info("training %s for %s", layers.name, self.backbone.name)
        torch.manual_seed(self.hparams.seed)
        config = config_of(layers, self.hparams.config)
        config.check_layers(len(self.backbone.layers), self.backbone.name)
        editor = DualEdit(self.backbone, config)
        hparams = self.hparams.replace(adapters=config.adapters, gate=config.gate)
        train, held_back = self.records()
        DualEditTrainer(editor, train, held_back, hparams, folder / "run").run()
        write_json(folder / "recipe.json", self.recipe)
        editor.save_pretrained(folder)
