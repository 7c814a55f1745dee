"""An embedded backbone, trained from scratch.

In the first stage the vision side learns which entity lies where; without it, question answering
does not leave a plateau. In the second stage all weights learn to answer questions. A killed run
that is started again with the same arguments continues from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import platform
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ..backbones import load_backbone
from ..core.errors import TrainingError
from ..core.files import atomic_path, read_json, write_json
from ..scenes.second.tokenizer import BOS, EOS, PAD, build_tokenizer
from ..scenes.second.world import ATTRIBUTES, PLACES, VALUES, draw, sample_drawing, sample_scene
from . import backbone_exam as exams
from .job import Job
from .packing import draw_blocks, pack, prefix
from .small_models import (
    QUERIES,
    WIDTH,
    Pictures,
    build_image_processor,
    build_model,
    frame,
    see,
    split_modules,
    take_in,
)

_WIDTHS = [len(VALUES[a]) for a in ATTRIBUTES]
_REFERENT_LAYER = 5  # where the ladder reads the thing that a question is about
_FAR = 0.4  # share of the pictures that are drawn with wide jitter and other grounds


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run."""

    seed: int = 0
    tower_steps: int = 1200  # with half of them shapes of small things are a guess in one of four
    steps: int = 3000
    minutes: float | None = None  # an upper limit; the schedules of both stages shrink to fit it
    tower_share: float = 0.25  # of the minutes, for the first stage
    tower_images: int = 48
    images: int = 16
    room: int = 190  # text tokens of a row, about
    tower_lr: float = 2e-3
    lr: float = 1.5e-3
    vision_share: float = 0.4  # of the learning rate, in the second stage
    weight_decay: float = 0.02
    referent_weight: float = 0.3  # of the ladder; see ladder
    ladder: float = 0.5  # share of the second stage after which the ladder is gone
    tower_weight: float = 0.1
    vision_from: str | None = None  # a trained backbone whose ViT and Q-Former are the start
    hidden: float = 0.0  # share of the small words of questions that are hidden, see packing.py
    leg: str | None = None  # a checkpoint of an earlier leg, with which this one begins


class Heads(nn.Module):
    """Auxiliary heads for four attributes and presence; they are dropped after training."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(WIDTH, sum(_WIDTHS) + 1)
        self.query = nn.Linear(WIDTH, sum(_WIDTHS) + 1)
        self.referent = nn.Linear(WIDTH, sum(_WIDTHS))


def _attribute_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of [n, sum of widths] logits against [n, 4] attribute indices."""
    parts = logits.split(_WIDTHS, dim=-1)
    losses = (F.cross_entropy(p, targets[:, k]) for k, p in enumerate(parts))
    return sum(losses, torch.zeros(()))


