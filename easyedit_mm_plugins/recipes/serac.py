"""SERAC's text classifier, trained through EasyEdit's own similarity.

The loss is that of MSCKE's classifier (eq. 11, on the same pairs). The two differ in what they see
alone: the text, or the text and the image.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..backbones import Backbone
from ..core.errors import BridgeError, TrainingError
from ..core.files import write_json
from ..data import EditRecord, Question, load_records
from ..methods.checkpoint import change_header
from ..methods.serac.model import SERAC
from .job import HELD_BACK, Job, finished, relative

LOG = logging.getLogger(__name__)
STEPS = 1500
FIRST = 200  # the first record that what is shipped was trained on

SMALL_BERT = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 96,
    "type_vocab_size": 1,
}


def small_bert(backbone: Backbone, **overrides: Any) -> tuple[nn.Module, Any]:
    """A small untrained BERT and a copy of the backbone's tokenizer, with a separator token."""
    import copy

    from transformers import BertConfig, BertModel

    tokenizer = copy.deepcopy(backbone.tokenizer)
    if tokenizer.sep_token is None:
        tokenizer.sep_token = tokenizer.eos_token
    config = BertConfig(vocab_size=len(tokenizer), **{**SMALL_BERT, **overrides})
    return BertModel(config, add_pooling_layer=False), tokenizer


def pairs(record: EditRecord) -> tuple[list[Question], list[Question]]:
    """Questions in and out of a record's scope (MSCKE eq. 9-10)."""
    inside = [record.edit, *record.rephrase, *record.in_scope]
    outside = [*record.out_scope, *record.text_loc, *record.image_loc]
    return inside, outside


def scope_loss(serac: SERAC, records: Sequence[EditRecord], rng: random.Random) -> Tensor:
    """BCE of eq. 11 over two questions in scope and three out of scope of each record."""
    questions: list[Question] = []
    owner: list[int] = []
    label: list[float] = []
    for i, record in enumerate(records):
        inside, outside = pairs(record)
        drawn = rng.sample(inside, min(2, len(inside)))
        questions += drawn
        label += [1.0] * len(drawn)
        drawn = rng.sample(outside, min(3, len(outside)))
        questions += drawn
        label += [0.0] * len(drawn)
        owner += [i] * (len(questions) - len(owner))
    every = serac.log_similarity([r.edit for r in records], questions)
    log_rho = every[torch.arange(len(owner)), torch.tensor(owner)].clamp(max=-1e-6)
    target = torch.tensor(label, device=log_rho.device)
    loss = -(target * log_rho + (1 - target) * torch.log(-torch.expm1(log_rho)))
    return loss[target == 1].mean() + loss[target == 0].mean()


@torch.no_grad()
def accuracy(serac: SERAC, records: Sequence[EditRecord]) -> dict[str, float]:
    """Share of questions of each kind that fall on the right side, in percent."""
    right: dict[str, list[bool]] = {}
    for record in records:
        with serac.edited([record.edit]):
            for kind, group in record.questions().items():
                want = kind in ("edit", "rephrase", "in_scope", "image_rephrase")
                for hit in serac.route(group) if group else []:
                    right.setdefault(kind, []).append((hit.score >= serac.threshold) == want)
    return {kind: 100 * sum(r) / len(r) for kind, r in right.items()}


def train_serac(
    backbone: Backbone,
    records: Sequence[EditRecord],
    *,
    steps: int = STEPS,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool = False,
    bert: dict[str, Any] | None = None,
) -> SERAC:
    """A SERAC editor with a classifier trained on ``records``, and without counterfactual model.

    Args:
        bert: other sizes of the small BERT.

    Raises:
        TrainingError: the loss is not finite; the message names the step.
    """
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(seed)
    rng = random.Random(seed)
    classifier, tokenizer = small_bert(backbone, **bert or {})
    serac = SERAC(backbone, classifier.to(backbone.device), tokenizer, None)
    classifier.train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    bar = tqdm(range(steps), desc="SERAC's text classifier", disable=not progress)
    for step in bar:
        drawn = rng.sample(list(records), min(batch_size, len(records)))
        try:
            loss = scope_loss(serac, drawn, rng)
        except AssertionError as error:  # EasyEdit's own check on its distances
            raise TrainingError(f"not a number at step {step}", remedy="lower lr") from error
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss is {loss.item()} at step {step}", remedy="lower lr")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    classifier.eval()
    return serac


def train_classifier(_: str, backbone: Backbone, job: Job) -> Path | None:
    """The text classifier in ``serac-scenes``; one serves all backbones.

    A brief job leaves it out (``None``, and a warning) where EasyEdit is not installed.
    """
    folder = job.out / "serac-scenes"
    if finished(folder):
        return folder
    every = load_records(job.data, split="train", extra=True).records
    try:
        serac = train_serac(
            backbone,
            every[:-HELD_BACK] if job.brief else every[FIRST:],
            steps=job.steps or STEPS,
            seed=job.seed,
            progress=not job.brief,
        )
    except (ImportError, BridgeError) as error:
        if not job.brief:
            raise
        text = error.message if isinstance(error, BridgeError) else str(error)
        LOG.warning("SERAC is left out, because it runs EasyEdit's own code: %s", text)
        return None
    if not job.brief:
        test = load_records(job.data, limit=500).records
        measured = {kind: round(value, 2) for kind, value in accuracy(serac, test).items()}
        write_json(folder / "eval.json", {"routed right, percent": measured, "n": len(test)})
    serac.save_pretrained(folder)
    return folder


def join(method: str, backbone: Backbone, job: Job) -> Path | None:
    """SERAC for one backbone: the classifier, and the counterfactual model of its MSCKE editor."""
    classifier = train_classifier(method, backbone, job)
    if classifier is None:
        return None
    folder = job.folder(method, backbone)
    shutil.copytree(classifier, folder, dirs_exist_ok=True)
    parts = {"counterfactual": relative(job.mscke / f"mscke-{backbone.name}", folder)}
    change_header(folder, parts=parts)
    return folder
