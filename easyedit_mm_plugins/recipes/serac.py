"""SERAC's text classifier, trained through EasyEdit's own similarity.

It gets what MSCKE's scope classifier gets (``recipes/mscke.py``): the same records, the same pairs
of edit and query with the same weights, the same two stages of as many steps, and the checkpoint
that routes the records held back best. The two differ in what they see alone: the text, or the
text and the image. (``batch_negatives`` has no meaning here: to a text the same words about another
picture are the same words.)
"""

from __future__ import annotations

import logging
import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..backbones import Backbone
from ..core.errors import BridgeError, TrainingError
from ..core.files import write_json
from ..data import EditRecord, load_records
from ..data.records import INSIDE
from ..methods.checkpoint import change_header
from ..methods.mscke.losses import Drawn, by_kind, draw, scope_total
from ..methods.mscke.training import with_balance
from ..methods.serac.model import SERAC
from ..methods.training import Trainer
from .job import Job, finished, relative
from .mscke import REFINED_LR, SCOPE_STEPS, more_records

LOG = logging.getLogger(__name__)

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


def text_losses(
    serac: SERAC, drawn: Drawn, threshold: float = 0.5
) -> tuple[dict[str, Tensor], dict[str, list[bool]]]:
    """Binary cross-entropy by kind of query (MSCKE eq. 9-11), and which are routed right."""
    every = serac.log_similarity(drawn.edits, [a.question for a in drawn.queries])
    own = torch.tensor([a.record for a in drawn.queries], device=every.device)
    log_rho = every[torch.arange(len(own), device=every.device), own].clamp(max=-1e-6)
    inside = torch.tensor([a.kind in INSIDE for a in drawn.queries], device=every.device)
    loss = -torch.where(inside, log_rho, torch.log(-torch.expm1(log_rho)))
    right = ((log_rho.exp() >= threshold) == inside).tolist()
    return by_kind(drawn, loss, right)


class ClassifierTrainer(Trainer):
    """Trains the text classifier of ``editor``, a SERAC; settings are MSCKE's for ``scope``."""

    name: ClassVar[str] = "SERAC"
    taught = ()  # it learns no answer
    editor: SERAC

    def __init__(self, editor: SERAC, *data: Any) -> None:
        train, val, hparams, out_dir = data
        super().__init__(editor, train, val, hparams, out_dir, {"classifier": editor.classifier})

    def batch_loss(
        self, records: Sequence[EditRecord], rng: random.Random | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """See :class:`Trainer`.

        Raises:
            TrainingError: EasyEdit's own check found a distance that is not a number.
        """
        drawn = draw(records, self.hparams.scope_questions, rng)
        try:
            losses, _ = text_losses(self.editor, drawn, self.editor.threshold)
        except AssertionError as error:
            raise TrainingError(
                f"a distance is not a number at step {self.step}", remedy="lower lr"
            ) from error
        total = scope_total(losses, self.hparams)
        return total, {"loss/total": float(total.detach())}

    def validation_batch(self, records: Sequence[EditRecord]) -> dict[str, list[float]]:
        """See :class:`Trainer`."""
        drawn = draw(records, self.hparams.scope_questions)
        losses, right = text_losses(self.editor, drawn, self.editor.threshold)
        values: dict[str, list[float]] = defaultdict(list)
        values["loss/total_val"].append(float(scope_total(losses, self.hparams)))
        for kind, found in right.items():
            values[f"scope/{kind}"] += [float(hit) for hit in found]
        return values

    def validate(self) -> dict[str, float]:
        """With the routing's balanced accuracy, by which the checkpoint is chosen."""
        return with_balance(super().validate())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All of the classifier, at one rate."""
        return [{"params": list(self.modules["classifier"].parameters()), "lr": self.hparams.lr}]


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


def train_classifier(_: str, backbone: Backbone, job: Job) -> Path | None:
    """The text classifier in ``serac-scenes``; one serves all backbones.

    A brief job leaves out the second stage, as for MSCKE's classifier, and the whole of it
    (``None``, and a warning) where EasyEdit is not installed.
    """
    folder = job.out / "serac-scenes"
    if finished(folder):
        return folder
    changes = {"train": "scope", "early_stop_key": "scope/balanced", "batch_negatives": 0.0}
    steps = SCOPE_STEPS if job.steps is None else job.steps
    settings = job.settings("mscke", backbone, **changes).replace(max_iters=steps, seed=job.seed)
    train, held_back = job.records()
    torch.manual_seed(job.seed)
    try:
        serac = SERAC(backbone, *small_bert(backbone), None)
    except (ImportError, BridgeError) as error:
        if not job.brief:
            raise
        text = error.message if isinstance(error, BridgeError) else str(error)
        LOG.warning("SERAC is left out, because it runs EasyEdit's own code: %s", text)
        return None
    serac.classifier.to(backbone.device)
    stages = [(train, settings)]
    if not job.brief:
        more = [*train, *more_records(job.out / "more-scenes")]
        stages.append((more, settings.replace(lr=REFINED_LR)))
    curves = []
    for number, (records, stage) in enumerate(stages, 1):
        trainer = ClassifierTrainer(
            serac, records, held_back, stage, job.out / f"run-serac-scenes-{number}"
        )
        trainer.run()
        curves.append([h for h in trainer.history if "scope/balanced" in h])
    if not job.brief:
        test = load_records(job.test, limit=500).records
        measured = {kind: round(value, 2) for kind, value in accuracy(serac, test).items()}
        described = {"routed right, percent": measured, "n": len(test), "validation": curves}
        write_json(folder / "eval.json", described)
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
