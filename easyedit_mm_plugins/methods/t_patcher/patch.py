"""Many edits' neurons trained side by side, each edit by itself.

What comes into the last feed-forward block, and what the last layer gives out, do not change from
step to step: they are computed once, and a step runs what stands above the layer alone. That asks
for a layer that adds the block's output to its own; :meth:`Patches.train` makes sure of it.

An edit's neurons depend on that edit alone: the loss is summed over edits, gradients are clipped
edit by edit, and Adam works number by number.

Shapes: B edits, n neurons of an edit and a tokens of its answer (at most), D hidden size, M places
of the memory, T positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.partial import capture, starting_above
from ...backbones.splice import Batch, answer_logits, answered_from
from ...core.errors import BackboneError, ConfigError, TrainingError
from ...data.records import Question
from ..deltas import Delta, Neurons, applied
from ..ft.frozen import wide
from ..row_hooks import fired
from .config import TPatcherConfig
from .losses import activation_loss, memory_loss


class Block(NamedTuple):
    """A feed-forward block: the names of the module that reads what comes into it, and of the one
    that gives out."""

    reads: str
    gives: str

    def change(self, parts: Sequence[Tensor], act: str) -> Delta:
        """The change that gives the block further neurons, of keys, biases and values."""
        keys, bias, values = parts
        return {self.gives: Neurons(keys, bias, values, self.reads, act)}


def last_block(backbone: Backbone) -> Block:
    """The feed-forward block of the last decoder layer.

    Raises:
        ConfigError: there are no two linear modules that could be it.
    """
    last, width = f"layers.{len(backbone.layers) - 1}.", backbone.hidden_size
    every = backbone.linear_modules().items()
    inner = [(n, m) for n, m in every if n.startswith(last) and "attn" not in n]
    reads = [n for n, m in inner if m.in_features == width]
    gives = [n for n, m in inner if m.out_features == width]
    if not reads or not gives:
        raise ConfigError(
            f"no feed-forward block found in the last layer of {backbone.name}: its linear modules "
            f"are {', '.join(n for n, _ in inner) or 'none'}",
            remedy="T-Patcher needs a dense one; choose another base model",
        )
    return Block(reads[0], gives[-1])


class Frozen:
    """The answers of ``questions`` on the base model, up to its last layer.

    Attributes:
        batch: the questions.
        read: [m, D], what comes into the block at the m places that say the answers' tokens.
        out: [B, T, D], what the last layer gives out.
        logits: the base model's own, [n_i, vocab] for each answer.
    """

    read: Tensor

    @torch.no_grad()
    def __init__(
        self, backbone: Backbone, block: Block, questions: Sequence[Question], with_stop: bool
    ) -> None:
        self.batch: Batch = backbone.batch(questions, with_answers=True, with_stop=with_stop)
        self.lm, self.decoder = backbone.language_model, backbone.decoder
        self.last, self.places = len(backbone.layers) - 1, answered_from(self.batch)
        module = backbone.linear_modules()[block.reads]
        handle = module.register_forward_pre_hook(self._read)
        try:
            with capture(self.decoder, [self.last]) as outputs:
                self.logits = answer_logits(self.lm, self.batch)
        finally:
            handle.remove()
        self.out, self.plain = outputs[self.last], outputs.plain

    def _read(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen = args[0].reshape(*self.places.shape, -1)  # some decoders flatten
        seen = seen[self.places.to(seen.device)]
        self.read = seen.to(wide(seen))

    def logits_with(self, added: Tensor) -> list[Tensor]:
        """The logits where ``added [m, D]`` is added to what the last layer gives out."""
        places = self.places.to(self.out.device)
        added = added.to(self.out)
        hidden = self.out.index_put(places.nonzero(as_tuple=True), added, accumulate=True)
        with starting_above(self.decoder, self.last, hidden, plain=self.plain):
            return answer_logits(self.lm, self.batch)


class Patches:
    """The edits of one batch on their base model, and the neurons that they are given: one for each
    token of an answer that is not the most likely one.

    Args:
        backbone: the base model.
        block: what is patched.
        edits: with their answers.
        config: see :class:`TPatcherConfig`.
        memory: [M, D], what comes into the block where it should stay as it is.
        start: number of the first edit, for messages.
    """

    @torch.no_grad()
    def __init__(
        self,
        backbone: Backbone,
        block: Block,
        edits: Sequence[Question],
        config: TPatcherConfig,
        memory: Tensor,
        start: int = 0,
    ) -> None:
        self.backbone, self.block, self.edits = backbone, block, edits
        self.config, self.memory, self.start = config, memory, start
        self.frozen = Frozen(backbone, block, edits, config.with_stop)
        logits, read = self.frozen.logits, self.frozen.read
        self.sizes = [len(own) for own in logits]
        self.targets = torch.tensor(
            [t for answer in self.frozen.batch.answers for t in answer], device=logits[0].device
        )
        wrong = (torch.cat(logits).argmax(-1) != self.targets).to(read.device).split(self.sizes)
        picked = [w.nonzero().flatten()[: config.max_neurons] for w in wrong]
        tokens = read.split(self.sizes)
        self.inputs, self.token = _filled(tokens)
        self.queries, self.real = _filled([x[at] for x, at in zip(tokens, picked, strict=True)])
        # A neuron begins with activation 1 on its query, and says nothing.
        self.keys = self.queries / self.queries.pow(2).sum(-1, keepdim=True).clamp(min=1e-12)
        self.bias = torch.zeros_like(self.keys[..., 0])
        self.values = torch.zeros_like(self.keys)

    def neurons(self) -> Neurons:
        """All of them, [B, n, ...]."""
        return Neurons(self.keys, self.bias, self.values, self.block.reads, self.config.act)

    def logits(self) -> Tensor:
        """Teacher-forced logits [m, vocab] of all answers."""
        added = fired(self.inputs, self.neurons())
        return torch.cat(self.frozen.logits_with(added[self.token]))

    def losses(self) -> tuple[Tensor, list[bool]]:
        """The loss [B] of each edit, l_e + a l_a + m l_m, and whether its answer is right.

        Differentiable in the neurons.
        """
        config, logits = self.config, self.logits()
        edit = nn.functional.cross_entropy(logits.to(wide(logits)), self.targets, reduction="none")
        right = (logits.argmax(-1) == self.targets).split(self.sizes)
        own = (self.queries * self.keys).sum(-1) + self.bias
        loss = torch.stack([part.mean() for part in edit.split(self.sizes)]).to(own)
        loss = loss + config.act_weight * activation_loss(own, self.real, config)
        if config.memory_weight:
            said = self.memory @ self.keys.transpose(1, 2) + self.bias[:, None]
            loss = loss + config.memory_weight * memory_loss(said, own, self.real, config)
        return loss, [bool(found.all()) for found in right]

    def train(self) -> list[Delta]:
        """The change that each edit learns; empty for one that the model needs none for.

        Raises:
            TrainingError: a loss is not finite; names the edit and the step.
            BackboneError: the layer does not add its block's output to its own.
        """
        config = self.config
        leaves = [self.keys, self.bias, self.values]
        adam = torch.optim.Adam(
            [leaf.requires_grad_() for leaf in leaves],
            lr=config.edit_lr,
            weight_decay=config.weight_decay,
        )
        counts = self.real.sum(1).tolist()
        done: dict[int, Delta] = {i: {} for i, count in enumerate(counts) if not count}
        for step in range(config.num_steps + 1):
            last = step == config.num_steps
            with torch.set_grad_enabled(not last):
                losses, right = self.losses()
            for i, value in enumerate(losses.tolist()):
                if i in done:
                    continue
                if not math.isfinite(value):
                    raise self._diverged(i, value, step)
                if last or (right[i] and value < config.loss_limit):
                    own = [leaf[i, : counts[i]].detach().clone() for leaf in leaves]
                    done[i] = self.block.change(own, config.act)
            if len(done) == len(counts):
                break
            for leaf, found in zip(leaves, torch.autograd.grad(losses.sum(), leaves), strict=True):
                leaf.grad = found
            _clip(leaves, config.grad_clip)
            adam.step()
        self._check()
        return [done[i] for i in range(len(counts))]

    @torch.no_grad()
    def _check(self) -> None:
        """That the model with the neurons in it says what they were trained on."""
        ours, modules = self.logits(), self.backbone.linear_modules()
        parts = zip(self.keys, self.bias, self.values, strict=True)
        deltas = [self.block.change(own, self.config.act) for own in parts]
        with applied(modules, deltas):
            real = torch.cat(answer_logits(self.backbone.language_model, self.frozen.batch))
        apart = float((ours - real).abs().max())
        if not apart <= 0.05 * float(real.abs().max()) + 1e-3:
            raise BackboneError(
                f"{self.backbone.name}: neurons in {self.block.gives} do not act on the last "
                f"layer's output as they were trained to; its logits differ by {apart:.3g}",
                remedy="T-Patcher needs a layer that adds its feed-forward block's output to its "
                "own; choose another base model",
            )

    def _diverged(self, i: int, value: float, step: int) -> TrainingError:
        edit = self.edits[i]
        return TrainingError(
            f"patching edit {self.start + i} ({edit.text!r} -> {edit.answer!r}): the loss is "
            f"{value} at step {step}",
            remedy="lower edit_lr, or load the base model in float32 or bfloat16",
        )


def _filled(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different length as one tensor [B, most, D], and where it is none of the filling."""
    lengths = torch.tensor([len(part) for part in parts], device=parts[0].device)
    filled = nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
    return filled, torch.arange(filled.shape[1], device=lengths.device) < lengths[:, None]


def _clip(leaves: Sequence[Tensor], longest: float) -> None:
    """Scale down the gradients of each edit, all its leaves together, to at most ``longest``."""
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    scale = (longest / norm.clamp(min=1e-12)).clamp(max=1)
    for gradient in gradients:
        gradient *= scale.view(-1, *[1] * (gradient.dim() - 1))
