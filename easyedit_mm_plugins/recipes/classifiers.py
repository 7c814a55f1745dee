"""The scope classifiers that MSCKE's tables 2 and 3 compare on the embedded backbones.

One for each fusion and encoder (table 2), and ``retrained``: dot-attention on the small encoder
with another seed (table 3). All get the same records, steps and settings. Their encoders are
pre-trained as CLIP is, on captions: the pointing that the shipped MSCKE's encoder learns is just
what one of the three fusions does, and would decide the comparison.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..backbones import Backbone, load_backbone
from ..core.shipped import ASSETS
from ..methods.mscke import MSCKE, MSCKETrainer, ScopeClassifier
from ..methods.training_run import training_settings
from .job import HELD_BACK, Data, Job, finished, is_embedded
from .scenes_clip import pretrain

LOG = logging.getLogger(__name__)
SHIPPED = ASSETS / "scopes-scenes"
# Of the embedded classifiers; others are trained as the settings for their backbone say. Few
# steps, because the tables compare how far each gets with the same means.
SCENES_RECIPE: dict[str, Any] = {
    "max_iters": 300,
    "val_interval": 100,
    "val_steps": HELD_BACK,
    "early_stop_key": "scope/balanced",
}


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


FUSIONS = ("concat", "cross-attention", "dot-attention")
TEXT = Variant("text")  # no image encoder: the same for both sizes
VARIANTS = (TEXT, *(Variant(f, size) for size in ("small", "large") for f in FUSIONS))
RETRAINED, RETRAINED_SEED = "retrained", 1  # its folder and seed
NAMES = (*(variant.name for variant in VARIANTS), RETRAINED)


def train(_: str, name: str, job: Job) -> Path:
    """A scope classifier of MSCKE's tables 2 and 3."""
    backbone = load_backbone("scenes-blip2")  # training never looks at the base model's weights
    folder = job.out / "trained" / name
    variant = next((v for v in VARIANTS if v.name == name), Variant("dot-attention"))
    changes = {"seed": RETRAINED_SEED} if name == RETRAINED else {}
    train_classifier(variant, backbone, folder, job.records, **changes)
    return folder / "scope"


def train_classifier(
    variant: Variant,
    backbone: Backbone,
    folder: Path,
    records: Callable[[], Data],
    **changes: Any,
) -> ScopeClassifier:
    """Train the variant's classifier in ``folder``; what is finished there is only loaded.

    The encoder is fine-tuned too, as in the paper (section 3.3), at the share of the learning rate
    that the settings name.

    Args:
        records: gives the records to train on and to validate on.
        changes: of the training settings.
    """
    scope = folder / "scope"
    if finished(scope):
        return load_classifier(scope, backbone)
    embedded = is_embedded(backbone.name)
    settings: Any = training_settings("mscke", backbone.name)
    encoder, pretrained = variant.encoder(embedded)
    place = _scenes_encoder(encoder, folder.parent) if embedded else encoder
    config = replace(settings.scope, encoder=place, pretrained=pretrained, fusion=variant.fusion)
    recipe = {**(SCENES_RECIPE if embedded else {}), **changes}
    if variant.fusion == "text":  # the same words about another picture look the same to it
        recipe["batch_negatives"] = 0.0
    settings = settings.replace(train="scope", scope=config, device=str(backbone.device), **recipe)
    # Without the fields that the release's data lacks; they cost two more pictures a record.
    train, held_back = (
        [replace(r, image_rephrase=(), image_loc=()) for r in part] for part in records()
    )
    torch.manual_seed(settings.seed)
    editor = MSCKE.from_config(backbone, settings.scope, settings.counterfactual)
    LOG.info("training the classifier %s", variant.name)
    MSCKETrainer(editor, train, held_back, settings, folder / "run").run()
    editor.scope.config.encoder = encoder
    editor.scope.save_pretrained(scope)
    return load_classifier(scope, backbone)


def load_classifier(folder: Path, backbone: Backbone) -> ScopeClassifier:
    """A saved classifier on the backbone's device.

    One that was just trained is loaded too: its weights are stored in fp16, and a run that is
    resumed must find the same ones.
    """
    return ScopeClassifier.from_pretrained(folder).to(backbone.device)


def _scenes_encoder(name: str, folder: Path) -> str:
    """Where the encoder that was pre-trained on captions lies; it is made when it is needed."""
    place = folder / f"{name}-captions"
    if not finished(place):
        LOG.info("pre-training the encoder %s on captions", name)
        pretrain(place, name=name, objective="contrastive")
    return str(place)
