"""``easyedit-mm data``: fetch, build, verify, view and publish benchmark data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ConfigError
from .data_build import build_fgvedit
from .options import AllowOutside, Device, DType, Images

if TYPE_CHECKING:
    from ..data.tools.blind import Blind
    from ..data.tools.verification import Verification

app = typer.Typer(
    name="data",
    help="Fetch, build, verify, view and publish benchmark data.",
    no_args_is_help=True,
)

app.command("build-fgvedit")(build_fgvedit)

Files = Annotated[list[Path], typer.Argument(help="JSON files of records, or a folder of them.")]
Rephrased = Annotated[Path | None, typer.Option(help="Folder of image_rephrase, if not --images.")]


@app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(help="Name of a data set; without a name they are listed.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder for it.")] = Path("data/downloads"),
    offline: Annotated[
        Path | None, typer.Option(help="Copy the files from this folder; no network.")
    ] = None,
    mirror: Annotated[str | None, typer.Option(help="Base URL to fetch from.")] = None,
    keep_archives: Annotated[
        bool, typer.Option("--keep-archives", help="Keep zip archives once unpacked.")
    ] = False,
) -> None:
    """Fetch a published data set; resumable, and checked where checksums are published."""
    from ..core.console import CONSOLE
    from ..data.tools.fetch import SETS
    from ..data.tools.fetch import fetch as get

    if name is None:
        for known in SETS.names():
            CONSOLE.print(f"{known:15}{SETS.get(known).about}", markup=False)
        return
    with _bytes_bar() as progress:
        paths = get(
            name, to, offline=offline, mirror=mirror, keep_archives=keep_archives, progress=progress
        )
    for path in paths:
        print(path)


@app.command()
def verify(
    path: Files,
    images: Images = None,
    rephrase_images: Rephrased = None,
    allow_outside: AllowOutside = False,
    kind: Annotated[str | None, typer.Option(help="fgvedit, e-vqa or e-ic.")] = None,
    tokenizer: Annotated[str, typer.Option(help="clip, a folder, a hub name or none.")] = "clip",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="By default the tokenizer's limit.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes for images.")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the findings to this file; - prints them.")
    ] = None,
    fix: Annotated[
        Path | None, typer.Option(help="Write copies without bad records to this folder.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings, too.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Number of findings of each kind to print.")] = 3,
) -> None:
    """Check records and images. Exit code 0: fit for use, 1: errors found, 2: not checked."""
    from ..data.schema import KINDS
    from ..data.tools.verify import verify as check

    if kind is not None and kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    report = check(
        path,
        images,
        rephrase_images=rephrase_images,
        allow_outside=allow_outside,
        kind=kind,  # type: ignore[arg-type]
        tokenizer=None if tokenizer == "none" else tokenizer,
        max_tokens=max_tokens,
        workers=workers,
        fix=fix,
    )
    if as_json is not None and str(as_json) == "-":
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        _show_verification(report, show, fix)
        if as_json is not None:
            from ..core.files import write_json

            write_json(as_json, report.to_json())
    raise typer.Exit(report.exit_code(strict=strict))


@app.command()
def preview(
    path: Files,
    images: Images = None,
    rephrase_images: Rephrased = None,
    allow_outside: AllowOutside = False,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("preview.html"),
    limit: Annotated[
        int, typer.Option(min=0, help="Number of records of each file; 0: all.")
    ] = 200,
    side: Annotated[
        int, typer.Option(min=16, help="Largest width and height of the images.")
    ] = 256,
    title: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Write one HTML page of records with images, filters and search; it needs no server."""
    from ..data.tools.preview import write_preview

    n = write_preview(
        path,
        out,
        images=images,
        rephrase_images=rephrase_images,
        allow_outside=allow_outside,
        limit=limit or None,
        side=side,
        title=title,
    )
    print(f"{out}: {n:,} records, {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def stats(
    path: Files,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Folder for plots (PNG).")] = None,
) -> None:
    """Print statistics of records as Markdown tables, and draw plots of them."""
    from ..data.tools import stats as module

    found = module.describe(path)
    print(json.dumps(found, indent=2, ensure_ascii=False) if as_json else module.markdown(found))
    for made in module.plots(found, plots) if plots is not None else []:
        if not as_json:
            print(made)


@app.command()
def blind(
    train: Annotated[Path, typer.Argument(help="JSON file of records to learn from.")],
    test: Annotated[
        Path | None, typer.Argument(help="Records to ask; by default TRAIN, cross-validated.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Base model, for attackers that see pictures or its answers."),
    ] = None,
    images: Images = None,
    allow_outside: AllowOutside = False,
    device: Device = "cpu",
    dtype: DType = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the attackers and the intervals.")] = 0,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the findings to this file; - prints them.")
    ] = None,
) -> None:
    """Say how far a file can be passed without looking at the picture: learned attackers on it."""
    from ..core.files import write_json
    from ..data.tools.blind import blind as attack

    base = None
    if backbone is not None:
        from ..evaluation.grid import BackboneSpec
        from ..methods.blind.sight import base_of

        base = base_of(BackboneSpec.parse(backbone, device=device, dtype=dtype).load())
    found = attack(train, test, base=base, images=images, allow_outside=allow_outside, seed=seed)
    if str(as_json) == "-":
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    _show_blind(found)
    if as_json is not None:
        write_json(as_json, found.to_json())


