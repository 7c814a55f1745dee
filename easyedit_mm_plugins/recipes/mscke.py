"""MSCKE and MSCKE-LoRA: a scope classifier for all backbones, a counterfactual model for each.

1. ``scenes-clip``: the small CLIP is pre-trained on procedural scenes (``scenes_clip.py``);
2. ``scope``: the scope classifier is trained on the scenes training records;
3. ``scope-refined``: it is trained further at a lower rate, with 9,000 more records from training
   scenes (a brief job leaves this out);
4. ``mscke-<backbone>``: the counterfactual model, saved together with the classifier. From the
   second backbone on it begins with the weights of the first one's language model, whose
   vocabulary its own begins with, and finds the classifier there (a brief job trains every one from
   random weights).

MSCKE-LoRA takes the classifier of an MSCKE editor and trains its adapter alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones import Backbone
from ..data import EditRecord, FGVEditDataset
from ..methods.checkpoint import read_tensors
from ..methods.entries import METHODS
from ..methods.mscke.classifier import ScopeClassifier
from ..methods.mscke.counterfactual import new_counterfactual
from ..methods.mscke.model import MSCKE
from ..scenes.second.records import write_scenes
from .job import Data, Job, finished, part_of, relative, scope_folder
from .scenes_clip import pretrain

MORE, MORE_SEED = 9000, 1  # the further records of step 3
SCOPE_STEPS = 1000  # of each of steps 2 and 3
REFINED_LR = 6e-4  # of step 3
Stages = Sequence[dict[str, Any]]  # the settings of one training run after the other
STAGES: Stages = ({"max_iters": 700, "batch_size": 16},)
# Of a model that begins with another's weights.
BEGUN: Stages = ({"max_iters": 300, "batch_size": 16, "warmup": 20, "cfr_lr": 1e-3},)
LORA_STAGES: Stages = ({}, {"max_iters": 400, "scope_questions": 6, "cfr_lr": 3e-3})


def train(method: str, backbone: Backbone, job: Job) -> Path:
    """An MSCKE editor: the scope classifier of :func:`scope_classifier`, a counterfactual model."""
    scope = scope_classifier(backbone, job)
    first = job.names[0] if job.names and not job.brief else backbone.name
    start = job.start if first == backbone.name else job.out / f"{method}-{first}"
    stages = STAGES if start is None else BEGUN
    validation = {"val_batch_size": 20, "val_steps": 150}
    stages = [{**validation, **stage} for stage in stages]
    parts = None
    if start is not None and start.parent == job.out:  # one classifier for all, in the first editor
        parts = {"scope": relative(part_of(start, "scope"), job.folder(method, backbone))}
    return train_counterfactual(method, backbone, scope, job, stages, start, parts)


def train_lora(method: str, backbone: Backbone, job: Job) -> Path:
    """A LoRA adapter behind the classifier of an MSCKE editor, which stays in its folder.

    Raises:
        CheckpointError: there is no MSCKE editor for the backbone.
    """
    at = scope_folder(job, backbone)
    parts = {"scope": relative(at, job.folder(method, backbone))}
    scope = ScopeClassifier.from_pretrained(at)
    return train_counterfactual(method, backbone, scope, job, LORA_STAGES, parts=parts)


def train_clip(name: str, _: Backbone, job: Job) -> Path:
    """The small CLIP of the scope classifier, pre-trained on procedural scenes."""
    clip = job.clip or job.out / name
    if not finished(clip):
        pretrain(clip)
    return clip


def train_scope(_: str, backbone: Backbone, job: Job) -> Path:
    """The scope classifier alone, without a counterfactual model."""
    scope_classifier(backbone, job)
    return job.out / ("scope" if job.brief else "scope-refined")


def scope_classifier(backbone: Backbone, job: Job) -> ScopeClassifier:
    """The scope classifier of steps 2 and 3.

    It does not depend on the backbone, which only lends its frame; one classifier serves all.
    Another ``job.seed`` gives other initial weights and other batches.
    """
    scope = _scope_stage(backbone, job, "scope", train_clip("scenes-clip", backbone, job))
    if job.brief:
        return scope
    return _scope_stage(backbone, job, "scope-refined", scope)


def _scope_stage(
    backbone: Backbone, job: Job, name: str, start: Path | ScopeClassifier
) -> ScopeClassifier:
    """A new classifier on the encoder in the folder ``start``, or ``start`` trained further."""
    folder = job.out / name
    if finished(folder):
        return ScopeClassifier.from_pretrained(folder)
    changes = {"train": "scope", "early_stop_key": "scope/balanced", "seed": job.seed}
    settings = job.settings("mscke", backbone, max_iters=SCOPE_STEPS, **changes)
    data = job.records()
    if isinstance(start, ScopeClassifier):
        settings = settings.replace(lr=REFINED_LR)
        data = ([*data[0], *more_records(job.out / "more-scenes")], data[1])
        editor = MSCKE(backbone, start, new_counterfactual(backbone, settings.counterfactual))
    else:
        settings = settings.replace(scope=replace(settings.scope, encoder=str(start)))
        torch.manual_seed(settings.seed)
        editor = MSCKE.from_config(backbone, settings.scope, settings.counterfactual)
    job.train("mscke", editor, data, settings, name)
    editor.scope.config.encoder = "scenes-clip"
    editor.scope.save_pretrained(folder)
    return editor.scope


def more_records(folder: Path) -> list[EditRecord]:
    """Further records of training scenes, drawn with another seed."""
    files = write_scenes(folder, n_train=MORE, n_test=2, seed=MORE_SEED)
    found = FGVEditDataset(files.train, image_root=files.images, check="off", extra=True).records
    return [replace(record, case_id=f"more-{record.case_id}") for record in found]


def train_counterfactual(
    method: str,
    backbone: Backbone,
    scope: ScopeClassifier,
    job: Job,
    stages: Stages,
    start: Path | None = None,
    parts: dict[str, str] | None = None,
) -> Path:
    """A counterfactual model for ``backbone``, saved with ``scope`` as an editor of ``method``.

    Args:
        start: an editor of another backbone with the same words in its vocabulary, with whose
            language model the new one begins.
        parts: where the editor finds what is not saved with it.
    """
    folder = job.folder(method, backbone)
    if finished(folder):
        return folder
    settings = job.settings(method, backbone, train="counterfactual")
    data: Data = job.records()
    torch.manual_seed(settings.seed)
    model: Any = new_counterfactual(backbone, settings.counterfactual)
    if start is not None:
        begin_at(model, start)
    make: Any = METHODS.get(method).editor_class
    editor = make(backbone, scope, model, settings.threshold)
    for number, stage in enumerate(stages, 1):
        steps = job.steps or stage.get("max_iters", settings.max_iters)
        stage_settings = settings.replace(**{**stage, "max_iters": steps})
        job.train(method, editor, data, stage_settings, f"{folder.name}-{number}")
    editor.save_pretrained(folder, parts=parts)
    return folder


@torch.no_grad()
def begin_at(model: nn.Module, editor: Path) -> None:
    """Give ``model`` the language model of a saved ``editor``'s counterfactual model.

    MiniGPT-4's vocabulary has further tokens at its end: their embeddings stay as they are.
    """
    own = model.state_dict()
    for name, saved in read_tensors(editor / "counterfactual/model.safetensors").items():
        if name.startswith("lm."):
            common = min(len(saved), len(own[name]))
            own[name][:common] = saved[:common]
