"""The command: ``python -m easyedit_mm_plugins.recipes RECIPE [NAME ...]``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..backbones import load_backbone
from ..core.shipped import ASSETS
from .job import Job, embedded_backbones, ship
from .table import RECIPES

LOG = logging.getLogger(__package__)
OPTIONS: dict[str, dict[str, Any]] = {  # of single recipes, by their field in Job
    "seed": {"type": int, "default": 0, "help": "of the initial weights and the batches"},
    "clip": {"type": Path, "help": "folder of a pre-trained scenes-clip to begin with"},
    "start": {"type": Path, "help": "an editor with whose language model the first one begins"},
    "gate_only": {"action": "store_true", "help": "fit the gate of the editors in --out again"},
    "minutes": {"type": float, "help": "upper limit of training time"},
    "tower_steps": {"type": int, "help": "of the vision side alone"},
    "vision_from": {"help": "begin with the ViT and Q-Former of this backbone (or folder)"},
    "leg": {"type": Path, "help": "begin with this checkpoint of an earlier leg, past the ladder"},
    "lr": {"type": float, "help": "highest learning rate of the second stage"},
    "hidden": {
        "type": float,
        "default": 0.0,
        "help": "share of the small words of questions (what, the, ...) that are hidden",
    },
    "vision_share": {"type": float, "help": "of that rate, for the vision side"},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the command line names, one after the other; what is finished is kept."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Train weights that this package ships."
    )
    commands = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    for name, recipe in RECIPES.items():
        names = recipe.names or tuple(embedded_backbones())
        command = commands.add_parser(name, help=recipe.about, description=f"Train {recipe.about}.")
        command.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
        command.add_argument("--out", type=Path, default=Path("runs/recipes"))
        command.add_argument("--data", default="scenes", help="records, as of easyedit-mm train")
        command.add_argument(
            "--backbones-from", type=Path, help="folder of the backbones, instead of the shipped"
        )
        command.add_argument("--steps", type=int, help="of each stage, instead of the recipe's")
        command.add_argument("--ship", action="store_true", help="copy the results into assets/")
        command.add_argument("--threads", type=int, default=1)
        for option in recipe.options:
            command.add_argument(f"--{option.replace('_', '-')}", **OPTIONS[option])
    given = vars(parser.parse_args(arguments))
    recipe = RECIPES[name := given.pop("recipe")]
    known = recipe.names or tuple(embedded_backbones())
    if unknown := set(given["names"]) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    given["names"] = given["names"] or known[: 1 if recipe.once else None]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.pop("threads"))
    shipped, place = given.pop("ship"), given.pop("backbones_from")
    job = Job(**given)
    for target in job.names:
        source = None if place is None else place / target
        folder = recipe.train(name, target if recipe.names else load_backbone(target, source), job)
        LOG.info("ready: %s", folder)
        if shipped and folder is not None:
            ship(folder, ASSETS / recipe.shipped_as.format(folder=folder.name, name=target))


if __name__ == "__main__":
    main()