@app.command()
def card(
    path: Annotated[Path, typer.Argument(help="A folder of records, or a file.")],
    out: Annotated[Path | None, typer.Option(help="By default README.md in their folder.")] = None,
    name: Annotated[str | None, typer.Option()] = None,
    license: Annotated[
        str, typer.Option(help="The Hub's identifier, such as cc-by-4.0.")
    ] = "other",
) -> None:
    """Write a data card; what the files do not tell is marked TODO."""
    from ..data.tools.card import write_card

    out = out or (path if path.is_dir() else path.parent) / "README.md"
    if out.exists():
        raise ConfigError(f"{out} is there already", remedy="name another file with --out")
    write_card(path, out, name=name, license=license)
    print(out)


@app.command()
def push(
    path: Files,
    repo: Annotated[str, typer.Option(help="owner/name on the Hugging Face Hub.")],
    images: Images = None,
    allow_outside: AllowOutside = False,
    kind: Annotated[str, typer.Option(help="fgvedit, e-vqa or e-ic.")] = "fgvedit",
    card: Annotated[Path | None, typer.Option(help="File with the data card.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make it public; by default it is private.")
    ] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out.")] = False,
) -> None:
    """Upload records and their images to the Hugging Face Hub as Parquet."""
    from ..core.registry import resolve
    from ..data.entries import DATASETS
    from ..data.record_files import record_files
    from ..data.tools.interop import push as upload

    reader = resolve(DATASETS.get(kind).reader)
    options: dict[str, Any] = {"image_root": images, "skip_bad": skip_bad}
    if allow_outside:  # readers of other packages may not have this option
        options["allow_outside"] = True
    splits = {file.stem: reader(file, **options) for file in record_files(path)}
    text = card.read_text(encoding="utf-8") if card is not None else None
    print(upload(splits, repo, card=text, private=not public))


@contextmanager
def _bytes_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from ..core.console import ERRORS

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=ERRORS, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(name: str, there: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=there, total=total)

        yield update


def _show_blind(found: Blind) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..core.console import CONSOLE

    for sort in dict.fromkeys(one.sort for one in found.findings):
        members = [one for one in found.findings if one.sort == sort]
        inside, outside = members[0].n
        title = f"{sort}: {inside:,} questions in, {outside:,} out of scope ({found.tested})"
        table = Table(title=escape(title), title_justify="left", title_style="bold")
        table.add_column("attacker", no_wrap=True)
        if wide := CONSOLE.width >= 100:
            table.add_column("is shown", no_wrap=True)
        for name in ("asked", "right, %", "95 %", "in", "out"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in members:
            low, high = one.interval
            bounds, sides = f"{low:.1f} to {high:.1f}", (one.inside, one.outside)
            cells = (f"{sum(one.n):,}", f"{one.accuracy:.1f}", bounds, *(f"{s:.1f}" for s in sides))
            table.add_row(one.attacker, *([one.shown] if wide else []), *cells)
        CONSOLE.print(table)
    CONSOLE.print(found.verdict(), markup=False, soft_wrap=True)


def _show_verification(report: Verification, show: int, fix: Path | None) -> None:
    from ..core.console import CONSOLE

    for file, about in report.files.items():
        expected = f", published {about['published']:,}" if about["published"] else ""
        text = f"{file}: {about['records']:,} {about['kind']} records{expected}"
        CONSOLE.print(text, markup=False, soft_wrap=True)
    if report.images:
        counts = ", ".join(f"{key} {value:,}" for key, value in report.images.items())
        CONSOLE.print(f"images: {counts}", markup=False, soft_wrap=True)
    for level, found in (("error", report.errors), ("warning", report.warnings)):
        groups: dict[str, list[Any]] = {}
        for finding in found:
            groups.setdefault(finding.check, []).append(finding)
        for check, members in groups.items():
            colour = "red" if level == "error" else "yellow"
            CONSOLE.print(f"[{colour}]{level}[/] {check}: {len(members):,}")
            for one in members[:show]:
                parts = [
                    Path(one.file).name if one.file else None,
                    f"record {one.record}" if one.record is not None else None,
                    one.field,
                ]
                place = ", ".join(part for part in parts if part)
                text = f"  {place}: {one.message}" if place else f"  {one.message}"
                CONSOLE.print(text, markup=False, soft_wrap=True)
            if len(members) > show:
                CONSOLE.print(f"  ... and {len(members) - show:,} more", style="dim")
    for file, items in report.dropped.items():
        name = Path(file).name
        CONSOLE.print(f"{name}: {len(items):,} records left out of {fix}/{name}", markup=False)
    n_errors, n_warnings = len(report.errors), len(report.warnings)
    verdict = "not fit for use" if n_errors else "fit for use"
    CONSOLE.print(f"{verdict}: {n_errors:,} errors, {n_warnings:,} warnings")
