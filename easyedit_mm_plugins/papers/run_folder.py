"""A run folder for experiments that measure something else than edits' metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation import run_files
from . import ExperimentSettings


def open_folder(
    settings: ExperimentSettings, config: Mapping[str, Any], results: Sequence[str]
) -> Path:
    """``settings.out`` with ``config.yaml`` and ``env.json``; a started one goes on.

    Args:
        config: everything that can change a number.
        results: files that ``settings.overwrite`` drops.

    Raises:
        RunError: the folder is of another configuration.
    """
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    if settings.overwrite:
        for name in ("config.yaml", "env.json", "summary.json", "table.md", *results):
            (out / name).unlink(missing_ok=True)
    path, wanted = out / "config.yaml", run_files.plain(config)
    known = run_files.read_config(path)
    execution = {"device": settings.device, "dtype": settings.dtype or "float32"}
    if known is None:
        run_files.write_config(path, wanted, execution, {}, {})
    else:
        run_files.refuse_mixing(out, "configuration", known["config"], wanted)
    run_files.note_environment(out / "env.json", execution, 0)
    return out
