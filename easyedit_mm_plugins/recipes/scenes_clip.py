"""The small CLIPs of the scope classifiers on scenes; they take the place of CLIP's ViT-B/32 and
ViT-L/14.

``scenes-clip`` is shipped. ``scenes-clip-large``, for table 2, has a ViT of twice the parameters
and the same text tower.

Two stages on procedural training scenes, without any edit. The vision tower learns which entity
each patch shows. Then, by ``objective``,

``pointing``
    texts learn to attend to the entity that they name (softmax of the dot product over regions, as
    in the dot-attention fusion) and to answer questions about it. What is shipped has this.
``contrastive``
    captions and pictures find each other within a batch, as in CLIP's own training. No fusion has a
    head start with it; the tables that compare fusions begin here.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import UnknownNameError
from ..core.files import write_json
from ..core.registry import did_you_mean
from ..methods.checkpoint import save_tensors
from ..methods.mscke.encoder import ClipEncoder, FileIds
from ..scenes.second import language, world
from ..scenes.second.tokenizer import EOS, build_tokenizer
from .small_models import square

LOG = logging.getLogger(__name__)
PATCH = 8
GRID = world.SIDE // PATCH
KINDS = ("open", "verify", "exist", "count")
ASKED = {"open": 8, "verify": 8, "exist": 4, "count": 0.5, "relation": 10}  # how often
VISION = {
    "scenes-clip": {"layers": 4, "width": 96, "head_width": 24},
    "scenes-clip-large": {"layers": 6, "width": 128, "head_width": 32},
}


def new_encoder(name: str = "scenes-clip") -> ClipEncoder:
    """The architecture, with random weights: 0.85 M parameters, the large one 1.61 M.

    Raises:
        UnknownNameError: a name that is not in :data:`VISION`.
    """
    if name not in VISION:
        raise UnknownNameError(f"unknown scenes encoder {name!r}; {did_you_mean(name, [*VISION])}")
    tokenizer = build_tokenizer().backend_tokenizer
    config: dict[str, Any] = {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": world.SIDE,
            "patch_size": PATCH,
            **VISION[name],
        },
        "text_cfg": {
            "context_length": 32,
            "vocab_size": tokenizer.get_vocab_size(),
            "width": 96,
            "heads": 4,
            "layers": 3,
            "pool_type": "eos",
            "eos_id": EOS,
        },
        "quick_gelu": False,
    }
    clip = open_clip.CLIP(**config)
    half = (0.5,) * 3
    return ClipEncoder(clip, config, FileIds(tokenizer.to_str()), mean=half, std=half)


def save_encoder(encoder: ClipEncoder, folder: str | Path, *, half: bool = True) -> None:
    """Write a folder that ``scope.encoder`` can name."""
    folder = Path(folder)
    save_tensors(folder / "model.safetensors", encoder.clip.state_dict(), half=half)
    write_json(folder / "config.json", encoder.description())


@dataclass
class Picture:
    """A drawn scene with, per patch, the index of the entity there (-1: ground)."""

    scene: world.Scene
    pixels: Tensor
    owner: Tensor


def draw_pictures(n: int, seed: int) -> list[Picture]:
    """``n`` training scenes, drawn."""
    rng = random.Random(f"scenes-clip {seed}")
    pictures = []
    for _ in range(n):
        scene = world.sample_scene(rng, "train")
        array, owner = square(*world.draw(scene, world.sample_drawing(rng, far=0.3)))
        pixels = torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1
        pictures.append(Picture(scene, pixels, torch.from_numpy(_patch_owner(owner))))
    return pictures


def _patch_owner(owner: np.ndarray) -> np.ndarray:
    """[64, 64] -> [R]: the entity that covers most of a patch, if it covers an eighth of it."""
    patches = owner.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID * GRID, -1)
    counts = np.stack([(patches == i).sum(1) for i in range(4)], 1)
    return np.where(counts.max(1) >= PATCH * PATCH // 8, counts.argmax(1), -1)


class Heads(nn.Module):
    """The heads of pre-training; they are dropped afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [len(v) for v in world.VALUES.values()]
        self.answers = sorted({v for vs in world.VALUES.values() for v in vs} | {"yes", "no"})
        self.patch = nn.Linear(width, sum(sizes) + 1)  # the last one: is anything there
        self.seen = nn.Linear(width, sum(sizes))
        self.asked = nn.Linear(width, len(sizes) + len(KINDS))
        self.answer = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, len(self.answers))
        )
        self.sizes = sizes


def _values(entity: world.Entity) -> list[int]:
    return [world.VALUES[a].index(entity.value(a)) for a in world.ATTRIBUTES]


def _attribute_loss(logits: Tensor, targets: Tensor, sizes: list[int]) -> Tensor:
    parts = logits.split(sizes, -1)
    return sum(F.cross_entropy(p, targets[:, i]) for i, p in enumerate(parts)) / len(sizes)


def patch_loss(heads: Heads, regions: Tensor, batch: list[Picture]) -> Tensor:
    """Loss on the attributes of the entity at each patch, and on whether there is one."""
    owner = torch.stack([p.owner for p in batch])
    out = heads.patch(regions)
    there = owner >= 0
    rows, places = there.nonzero(as_tuple=True)
    table = [[_values(e) for e in p.scene.entities] for p in batch]
    targets = torch.tensor(
        [table[r][owner[r, c]] for r, c in zip(rows.tolist(), places.tolist(), strict=True)]
    )
    ground = F.binary_cross_entropy_with_logits(out[..., -1], there.float())
    return _attribute_loss(out[there][:, :-1], targets, heads.sizes) + ground


