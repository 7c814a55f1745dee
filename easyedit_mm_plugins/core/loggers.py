"""Optional logging to TensorBoard and Weights & Biases; nothing is logged unless asked for.

A logger shows what the run folder holds anyway. Training is logged step by step, an evaluation's
metrics at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import UnknownNameError
from .optional import need
from .registry import did_you_mean
from .secrets import redact_values


class TensorBoardLogger:
    """Event files in ``folder``/tensorboard; look at them with ``tensorboard --logdir``.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        _need("tensorboard")
        self.folder = folder / "tensorboard"
        self.about = "\n".join(
            [name, "", *(f"    {key}: {value}" for key, value in config.items())]
        )
        self.writer: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value."""
        if self.writer is None:
            writer = import_module("torch.utils.tensorboard").SummaryWriter
            # A resumed run logs again what a killed one logged after its last checkpoint.
            self.writer = writer(str(self.folder), purge_step=step)
            self.writer.add_text("config", self.about)
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        """Write what is still buffered."""
        if self.writer is not None:
            self.writer.close()


class WandbLogger:
    """A run of Weights & Biases, set up as usual by ``WANDB_PROJECT``, ``WANDB_MODE`` and so on.

    Raises:
        ConfigError: the package wandb is not installed.
    """

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = _need("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "easyedit-mm"),
            name=name,
            config=dict(config),
            dir=str(folder),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run, so that it is uploaded or kept for ``wandb sync``."""
        self.run.finish()


LOGGERS: dict[str, type[TensorBoardLogger] | type[WandbLogger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
}


class Loggers:
    """Several loggers as one; with none, logging does nothing."""

    def __init__(self, members: Sequence[TensorBoardLogger | WandbLogger] = ()) -> None:
        self.members = list(members)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log the numbers among ``values``; other values are left out."""
        numbers = {
            key: float(value)
            for key, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        for member in self.members if numbers else ():
            member.log(step, numbers)

    def log_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log an evaluation's rows: ``dataset/backbone/method/metric`` over the number of cases."""
        points: dict[int, dict[str, Any]] = {}
        for row in rows:
            place = f"{row['dataset'] or 'records'}/{row['backbone']}/{row['method']}"
            values = points.setdefault(row["n"], {})
            values |= {f"{place}/{metric}": value for metric, value in row["metrics"].items()}
            values[f"{place}/seconds_per_case"] = row["seconds"] / row["n"]
            values[f"{place}/memory_mb"] = row.get("memory_mb")
        for cases in sorted(points):  # Weights & Biases requires increasing steps
            self.log(cases, points[cases])


@contextmanager
def open_loggers(
    names: Sequence[str],
    folder: str | Path,
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> Iterator[Loggers]:
    """The loggers called ``names``, closed when the block ends.

    Args:
        names: of :data:`LOGGERS`; none: nothing is logged and nothing imported.
        folder: of the run; local files of the loggers go there.
        name: of the run, the folder's by default.
        config: settings to show beside the curves; keys and passwords in them are left out.

    Raises:
        UnknownNameError: no such logger; offers the nearest. ConfigError: its package is missing.
    """
    check_loggers(names)
    folder = Path(folder)
    members: list[TensorBoardLogger | WandbLogger] = []
    try:
        for logger in dict.fromkeys(names):
            made = LOGGERS[logger](folder, name or folder.name, redact_values(dict(config or {})))
            members.append(made)
        yield Loggers(members)
    finally:
        for member in members:
            member.close()


def check_loggers(names: Sequence[str]) -> None:
    """Raise the errors of :func:`open_loggers` early, before long work.

    Raises:
        UnknownNameError: no such logger. ConfigError: its package is missing.
    """
    for name in names:
        if name not in LOGGERS:
            hint = did_you_mean(name, list(LOGGERS))
            raise UnknownNameError(f"unknown logger {name!r}; {hint}")
        _need(name)


def _need(package: str) -> Any:
    return need(
        package,
        f"logging to {package}",
        package=f'"easyedit-mm-plugins[{package}]"',
        otherwise=f", or leave out --log {package}",
    )
