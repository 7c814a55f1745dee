"""Sharing work between processes that ``torchrun`` or ``accelerate launch`` started.

In an evaluation each process takes every n-th case; the run folder, which several may write to,
brings them together, and nothing but barriers is sent. In training each takes some of the batches
of an optimiser step, and their gradients are summed. Any number of CPUs or GPUs will do, on
machines that share a file system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from .errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
# torchrun's names, then mpirun's, with which accelerate starts processes on CPUs.
_NAMES = {
    "rank": ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"),
    "world": ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"),
    "local": ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"),
}
_PATIENCE = timedelta(days=30)  # the first process to finish waits for the last


@dataclass(frozen=True)
class Ranks:
    """This process among those of one launch.

    Attributes:
        rank, world: which one, of how many.
        local: which one on this machine; a device ``cuda`` becomes ``cuda:local``.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """What the launcher wrote into the environment; one process alone without a launcher.

        Raises:
            ConfigError: what is written there is no rank.
        """
        values = {
            what: next((os.environ[name] for name in names if name in os.environ), None)
            for what, names in _NAMES.items()
        }
        known = "RANK" in os.environ or "MASTER_ADDR" in os.environ
        if values["rank"] is None or values["world"] is None or not known:
            return cls()
        try:
            rank, world = int(values["rank"]), int(values["world"])
            local = int(values["local"] or rank)
        except ValueError:
            raise ConfigError(
                f"the environment's rank is {values}, not numbers",
                remedy="start with torchrun or accelerate launch, or unset RANK and WORLD_SIZE",
            ) from None
        if not 0 <= rank < world:
            raise ConfigError(f"the environment's rank is {rank} of {world} processes")
        return cls(rank, world, local)

    @staticmethod
    def forget() -> None:
        """This process is none of the launch's, but a worker that one of them started."""
        for name in (name for names in _NAMES.values() for name in names):
            os.environ.pop(name, None)

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of ``items``; all parts together are ``items``."""
        return list(items[self.rank :: self.world])

    def device(self, name: str) -> str:
        """``name``, or this process's own GPU where it just says ``cuda``."""
        return f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.world == 1:
            return
        self._group().barrier()

    def gather(self, value: T) -> list[T]:
        """Everybody's ``value``, in the order of ranks; it must be picklable."""
        if self.world == 1:
            return [value]
        found: list[T] = [value] * self.world
        self._group().all_gather_object(found, value)
        return found

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each parameter's ``grad`` by the sum over all processes that have one."""
        if self.world == 1:
            return
        import torch

        dist = self._group()
        some = torch.tensor([float(p.grad is not None) for p in parameters])
        dist.all_reduce(some)
        learning = [p for p, n in zip(parameters, some.tolist(), strict=True) if n]
        if not learning:
            return
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        total = torch.cat([g.detach().float().cpu().flatten() for g in flat])  # gloo is for CPUs
        dist.all_reduce(total)
        for parameter, part in zip(
            learning, total.split([p.numel() for p in learning]), strict=True
        ):
            parameter.grad = part.view_as(parameter).to(parameter.device, parameter.dtype)

    def _group(self):
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group(
                "gloo", timeout=_PATIENCE, rank=self.rank, world_size=self.world
            )
        return dist

    def leave(self) -> None:
        """The last thing to call: lets go of the other processes."""
        if self.world > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()