def draw_text(
    picture: Picture, rng: random.Random
) -> tuple[str, language.SceneQuestion, str | None]:
    """A question on the scene; half of the open ones carry a random answer, as an edit does."""
    kind = rng.choices([*ASKED], [*ASKED.values()])[0]
    question = language.sample_question(picture.scene, rng, kind)
    text = language.phrase(question, rng, "train")
    if question.kind == "open" and rng.random() < 0.5:
        return f"{text} {rng.choice(world.VALUES[question.attribute])}", question, None
    return text, question, language.answer(picture.scene, question)


def grounding_loss(
    encoder: ClipEncoder, heads: Heads, regions: Tensor, batch: list[Picture], rng: random.Random
) -> tuple[Tensor, float]:
    """Loss of attention, attributes and answers; and the share of texts that attend rightly."""
    drawn = [(i, *draw_text(p, rng)) for i, p in enumerate(batch) for _ in range(4)]
    pooled, _, _ = encoder.text(encoder.tokens([d[1] for d in drawn]))
    at = torch.tensor([d[0] for d in drawn])
    scores = (regions[at] @ pooled[:, :, None])[..., 0] * encoder.width**-0.5
    weights = scores.softmax(-1)
    seen = (weights[:, None] @ regions[at])[:, 0]

    meant = [(k, batch[i].scene, q.entity(batch[i].scene)) for k, (i, _, q, _) in enumerate(drawn)]
    meant = [(k, scene, e) for k, scene, e in meant if e is not None]
    rows = torch.tensor([k for k, _, _ in meant])
    index = torch.tensor([scene.entities.index(e) for _, scene, e in meant])
    owner = torch.stack([p.owner for p in batch])[at[rows]]
    hit = (weights[rows] * (owner == index[:, None])).sum(-1)
    loss = -(hit + 1e-4).log().mean()
    targets = torch.tensor([_values(e) for _, _, e in meant])
    loss = loss + _attribute_loss(heads.seen(seen[rows]), targets, heads.sizes)

    asked = heads.asked(pooled)
    kinds = torch.tensor([KINDS.index(q.kind) for _, _, q, _ in drawn])
    loss = loss + 0.5 * F.cross_entropy(asked[:, -len(KINDS) :], kinds)
    attributes = [
        world.ATTRIBUTES.index(q.attribute) if q.attribute else -1 for _, _, q, _ in drawn
    ]
    loss = loss + 0.5 * F.cross_entropy(
        asked[:, : -len(KINDS)], torch.tensor(attributes), ignore_index=-1
    )
    known = {a: i for i, a in enumerate(heads.answers)}
    answers = torch.tensor([known.get(a, -1) for *_, a in drawn])
    out = heads.answer(torch.cat([seen, pooled], -1))
    loss = loss + F.cross_entropy(out, answers, ignore_index=-1)
    return loss, float((hit > 0.5).float().mean())


def contrastive_loss(
    encoder: ClipEncoder, batch: list[Picture], rng: random.Random
) -> tuple[Tensor, float]:
    """CLIP's loss between pictures and captions; and the share of captions that find theirs."""
    texts = [_caption(p.scene, rng) for p in batch]
    words = F.normalize(encoder.text(encoder.tokens(texts))[0], dim=-1)
    seen = F.normalize(encoder.pooled(torch.stack([p.pixels for p in batch]))[:, 0], dim=-1)
    scores = words @ seen.T * encoder.clip.logit_scale.exp().clamp(max=100)
    own = torch.arange(len(batch))
    loss = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    return loss, float((scores.argmax(1) == own).float().mean())


def _caption(scene: world.Scene, rng: random.Random) -> str:
    """The whole scene, or now and then one of its things alone."""
    if rng.random() < 0.25:
        thing = rng.choice(scene.entities)
        return f"{language.CAPTION_PROMPT} a {thing.size} {thing.color} {thing.shape}"
    return f"{language.CAPTION_PROMPT} {language.caption(scene)}"


def pretrain(
    folder: str | Path,
    *,
    name: str = "scenes-clip",
    objective: str = "pointing",
    seed: int = 0,
    pictures: int = 12000,
    vision_steps: int = 700,
    text_steps: int = 2500,
    batch_size: int = 32,
    lr: float = 2e-3,
) -> ClipEncoder:
    """Train a small CLIP and save it in ``folder``; some twenty CPU minutes.

    Args:
        name: which of :data:`VISION`.
        objective: "pointing" or "contrastive"; see the module's docstring.
    """
    torch.manual_seed(seed)
    encoder = new_encoder(name)
    heads = Heads(encoder.width)
    drawn = draw_pictures(pictures, seed)
    rng = random.Random(seed)
    start = time.perf_counter()
    for stage, steps in (("vision", vision_steps), ("text", text_steps)):
        parameters = [*encoder.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
        hits = 0.0
        for step in range(1, steps + 1):
            batch = rng.sample(drawn, batch_size)
            regions = encoder.regions(torch.stack([p.pixels for p in batch]))
            loss = patch_loss(heads, regions, batch)
            if stage == "text":
                if objective == "contrastive":
                    found, right = contrastive_loss(encoder, batch, rng)
                else:
                    found, right = grounding_loss(encoder, heads, regions, batch, rng)
                loss = loss + found
                hits = 0.95 * hits + 0.05 * right
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if step % 50 == 0:
                LOG.info(
                    "%s %s %d/%d loss %.3f right %.3f, %.0f s",
                    name,
                    stage,
                    step,
                    steps,
                    loss.item(),
                    hits,
                    time.perf_counter() - start,
                )
    save_encoder(encoder.eval(), folder)
    return encoder
