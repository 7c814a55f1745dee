"""The command line, put together. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..core.errors import EasyEditMMError
from . import ask, calibrate, demo, doctor, evaluate, import_release, names, reproduce, scenes, show
from . import report as report_command
from . import suggest_layers as layers
from . import train as train_command
from .compare import command as compare
from .data import app as data_app
from .options import be_quiet

app = typer.Typer(
    name="easyedit-mm",
    help="Edit vision-language models and measure what the edits do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
for _name, _command in {
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
}.items():
    app.command(_name)(_command)
# Hydra's words are handed on as they are.
_AS_IS = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("compare", context_settings=_AS_IS)(compare.compare)
_STATE = {"debug": False}


@app.callback()
def _common(
    debug: Annotated[
        bool, typer.Option(help="Show tracebacks of the plugin's own errors.")
    ] = False,
) -> None:
    _STATE["debug"] = debug


def main() -> None:
    """Entry point: our own errors are one message and exit code 2; with --debug a traceback."""
    be_quiet()
    try:
        app()
    except EasyEditMMError as error:
        if _STATE["debug"]:
            raise
        from ..core.console import show_error

        show_error(error)
        sys.exit(2)


if __name__ == "__main__":
    main()
