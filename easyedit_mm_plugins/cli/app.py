"""The command line, ``easyedit-mm``. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..core.errors import ConfigError, EasyEditMMError
from .common import Device, DType, Images, be_quiet, editor_folders, resumable, show_run
from .data import app as data_app
from .dualedit import calibrate, suggest_layers
from .experiments import compare, reproduce
from .import_release import import_release
from .report import report

app = typer.Typer(
    name="easyedit-mm",
    help="Edit vision-language models and measure what the edits do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app)
app.command()(calibrate)
app.command("suggest-layers")(suggest_layers)
app.command()(reproduce)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(compare)
app.command()(report)
app.command("import-release")(import_release)
_STATE = {"debug": False}

Backbone = Annotated[
    list[str],
    typer.Option(help="Base model: a name (see 'list backbones'), NAME=SOURCE or a model folder."),
]
OneBackbone = Annotated[str, typer.Option(help="Base model: a name or a model folder.")]
Data = Annotated[str, typer.Option(help="scenes, or a JSON file in FGVEdit's schema.")]
Log = Annotated[
    list[str] | None, typer.Option(help="tensorboard or wandb; repeatable, off by default.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out and say so.")]


@app.callback()
def _common(
    debug: Annotated[
        bool, typer.Option(help="Show tracebacks of the plugin's own errors.")
    ] = False,
) -> None:
    _STATE["debug"] = debug


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What is installed here, which EasyEdit was found, what can run and what is missing."""
    from .doctor import examine, show

    report = examine()
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        show(report)
    raise typer.Exit(1 if report.broken else 0)


@app.command()
def demo(
    train: Annotated[bool, typer.Option("--train", help="Train the editors first.")] = False,
    limit: Annotated[int, typer.Option(min=2, help="Cases per backbone.")] = 500,
    out: Annotated[Path | None, typer.Option(help="Run folder, runs/demo by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over.")] = False,
) -> None:
    """Edit two small vision-language models before your eyes, then measure 500 edits."""
    from .demo import run_demo

    with resumable():
        run_demo(out=out, limit=limit, train=train, overwrite=overwrite)


@app.command()
def scenes(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path("data/scenes"),
    train: Annotated[int | None, typer.Option(min=2, help="Training records.")] = None,
    test: Annotated[int | None, typer.Option(min=2, help="Test records.")] = None,
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
) -> None:
    """Write the scenes benchmark: PNG images and records in the released FGVEdit schema."""
    from ..core.console import CONSOLE
    from ..scenes import records

    n_train = records.N_TRAIN if train is None else train
    n_test = records.N_TEST if test is None else test
    with CONSOLE.status("drawing scenes ..."):
        files = records.write_scenes(folder, n_train, n_test, seed)
    for path in (files.train, files.test, files.images):
        print(path)


