"""What the benchmarks share: their command line, the scenes records, and the last line of all."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from easyedit_mm_plugins import FGVEditDataset
from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.scenes.records import ensure_scenes


def parser(doc: str, *, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with ``--json``, ``--scenes`` and, if there is a default, ``--rounds``."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--json", type=Path, help="write the figures to this file, too")
    made.add_argument("--scenes", type=Path, help="folder of the scenes records (made if absent)")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds)
    return made


def start(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments; from now on one thread computes."""
    given = made.parse_args()
    torch.set_num_threads(1)
    return given


def records(
    given: argparse.Namespace, limit: int | None = None, split: str = "test", extra: bool = False
) -> list[EditRecord]:
    """The first ``limit`` scenes records; ``extra``: with the further scope questions."""
    files = ensure_scenes(given.scenes)
    path = files.test if split == "test" else files.train
    found = FGVEditDataset(path, limit, image_root=files.images, check="off", extra=extra)
    return list(found)


def machine() -> str:
    """On what figures were measured."""
    return f"1 thread, torch {torch.__version__}, {platform.machine()}"


def finish(given: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Write the figures to ``--json``, if it was given."""
    if given.json:
        write_json(given.json, dict(figures))
