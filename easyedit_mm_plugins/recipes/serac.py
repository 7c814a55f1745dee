"""Trains SERAC's text classifier on FGVEdit records through EasyEdit's own similarity.

    python -m easyedit_mm_plugins.recipes.serac --backbone scenes-llava --out DIR

The loss is the one MSCKE's classifier gets (eq. 11, on the same pairs), so that the two differ by
what they see and by nothing else: the text, or the text and the image.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..backbones import Backbone, load_backbone
from ..core.errors import TrainingError
from ..core.files import write_json
from ..data import EditRecord, FGVEditDataset, Question
from ..methods.serac.model import SERAC

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
    questions, owner, label = [], [], []
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
    steps: int = 1500,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool | None = None,
    bert: dict[str, Any] | None = None,
) -> SERAC:
    """A SERAC editor with a classifier trained on ``records`` (and no counterfactual model yet).

    ``bert`` overrides sizes of the small BERT.

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
    hidden = not sys.stderr.isatty() if progress is None else not progress
    bar = tqdm(range(steps), desc="SERAC's text classifier", disable=hidden)
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="scenes-llava")
    parser.add_argument("--data", type=Path, help="FGVEdit records; the scenes by default")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, test, images = args.data, None, args.images
    if train is None:
        from ..scenes.records import ensure_scenes

        files = ensure_scenes()
        train, test, images = files.train, files.test, files.images
    records = FGVEditDataset(train, image_root=images, extra=True, check="off").records
    held_out, records = records[:200], records[200:]
    if test is not None:
        held_out = FGVEditDataset(test, 500, image_root=images, check="off").records
    serac = train_serac(
        load_backbone(args.backbone), records, steps=args.steps, seed=args.seed, progress=True
    )
    serac.save_pretrained(args.out)
    measured = {kind: round(value, 2) for kind, value in accuracy(serac, held_out).items()}
    write_json(args.out / "eval.json", {"routed right, percent": measured, "n": len(held_out)})
    print(measured)


if __name__ == "__main__":
    main()