def _presence_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Presence everywhere, attributes where something is; targets [..., 4] are -1 elsewhere."""
    present = targets[..., 0] >= 0
    loss = F.binary_cross_entropy_with_logits(logits[..., -1], present.float())
    return loss + _attribute_loss(logits[..., :-1][present], targets[present])


def vision_loss(seen: dict, heads: Heads, pictures: Pictures) -> torch.Tensor:
    """Loss on the attributes at each patch, and for a Q-Former in each cell of the grid."""
    loss = _presence_loss(heads.patch(seen["patches"]), pictures.patches)
    if "queries" in seen:
        per_query = pictures.cells.repeat_interleave(QUERIES // len(PLACES), dim=1)
        loss = loss + _presence_loss(heads.query(seen["queries"]), per_query)
    return loss


def draw_pictures(name: str, rng: random.Random, n: int) -> Pictures:
    """``n`` training scenes, drawn in all sizes, as the model ``name`` reads them."""
    scenes = [sample_scene(rng, "train") for _ in range(n)]
    return take_in(name, scenes, [draw(s, sample_drawing(rng, far=_FAR)) for s in scenes])


def adopt_vision(model: nn.Module, donor: nn.Module) -> None:
    """Copy the donor's ViT, query tokens and Q-Former, as MiniGPT-4 begins with BLIP-2's.

    Raises:
        TrainingError: the donor has another architecture.
    """
    theirs = donor.state_dict()
    own = model.state_dict()
    names = [n for n in own if n.startswith(("vision_model", "query_tokens", "qformer"))]
    if not names or any(n not in theirs or theirs[n].shape != own[n].shape for n in names):
        raise TrainingError(
            "the vision sides differ", remedy="take a donor with the same ViT and Q-Former"
        )
    model.load_state_dict({n: theirs[n] for n in names}, strict=False)


class Run:
    """One training run with its checkpoint folder."""

    def __init__(self, name: str, out: Path, recipe: Recipe) -> None:
        self.name, self.out, self.recipe = name, out, recipe
        torch.manual_seed(recipe.seed)
        self.model, self.heads = build_model(name), Heads()
        self.tokenizer = build_tokenizer(name)
        self.decoder, self.lm_head = split_modules(self.model)
        self.embed = self.model.get_input_embeddings()
        self.frame = frame(name, self.tokenizer)
        self.plain = 0.7 if name == "scenes-qwen" else 0.12  # a chat needs no template
        self.position = {"stage": 0, "step": 0, "seconds": 0.0, "stage_start": 0.0}
        if recipe.vision_from is not None:
            adopt_vision(self.model, load_backbone(recipe.vision_from).model)
            self.position["stage"] = 1
        if recipe.leg is not None:
            self._load(load_file(recipe.leg))
            self.position["stage"] = 0 if recipe.tower_steps else 1
        self.log: list[float] = []
        self.optimizer = self._optimizer()

    @property
    def folder(self) -> Path:
        return self.out / "checkpoint"

    def _optimizer(self) -> torch.optim.AdamW:
        """Stage 0 trains the vision side; stage 1 everything, the vision side more gently."""
        recipe, stage = self.recipe, self.position["stage"]
        text = set(map(id, [*self.decoder.parameters(), *self.lm_head.parameters()]))
        named = [*self.model.named_parameters(), *self.heads.named_parameters()]
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for key, parameter in named:
            is_text = id(parameter) in text or "project" in key or key.startswith("referent")
            if stage == 0:
                lr = 0.0 if is_text else recipe.tower_lr
            else:
                lr = recipe.lr * (1.0 if is_text else recipe.vision_share)
            if lr:
                decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((lr, decay), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": p, "lr": lr, "top": lr, "weight_decay": decay}
                for (lr, decay), p in groups.items()
            ],
            betas=(0.9, 0.98),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Model, heads and optimizer state as one flat dictionary."""
        flat = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        flat |= {f"heads.{k}": v for k, v in self.heads.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            flat |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
        return {k: v.detach().clone().contiguous() for k, v in flat.items()}

    def save(self) -> None:
        """Checkpoint: tensors first, then the position that makes them valid."""
        name = f"state-{self.position['stage']}-{self.position['step']}.safetensors"
        with atomic_path(self.folder / name) as path:
            save_file(self.tensors(), str(path))
        position = {**self.position, "file": name, "recipe": vars(self.recipe)}
        write_json(self.folder / "position.json", position)
        for old in self.folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def resume(self) -> bool:
        """Continue from a checkpoint, if there is one of the same recipe.

        Raises:
            TrainingError: the checkpoint was made with other settings.
        """
        if not (self.folder / "position.json").exists():
            return False
        saved = read_json(self.folder / "position.json")
        if saved.pop("recipe") != vars(self.recipe):
            raise TrainingError(
                f"{self.folder} belongs to a run with other settings",
                remedy="use the same arguments as then, or another --out",
            )
        flat = load_file(str(self.folder / saved.pop("file")))
        self.position = saved
        self.optimizer = self._optimizer()
        state: dict[int, dict] = {}
        for key, value in self._load(flat).items():
            index, field = key.split(".")
            state.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        return True

    def _load(self, flat: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Take over model and heads of what :meth:`tensors` gave; returns the optimiser's part."""
        part: dict[str, dict[str, torch.Tensor]] = {"model": {}, "heads": {}, "optimizer": {}}
        for key, value in flat.items():
            kind, rest = key.split(".", 1)
            part[kind][rest] = value
        self.model.load_state_dict(part["model"])
        self.heads.load_state_dict(part["heads"])
        return part["optimizer"]

    def loss(self, rng: random.Random) -> torch.Tensor:
        """One batch's loss in the current stage."""
        recipe = self.recipe
        if self.position["stage"] == 0:
            pictures = draw_pictures(self.name, rng, recipe.tower_images)
            return vision_loss(see(self.model, pictures), self.heads, pictures)
        pictures = draw_pictures(self.name, rng, recipe.images)
        seen = see(self.model, pictures)
        front = prefix(seen["features"], self.frame, self.embed, pictures.grids)
        packed = pack(
            [draw_blocks(s, rng, recipe.room, self.plain, recipe.hidden) for s in pictures.scenes],
            self.tokenizer,
            self.frame,
            front,
        )
        width = front.embeds.shape[1]
        output = self.decoder(
            inputs_embeds=torch.cat([front.embeds, self.embed(packed.ids)], dim=1),
            attention_mask=packed.mask,
            position_ids=packed.positions,
            use_cache=False,
            output_hidden_states=True,
        )
        hidden = output.last_hidden_state[:, width:]
        wanted = packed.targets >= 0
        nll = F.cross_entropy(
            self.lm_head(hidden[wanted]), packed.targets[wanted], reduction="none"
        )
        weights = packed.weights[wanted]
        loss = (nll * weights).sum() / weights.sum()
        self.log.append(loss.item())
        if ladder := self.ladder():
            middle = output.hidden_states[_REFERENT_LAYER][:, width:]
            referent = self.heads.referent(middle[packed.ends[:, 0], packed.ends[:, 1]])
            loss = loss + ladder * _attribute_loss(referent, packed.entities)
        return loss + recipe.tower_weight * vision_loss(seen, self.heads, pictures)

    def ladder(self) -> float:
        """The weight of the auxiliary loss that reads the thing asked about from the prompt's end.

        Full at first; it falls over a fifth of the second stage and is 0 from ``ladder`` of it on.
        """
        left = (self.recipe.ladder - self.progress()) / 0.2
        return self.recipe.referent_weight * min(1.0, max(0.0, left))

    def progress(self) -> float:
        """The share of the stage that is done, by steps or by time, whichever is larger."""
        recipe, at = self.recipe, self.position
        total = recipe.tower_steps if at["stage"] == 0 else recipe.steps
        done = at["step"] / total
        if recipe.minutes is not None:
            limit = 60 * recipe.minutes - at["stage_start"]
            limit = limit * recipe.tower_share if at["stage"] == 0 else limit
            done = max(done, (at["seconds"] - at["stage_start"]) / max(limit, 1.0))
        return done

    def train(self) -> None:
        """Both stages, from the current position on."""
        for stage in (0, 1):
            if self.position["stage"] > stage:
                continue
            if self.position["stage"] < stage:
                raise TrainingError(f"stage {stage} was reached without the one before")
            self._stage()
            if stage == 0:
                seconds = self.position["seconds"]
                self.position.update(stage=1, step=0, stage_start=seconds)
                self.optimizer = self._optimizer()
                self.save()

    def _stage(self) -> None:
        recipe, at = self.recipe, self.position
        self.model.train()
        average = None
        while (done := self.progress()) < 1:
            began = time.perf_counter()
            warm = min(1.0, (at["step"] + 1) / 60)
            for group in self.optimizer.param_groups:
                cosine = 0.5 * (1 + math.cos(math.pi * done))
                group["lr"] = group["top"] * warm * (0.02 + 0.98 * cosine)
            rng = random.Random(f"{recipe.seed} {at['stage']} {at['step']}")
            loss = self.loss(rng)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {loss.item()} at step {at['step']}")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            params = [p for g in self.optimizer.param_groups for p in g["params"]]
            nn.utils.clip_grad_norm_(params, 1.0)
            self.optimizer.step()
            average = loss.item() if average is None else 0.97 * average + 0.03 * loss.item()
            at["step"] += 1
            at["seconds"] += time.perf_counter() - began
            if at["step"] % 50 == 0:
                answers = np.mean(self.log[-50:]) if self.log else float("nan")
                print(
                    f"{self.name} stage {at['stage']} step {at['step']:5d} ({100 * done:3.0f} %)"
                    f"  loss {average:.3f}  answers {answers:.3f}  {at['seconds'] / 60:.1f} min",
                    flush=True,
                )
            if at["step"] % 200 == 0:
                self.save()
            if at["stage"] == 1 and at["step"] % 500 == 0:
                self.report(self.examine(20))

    def examine(self, per_type: int, seed: int = 1) -> dict:
        """A short exam of the current model."""
        self.model.eval()
        processor = build_image_processor(self.name)
        generate = exams.stock_generate(self.name, self.model, self.tokenizer, processor)
        with torch.no_grad():
            result = exams.grade(exams.make_exam(per_type, seed), generate)
        self.model.train()
        return result

    def report(self, result: dict) -> None:
        """Print an exam, one line."""
        types = "  ".join(f"{t} {r['exact_match']:.0f}" for t, r in result["types"].items())
        means = ", ".join(f"{name} {result[name]:.2f}" for name in exams.MEANS)
        print(f"{self.name} exact match: {means}: {types}", flush=True)


def save_processor(name: str, tokenizer: Any, folder: Path) -> None:
    """The tokenizer and image processor, for Qwen in the form that ``AutoProcessor`` reads."""
    tokenizer.save_pretrained(folder)
    build_image_processor(name).save_pretrained(folder)
    if name != "scenes-qwen":
        return
    described = read_json(folder / "preprocessor_config.json")
    write_json(
        folder / "preprocessor_config.json", {**described, "processor_class": "Qwen2VLProcessor"}
    )
    # Before transformers 4.52 a processor reads its template from this file alone.
    write_json(folder / "chat_template.json", {"chat_template": tokenizer.chat_template})
    # Every version reads the language model's fields beside the vision side's; before 4.52 no other
    # form is known.
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config.pop("text_config", {}), **config})


