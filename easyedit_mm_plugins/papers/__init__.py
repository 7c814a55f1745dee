"""The papers' tables and figures as commands: ``easyedit-mm reproduce NAME``.

An experiment is a function ``run(settings)`` that writes a run folder and prints its table, with
the paper's numbers beside the measured ones. ``EXPERIMENTS.register(name, "module:function")`` adds
one; its module is imported when the experiment is run.
"""

from __future__ import annotations

from ..core.registry import Registry
from .settings import ExperimentSettings

CHOOSES_ROWS = ("lifelong",)  # experiments that take methods and numbers of edits
FULL_SIZE = "full-size"  # a backbone of table 4 alone, see full_size.py
EXPERIMENTS: Registry = Registry("experiment", "easyedit_mm_plugins.experiments")
for _name, _target in {
    "mscke-table1": "mscke_table1:run",
    "mscke-table2": "mscke_table2:run",
    "mscke-table3": "mscke_table3:run",
    "mscke-table4": "mscke_table4:run",
    "mscke-figure4": "mscke_figure4:run",
    "dualedit-table1": "dualedit_ablations:table1",
    "dualedit-table2": "dualedit_table2:run",
    "dualedit-table3": "dualedit_ablations:table3",
    "dualedit-figure1": "dualedit_figures:figure1",
    "dualedit-figure2": "dualedit_figures:figure2",
    "dualedit-figure4": "dualedit_figures:figure4",
    "dualedit-figure5": "dualedit_figure5:figure5",
    "lifelong": "lifelong:run",
}.items():
    EXPERIMENTS.register(_name, f"{__name__}.{_target}")

__all__ = ["CHOOSES_ROWS", "EXPERIMENTS", "FULL_SIZE", "ExperimentSettings"]
