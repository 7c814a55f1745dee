"""The embedded editors from scratch: ``--train`` of the demo and of the papers' tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..backbones import load_backbone
from ..core.console import CONSOLE
from ..core.environment import cores
from ..core.errors import ConfigError
from ..core.processes import Reporter, run_parallel
from ..methods.entries import METHODS
from .job import Job, finished, is_embedded
from .table import RECIPES

_QUIET = 300.0  # seconds between lines of progress


def train_editors(
    out: Path, methods: Sequence[str], backbones: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Train those of ``methods`` that have a recipe, for embedded backbones, below ``out``.

    What is finished there is kept, and what was stopped goes on. Recipes that need nothing of each
    other run side by side, one thread each.

    Returns:
        For each backbone the folders of its editors, by method. SERAC is missing where EasyEdit,
        whose code it runs, is not installed.

    Raises:
        ConfigError: a backbone that is not embedded. RunError: a worker failed; what it had
            finished is kept.
    """
    for backbone in backbones:
        if not is_embedded(backbone):
            raise ConfigError(
                f"--train makes the embedded editors, and {backbone} is not an embedded backbone",
                remedy=f"easyedit-mm train --method ... --backbone {backbone} --out ..., then "
                "method.NAME.archive=... with easyedit-mm compare",
            )
    wanted = [name for name in map(METHODS.key, methods) if name in RECIPES]
    for wave in waves(wanted):
        jobs = {}
        for name in wave:
            title = METHODS.get(name).title if name in METHODS else name
            for backbone in backbones[:1] if RECIPES[name].once else backbones:
                label = title if RECIPES[name].once else f"{title} for {backbone}"
                jobs[label] = (name, backbone, str(out))
        CONSOLE.print(f"[bold]Training[/] {', '.join(jobs)}", soft_wrap=True)
        run_parallel(train_part, jobs, limit=max(2, cores()), every=_QUIET)
    folders = {b: {m: out / f"{m}-{b}" for m in wanted} for b in backbones}
    return {b: {m: str(f) for m, f in of.items() if finished(f)} for b, of in folders.items()}


def waves(methods: Sequence[str]) -> list[list[str]]:
    """The recipes of ``methods`` and all that they need, each in a wave after those it needs."""
    wave_of: dict[str, int] = {}

    def place(name: str) -> int:
        if name not in wave_of:
            wave_of[name] = max((place(other) + 1 for other in RECIPES[name].needs), default=0)
        return wave_of[name]

    last = max(map(place, methods), default=-1)
    return [[n for n in RECIPES if wave_of.get(n) == number] for number in range(last + 1)]


def train_part(name: str, backbone: str, out: str, reporter: Reporter) -> None:
    """One worker: a recipe for one backbone."""
    reporter.one_thread()
    reporter.forward_log(name if RECIPES[name].once else f"{name} {backbone}")
    folder = Path(out)
    RECIPES[name].train(name, load_backbone(backbone), Job(folder, brief=True, mscke=folder))
