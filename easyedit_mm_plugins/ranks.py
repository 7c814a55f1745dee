"""Sharing the cases of a run between processes that ``torchrun`` or ``accelerate launch`` started.

Each process takes every n-th case; the run folder, which several may write to, brings them
together. Nothing but two barriers is ever sent, so any number of CPUs or GPUs, on machines that
share a file system, will do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from .errors import ConfigError

T = TypeVar("T")
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
        values = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        if values["RANK"] is None or values["WORLD_SIZE"] is None:
            return cls()
        try:
            rank, world = int(values["RANK"]), int(values["WORLD_SIZE"])
            local = int(values["LOCAL_RANK"] or rank)
        except ValueError:
            raise ConfigError(
                f"RANK, WORLD_SIZE and LOCAL_RANK are {list(values.values())}, not numbers",
                remedy="start with torchrun or accelerate launch, or unset them",
            ) from None
        if not 0 <= rank < world:
            raise ConfigError(f"RANK is {rank}, but WORLD_SIZE {world}")
        return cls(rank, world, local)

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
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=_PATIENCE)
        dist.barrier()

    def leave(self) -> None:
        """The last thing to call: lets go of the other processes."""
        if self.world > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()
