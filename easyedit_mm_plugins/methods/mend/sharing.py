"""MEND's running statistics when processes share a training.

Gradients are summed, but mean and deviation are counted, by each process on its own batches; after
each optimiser step they are merged, so that all go on with the same. Within a step a process
normalises by what it has counted itself: one process alone has also counted the step's earlier
batches by then, a difference that vanishes with the number of tokens seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.distributed import Ranks
from ..training import Trainer
from .transform import GradientTransform

# By network: tokens seen, and for x and delta the mean and the sum of squared deviations.
Statistics = dict[str, dict[str, Tensor]]


class SharesStatistics(Trainer):
    """A trainer of MEND's networks, which merges what processes count."""

    def statistics_of(self) -> nn.Module | None:
        """The networks that are trained, or ``None``."""
        raise NotImplementedError

    def train_step(self) -> dict[str, float]:
        """See :class:`Trainer`."""
        network = self.statistics_of()
        if self.ranks.world == 1 or network is None:
            return super().train_step()
        if self.step % self.hparams.accumulate_bs == 0:
            self._before = read_statistics(network)
        info = super().train_step()
        if self.step % self.hparams.accumulate_bs == 0 or self.step == self.total:
            merge_statistics(network, self._before, self.ranks)
        return info


def read_statistics(network: nn.Module) -> Statistics:
    """Copies, on the CPU in float64, of what ``network`` has counted."""
    names = ("k", "u_mean", "u_s", "v_mean", "v_s")
    return {
        where: {name: getattr(module, name).detach().double().cpu().clone() for name in names}
        for where, module in _counting(network).items()
    }


@torch.no_grad()
def merge_statistics(network: nn.Module, before: Statistics, ranks: Ranks) -> None:
    """Give ``network`` what all processes have counted since ``before``, which they had in common.

    Mean and deviation of the parts make those of the whole (Chan et al. 1983).
    """
    parts = ranks.gather(read_statistics(network))
    for where, module in _counting(network).items():
        start = before[where]
        found = [part[where] for part in parts if part[where]["k"] > start["k"]]
        if not found:
            continue
        k = start["k"] + sum(part["k"] - start["k"] for part in found)
        for name in ("u", "v"):
            mean, spread = _merged(start, found, name)
            getattr(module, f"{name}_mean").copy_(mean)
            getattr(module, f"{name}_s").copy_(spread)
            if k > 1:
                getattr(module, f"{name}_std").copy_((spread / (k - 1)).sqrt())
        module.k.copy_(k)


def _merged(
    start: dict[str, Tensor], found: Sequence[dict[str, Tensor]], name: str
) -> tuple[Tensor, Tensor]:
    seen, mean, spread = start["k"], start[f"{name}_mean"], start[f"{name}_s"]
    for part in found:
        n = part["k"] - start["k"]
        own = (part["k"] * part[f"{name}_mean"] - start["k"] * start[f"{name}_mean"]) / n
        apart = own - start[f"{name}_mean"]
        inside = part[f"{name}_s"] - start[f"{name}_s"] - apart**2 * (start["k"] * n / part["k"])
        apart = own - mean
        spread = spread + inside.clamp(min=0) + apart**2 * (seen * n / (seen + n))
        mean = mean + apart * (n / (seen + n))
        seen = seen + n
    return mean, spread


def _counting(network: nn.Module) -> dict[str, GradientTransform]:
    return {n: m for n, m in network.named_modules() if isinstance(m, GradientTransform)}