def export(run: Run, threads: int, per_type: int = 200) -> dict:
    """Save a model folder in fp16, load it with the stock classes and examine what was loaded."""
    import transformers

    run.model.eval()
    for parameter in run.model.parameters():  # the shipped numbers are the examined ones
        parameter.data = parameter.data.half()
    ids = {"eos_token_id": EOS, "pad_token_id": PAD}
    run.model.generation_config.update(bos_token_id=BOS, **ids)
    run.model.save_pretrained(run.out)  # the processor's part completes Qwen's config.json
    save_processor(run.name, run.tokenizer, run.out)

    model = type(run.model).from_pretrained(run.out, torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.out)
    processor = transformers.AutoImageProcessor.from_pretrained(run.out, use_fast=False)
    generate = exams.stock_generate(run.name, model, tokenizer, processor)
    with torch.no_grad():
        result = exams.grade(exams.make_exam(per_type), generate)
    result |= {
        "backbone": run.name,
        "split": "test scenes, held-out wordings, generated answers",
        "recipe": vars(run.recipe),
        "steps": run.position["step"],
        "minutes": round(run.position["seconds"] / 60, 1),
        "threads": threads,
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    if run.recipe.leg is not None:
        result["before"] = earlier_leg(run.recipe.leg)
    write_json(run.out / "eval.json", result)
    run.report(result)
    return result


def earlier_leg(checkpoint: str | Path) -> dict[str, Any]:
    """What the ``eval.json`` of an earlier leg, beside its checkpoint with its name, says of it."""
    path = Path(checkpoint).with_suffix(".json")
    if not path.is_file():
        return {}
    known = read_json(path)
    kept = ("recipe", "steps", "minutes", *exams.MEANS, "before")
    return {key: known[key] for key in kept if key in known}


def train(_: str, name: str, job: Job) -> Path:
    """An embedded backbone; a run that was stopped resumes at its last checkpoint."""
    first = job.leg is None
    steps = (Recipe.tower_steps if first else 0) if job.tower_steps is None else job.tower_steps
    recipe = Recipe(
        seed=job.seed,
        minutes=job.minutes,
        steps=job.steps or Recipe.steps,
        tower_steps=steps,
        vision_from=job.vision_from,
        hidden=job.hidden,
        leg=None if first else str(job.leg),
        # A further leg begins with what the ladder taught, and goes on without it.
        ladder=Recipe.ladder if first else 0.0,
        tower_lr=Recipe.tower_lr if first else 1e-3,
        lr=job.lr or Recipe.lr,
        vision_share=job.vision_share or Recipe.vision_share,
    )
    run = Run(name, job.out / name, recipe)
    if run.resume():
        print(f"continuing at {json.dumps(run.position)}", flush=True)
    run.train()
    run.save()
    export(run, torch.get_num_threads())
    return run.out
