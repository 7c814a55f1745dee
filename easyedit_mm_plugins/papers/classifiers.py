"""Scope classifiers for the tables about them: the shipped ones, or trained here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CheckpointError, ConfigError
from ..core.shipped import ASSETS, HPARAMS
from ..data import EditRecord, load_records
from ..methods.mscke import MSCKE, MSCKETrainer, MSCKETrainingHyperParams, ScopeClassifier
from . import ExperimentSettings

if TYPE_CHECKING:
    from ..backbones import Backbone

LOG = logging.getLogger(__name__)
TRAINING = HPARAMS / "TRAINING/MSCKE"
SHIPPED = ASSETS / "scopes-scenes"
HELD_BACK = 300  # training records that choose the best state
# Of the embedded classifiers; real ones are trained as their hparams file says. Few steps: what
# is compared is how far each gets with the same means.
SCENES_RECIPE: dict[str, Any] = {
    "max_iters": 300,
    "val_interval": 100,
    "val_steps": HELD_BACK,
    "early_stop_key": "scope/balanced",
}
Data = tuple[Sequence[EditRecord], Sequence[EditRecord]]


@dataclass(frozen=True)
class Variant:
    """A classifier that differs from others by its fusion and encoder alone.

    Attributes:
        fusion: eq. 6-7, as in ``scope.fusion``.
        size: "small" or "large": ViT-B/32 or ViT-L/14, on scenes the two embedded CLIPs.
    """

    fusion: str
    size: str = "small"

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.fusion}-{self.size}"

    def encoder(self, embedded: bool) -> tuple[str, str | None]:
        """``scope.encoder`` and ``scope.pretrained``."""
        if embedded:
            return {"small": "scenes-clip", "large": "scenes-clip-large"}[self.size], None
        return {"small": "ViT-B-32", "large": "ViT-L-14"}[self.size], "openai"


def is_scenes(backbone: Backbone) -> bool:
    """Whether the embedded encoders serve this backbone's benchmark."""
    return backbone.name.startswith("scenes-")


def training_records(settings: ExperimentSettings) -> Data:
    """Records to train on, and those held back to choose the best state.

    For a JSON file of test records these are in the file beside it whose name says "train".

    Raises:
        ConfigError: there is no such file.
    """
    data, split = settings.data, "train"
    if data != "scenes":
        path = Path(data)
        data = str(path.with_name(path.name.replace("test", split).replace("eval", split)))
        if data == str(path) or not Path(data).is_file():
            raise ConfigError(
                f"no training records beside {path}",
                remedy="call the files test_data.json and train_data.json, as released",
            )
    found = load_records(
        data, split=split, images=settings.images, extra=True, allow_outside=settings.allow_outside
    ).records
    if len(found) < 2:
        raise ConfigError(f"{data} holds {len(found)} records, too few to train on")
    held_back = min(HELD_BACK, len(found) // 2)
    # The fields that the release's data has; the others cost two more pictures a record.
    plain = [replace(r, image_rephrase=(), image_loc=()) for r in found]
    return plain[:-held_back], plain[-held_back:]


def trained_folder(settings: ExperimentSettings, name: str) -> Path:
    """Where a classifier that is trained for a table lies."""
    return settings.out / "trained" / name


def find_classifier(
    variant: Variant, backbone: Backbone, settings: ExperimentSettings
) -> ScopeClassifier:
    """The variant's classifier: trained here with ``settings.train`` (or before), else shipped.

    Raises:
        CheckpointError: none is shipped, and ``train`` is not set.
    """
    folder = trained_folder(settings, variant.name)
    if settings.train:
        return train_classifier(variant, backbone, folder, settings)
    shipped = SHIPPED / variant.name
    for place in (folder / "scope", shipped):
        if (place / "config.json").is_file() and (is_scenes(backbone) or place != shipped):
            return load_classifier(place, backbone)
    raise CheckpointError(
        f"no classifier {variant.name} for {backbone.name} is shipped or in {folder}",
        remedy="add --train",
    )


def train_classifier(
    variant: Variant,
    backbone: Backbone,
    folder: Path,
    settings: ExperimentSettings,
    data: Data | None = None,
    **changes: Any,
) -> ScopeClassifier:
    """Train the variant's classifier in ``folder``; what is finished there is only loaded.

    Every variant gets the same records, steps and seed. The encoder is fine-tuned along, as in
    the paper (section 3.3), at the share of the learning rate that the hparams file says.
    """
    scope = folder / "scope"
    if (scope / "config.json").is_file():
        return load_classifier(scope, backbone)
    embedded = is_scenes(backbone)
    hparams = MSCKETrainingHyperParams.from_hparams(TRAINING / backbone.name)
    encoder, pretrained = variant.encoder(embedded)
    place = _scenes_encoder(encoder, folder.parent) if embedded else encoder
    config = replace(hparams.scope, encoder=place, pretrained=pretrained, fusion=variant.fusion)
    recipe = {**(SCENES_RECIPE if embedded else {}), **changes}
    if variant.fusion == "text":  # the same words about another picture look the same to it
        recipe["batch_negatives"] = 0.0
    hparams = hparams.replace(train="scope", scope=config, device=settings.device, **recipe)
    import torch

    torch.manual_seed(hparams.seed)
    editor = MSCKE.from_config(backbone, hparams.scope, hparams.counterfactual)
    LOG.info("training the classifier %s", variant.name)
    records = data or training_records(settings)
    MSCKETrainer(editor, *records, hparams, folder / "run").run()
    editor.scope.config.encoder = encoder
    editor.scope.save_pretrained(scope)
    return load_classifier(scope, backbone)


def load_classifier(folder: Path, backbone: Backbone) -> ScopeClassifier:
    """A saved classifier. One that was just trained is loaded too: weights are stored in fp16,
    and a run that goes on must find the very same ones."""
    return ScopeClassifier.from_pretrained(folder).to(backbone.device)


def _scenes_encoder(name: str, folder: Path) -> str:
    """Where the pre-trained encoder lies; the larger one is pre-trained when it is needed."""
    from ..methods.mscke.encoder import load_encoder
    from ..recipes.scenes_clip import pretrain

    for place in (ASSETS / name, folder / name):
        if (place / "config.json").is_file():
            return str(place)
    LOG.info("pre-training the encoder %s", name)
    small = load_encoder("scenes-clip", None)
    pretrain(folder / name, name=name, text_from=small, vision_steps=400, text_steps=500)
    return str(folder / name)
