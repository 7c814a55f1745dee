"""All commands, put together. Each command imports the heavy modules that it needs itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..core.errors import EasyEditMMError
from . import ask, calibrate, demo, doctor, evaluate, import_release, names, reproduce, scenes, show
from . import report as report_command
from . import suggest_layers as layers
from . import train as train_command
from .compare import command as compare
from .data import app as data_app
from .hparams import app as hparams_app
from .options import be_quiet

app = typer.Typer(
    name="easyedit-mm",
    help="Edit vision-language models and measure what the edits do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
app.add_typer(hparams_app)
_COMMANDS: dict[str, Callable[..., Any]] = {
    "ask": ask.ask,
    "calibrate": calibrate.calibrate,
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "evaluate": evaluate.evaluate,
    "import-release": import_release.import_release,
    "list": names.list_names,
    "report": report_command.report,
    "reproduce": reproduce.reproduce,
    "scenes": scenes.scenes,
    "show": show.show,
    "suggest-layers": layers.suggest_layers,
    "train": train_command.train,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
# Hydra's words are handed on as they are.
_AS_IS = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("compare", context_settings=_AS_IS)(compare.compare)
UNFORESEEN = 70  # exit code of an exception that nobody expected (EX_SOFTWARE)
_STATE = {"debug": False}


def _show_version(wanted: bool) -> None:
    if wanted:
        from ..core.version import __version__

        print(f"easyedit-mm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[
        bool, typer.Option(envvar="EASYEDIT_MM_DEBUG", help="Show the traceback of every error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    _STATE["debug"] = debug


def main() -> None:
    """Entry point.

    An error of ours is one message and exit code 2. Any other exception is one line that names the
    file with its traceback, and exit code 70. With ``--debug`` both are raised as they are.
    """
    be_quiet()
    _STATE["debug"] = False
    try:
        app()
    except Exception as error:
        if _STATE["debug"]:
            raise
        from ..core.console import show_error, show_unforeseen

        if isinstance(error, EasyEditMMError):
            show_error(error)
            sys.exit(2)
        show_unforeseen(error)
        sys.exit(UNFORESEEN)


if __name__ == "__main__":
    main()
