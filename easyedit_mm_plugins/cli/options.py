"""Options and small functions that several commands share."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError


def _checked_device(value: str) -> str:
    if value != "cpu":
        from ..backbones import check_device

        check_device(value)
    return value


def _checked_dtype(value: str | None) -> str | None:
    if value is not None:
        from ..backbones import check_dtype

        check_dtype(value)
    return value


# Options of several commands.
Images = Annotated[Path | None, typer.Option(help="Folder that image paths are relative to.")]
AllowOutside = Annotated[
    bool,
    typer.Option("--allow-outside", help="Accept image paths that lead out of the image folder."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...", callback=_checked_device)]
Backbones = Annotated[
    list[str],
    typer.Option(
        help="Base model: a name (see 'list backbones'), NAME=SOURCE, a model folder or a hub id."
    ),
]
OneBackbone = Annotated[str, typer.Option(help="Base model: a name, a model folder or a hub id.")]
TrainingData = Annotated[
    str, typer.Option(help="Training records: scenes, a JSON file, or NAME:PATH.")
]
Log = Annotated[
    list[str] | None, typer.Option(help="tensorboard or wandb; repeatable, off by default.")
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave bad records out and count them, instead of stopping."),
]
DType = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16, float16, 4bit or 8bit.", callback=_checked_dtype),
]
EDITOR = "Trained editor: the folder of a training, or best/ in it"  # help of --editor


def be_quiet() -> None:
    """Hide the deprecation warnings of other packages, in child processes too.

    What the terminal cannot show, such as half a surrogate pair, is printed as its escape.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    for category in (DeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@contextmanager
def resumable() -> Iterator[None]:
    """For commands that can be resumed: say so when the user stops them."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; start the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None


def editor_folders(given: list[str], methods: list[str]) -> dict[str, str]:
    """``--editor`` values, FOLDER or METHOD=FOLDER, as the folders of trained editors by method.

    Raises:
        ConfigError: a method that is not asked for, none where there are several, no such folder.
    """
    from ..methods import METHODS
    from ..methods.factory import editor_folder

    methods = [METHODS.key(method) for method in methods]
    folders = {}
    for value in given:
        method, separator, folder = value.partition("=")
        if not separator:
            if len(methods) != 1:
                raise ConfigError(
                    f"--editor {value} does not say which method it is for",
                    remedy=f"write --editor {methods[0]}={value}",
                )
            method, folder = methods[0], value
        method = METHODS.key(method)
        if method not in methods:
            raise ConfigError(f"--editor {value}: {method} is not among the methods of this run")
        if not os.path.isdir(folder):
            raise ConfigError(f"--editor {value}: the folder does not exist")
        folders[method] = str(editor_folder(folder))
    return folders


def run_name(methods: list[str], backbones: list[str], data: str, protocol: str) -> str:
    """The name of a run for which the user gave none."""
    parts = ["+".join(methods), "+".join(Path(b).name for b in backbones), data]
    return "-".join([*parts, *([protocol] if protocol != "generated" else [])])


def check_run_name(name: str | None) -> None:
    """Raise :class:`ConfigError` for a ``--name`` that leads out of the folder of all runs."""
    if name is None:
        return
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or not name.isprintable():
        raise ConfigError(
            f"--name {name!r} does not name a folder below --runs",
            remedy="give a plain name, and choose the folder of all runs with --runs",
        )


def say_skipped(records: Any) -> None:
    """Print how many bad records were left out, and the first."""
    from ..core.console import CONSOLE

    if records.skipped:
        CONSOLE.print(f"[yellow]{len(records.skipped)} bad records left out[/]; the first:")
        CONSOLE.print(f"  {records.skipped[0]}", markup=False)


def show_run(run: Any, rows: list[dict]) -> None:
    """Print a run's notes and tables."""
    from rich.markup import escape

    from ..core.console import CONSOLE
    from ..evaluation.tables import print_tables

    for note in run.notes:
        CONSOLE.print(f"[yellow]note[/] {escape(note)}")
    print_tables(CONSOLE, rows, run.environment(), run.status.missing())
