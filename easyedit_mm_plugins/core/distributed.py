"""Share work between the processes that ``torchrun`` or ``accelerate launch`` started.

In an evaluation each of n processes takes every n-th case and writes to the common run folder; only
barriers are sent between them. In training each process takes some batches of an optimiser step,
and the gradients are summed. The processes may use CPUs or GPUs, on machines that share a file
system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

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
    """The place of this process among those of one launch.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
        local: number of this process on its machine; a device ``cuda`` becomes ``cuda:local``.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Ranks:
        """The place that the launcher wrote into the environment; without a launcher, 0 of 1.

        Raises:
            ConfigError: the environment does not hold a valid rank.
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
        """Remove the rank from the environment: for a worker that is not part of the launch."""
        for name in (name for names in _NAMES.values() for name in names):
            os.environ.pop(name, None)

    @property
    def first(self) -> bool:
        """Whether this is process 0, which prints and writes for all."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of ``items``: every ``world``-th one, from ``rank``."""
        return list(items[self.rank :: self.world])

    def device(self, name: str) -> str:
        """``name``, or this process's own GPU if ``name`` is ``cuda``."""
        return f"cuda:{self.local}" if name == "cuda" and self.world > 1 else name

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world == 1:
            return
        self._group().barrier()

    def gather(self, value: T) -> list[T]:
        """The ``value`` of each process, in the order of ranks; it must be picklable."""
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

    def _group(self) -> Any:
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group(
                "gloo", timeout=_PATIENCE, rank=self.rank, world_size=self.world
            )
        return dist

    def leave(self) -> None:
        """Leave the group of processes; call it last."""
        if self.world > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()
