"""The papers' tables and figures as commands: ``easyedit-mm reproduce NAME``.

An experiment is a function ``run(settings)`` that writes a run folder and prints its table, with
the paper's numbers beside the measured ones. ``EXPERIMENTS.register(name, "module:function")``
makes it known; the module is imported when the experiment is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..core.registry import Registry

EXPERIMENTS = Registry("experiment", "easyedit_mm_plugins.experiments")
EXPERIMENTS.register("mscke-table1", f"{__name__}.mscke_table1:run")
EXPERIMENTS.register("mscke-table2", f"{__name__}.mscke_table2:run")
EXPERIMENTS.register("mscke-table3", f"{__name__}.mscke_table3:run")
EXPERIMENTS.register("mscke-table4", f"{__name__}.mscke_table4:run")
EXPERIMENTS.register("mscke-figure4", f"{__name__}.mscke_figure4:run")
EXPERIMENTS.register("dualedit-table1", f"{__name__}.dualedit_ablations:table1")
EXPERIMENTS.register("dualedit-table2", f"{__name__}.dualedit_table2:run")
EXPERIMENTS.register("dualedit-table3", f"{__name__}.dualedit_ablations:table3")
EXPERIMENTS.register("dualedit-figure1", f"{__name__}.dualedit_figures:figure1")
EXPERIMENTS.register("dualedit-figure2", f"{__name__}.dualedit_figures:figure2")
EXPERIMENTS.register("dualedit-figure4", f"{__name__}.dualedit_figures:figure4")
EXPERIMENTS.register("dualedit-figure5", f"{__name__}.dualedit_figure5:figure5")

EMBEDDED = ("scenes-blip2", "scenes-minigpt4", "scenes-llava")


@dataclass
class ExperimentSettings:
    """What ``easyedit-mm reproduce`` was asked for.

    Attributes:
        name: of the experiment, as registered.
        backbones: names or model folders; empty: the experiment's own choice, in general
            :data:`EMBEDDED`.
        data: as ``easyedit-mm evaluate --data`` takes it.
        images: folder that image paths are relative to.
        limit: first so many test cases; ``None``: what the experiment says (500 for tables).
        train: train the editors from scratch first, instead of using shipped ones.
        out: run folder, ``runs/NAME`` by default.
        device, dtype: of the backbones.
        overwrite: start over instead of going on.
        protocol: how to measure; ``None``: what the experiment says.
        allow_outside: accept image paths that lead out of ``images``.
        editors: folder of trained editors, METHOD-BACKBONE each, used instead of shipped ones.
    """

    name: str
    backbones: list[str] = field(default_factory=list)
    data: str = "scenes"
    limit: int | None = None
    train: bool = False
    out: Path = None  # type: ignore[assignment]  # set below
    device: str = "cpu"
    dtype: str | None = None
    overwrite: bool = False
    images: Path | None = None
    allow_outside: bool = False
    protocol: str | None = None
    editors: Path | None = None

    def __post_init__(self) -> None:
        self.out = Path("runs") / self.name if self.out is None else Path(self.out)


__all__ = ["EMBEDDED", "EXPERIMENTS", "ExperimentSettings"]