@app.command()
def evaluate(
    method: Annotated[list[str], typer.Option(help="See 'list methods'; may be repeated.")],
    backbone: Backbone = ["scenes-llava"],  # noqa: B006 - typer reads it, nobody changes it
    data: Annotated[
        str, typer.Option(help="scenes, or a JSON file in FGVEdit's schema.")
    ] = "scenes",
    images: Images = None,
    protocol: Annotated[
        str, typer.Option(help="generated, teacher-forced or released.")
    ] = "generated",
    suite: Annotated[
        str | None, typer.Option(help="Metrics, fgvedit or evqa; by default what the data is for.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First so many records.")] = None,
    extra: Annotated[bool, typer.Option("--extra", help="Also ask fg_extra's questions.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per forward pass.")] = 32,
    editor: Annotated[
        list[str] | None, typer.Option(help="Trained editor: FOLDER, or METHOD=FOLDER.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the run, below --runs.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
    device: Device = "cpu",
    dtype: DType = None,
    device_map: Annotated[
        str | None, typer.Option(help="auto: spread a Hugging Face model over all GPUs.")
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start over.")] = False,
    log: Log = None,
) -> None:
    """Measure methods on backbones; a stopped run goes on where it was.

    Under torchrun or accelerate launch the processes share the cases.
    """
    from ..evaluation.grid import DataSpec
    from .evaluate_job import evaluate_methods

    evaluate_methods(
        method,
        backbone,
        DataSpec(data, str(images) if images else None, suite, limit, extra, skip_bad),
        runs=runs,
        name=name,
        protocol=protocol,
        batch_size=batch_size,
        folders=editor_folders(editor or [], method),
        device=device,
        dtype=dtype,
        device_map=device_map,
        overwrite=overwrite,
        log=log or [],
    )


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; the editor lands in OUT/best.")],
    method: Annotated[str, typer.Option(help="mscke.")] = "mscke",
    backbone: OneBackbone = "scenes-llava",
    data: Annotated[
        str, typer.Option(help="scenes, or a JSON file in FGVEdit's schema.")
    ] = "scenes",
    images: Images = None,
    val: Annotated[int, typer.Option(min=1, help="Records kept apart for validation.")] = 200,
    limit: Annotated[int | None, typer.Option(min=2, help="First so many records.")] = None,
    hparams: Annotated[Path | None, typer.Option(help="Training YAML.")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE over the YAML; repeatable.")
    ] = None,
    device: Device = "cpu",
    dtype: DType = None,
    skip_bad: SkipBad = False,
    log: Log = None,
) -> None:
    """Train an editor; a stopped training goes on where it was."""
    from ..methods.training_run import train_editor

    with resumable():
        train_editor(
            method,
            backbone,
            out=out,
            data=data,
            images=images,
            val=val,
            limit=limit,
            hparams=hparams,
            changes=change or [],
            device=device,
            dtype=dtype,
            skip_bad=skip_bad,
            log=log or [],
        )


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="Picture that the edit is about.")],
    question: Annotated[str, typer.Argument(help="The edit's question.")],
    answer: Annotated[str, typer.Argument(help="Its new answer.")],
    questions: Annotated[list[str] | None, typer.Argument(help="What to ask then.")] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A question without the picture; repeatable.")
    ] = None,
    method: Annotated[str, typer.Option(help="See 'list methods'.")] = "mscke",
    backbone: OneBackbone = "scenes-llava",
    editor: Annotated[Path | None, typer.Option(help="Folder of a trained editor.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 8,
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Make one edit, ask questions, and show the answers before and after."""
    from ..backbones import load_backbone
    from ..core.console import CONSOLE
    from ..data import Question, open_image
    from ..evaluation import jobs
    from .before_after import answer_table, ask_around

    jobs.check_names([method], [backbone])
    open_image(image)
    edit = Question(question, image, answer)
    asked = [edit, *(Question(q, image) for q in questions or [])]
    asked += [Question(q) for q in text or []]
    folders = editor_folders([str(editor)] if editor else [], [method])
    loaded = load_backbone(backbone, device=device, dtype=dtype)
    made = jobs.editor_makers([method], loaded, folders)[method]()
    CONSOLE.print(answer_table(edit, ask_around(made, edit, asked, max_new_tokens)))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run folder, or its name below runs/.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
) -> None:
    """Print the table of a run, finished or not."""
    from ..evaluation.runs import RunFolder, find_run

    opened = RunFolder.read(find_run(run, runs))
    show_run(
        opened, opened.rows() if (opened.path / "summary.json").exists() else opened.make_rows()
    )


@app.command("list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(help="methods, backbones, datasets, experiments or protocols."),
    ],
) -> None:
    """Print the names that the other commands take."""
    from ..core.registry import did_you_mean
    from ..evaluation.jobs import SCENES_SUITES
    from ..evaluation.protocol import PROTOCOLS

    def names(module: str, registry: str, home: str = "core.registry") -> list[str]:
        from importlib import import_module

        import_module(f"easyedit_mm_plugins.{module}")
        return getattr(import_module(f"easyedit_mm_plugins.{home}"), registry).names()

    known = {
        "methods": lambda: names("methods", "METHODS"),
        "backbones": lambda: names("backbones.catalog", "BACKBONES"),
        "datasets": lambda: [
            "scenes",
            *SCENES_SUITES,
            *(f"{n}:PATH" for n in names("data", "DATASETS")),
        ],
        "experiments": lambda: names("papers", "EXPERIMENTS", "papers"),
        "protocols": lambda: list(PROTOCOLS),
    }
    if what not in known:
        raise ConfigError(f"unknown list {what!r}; {did_you_mean(what, list(known))}")
    for name in known[what]():
        print(name)


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
