"""``easyedit-mm demo``: one edit to look at, then 500 to count.

Everything runs on the embedded scenes benchmark and backbones, on a CPU, in a few minutes. The
picture and the table land in ``runs/demo/``; a stopped demo goes on where it was, and a finished
one only shows its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import jobs, registry
from .console import CONSOLE
from .data import EditRecord, FGVEditDataset
from .errors import BridgeError, EasyEditMMError
from .evaluation import Protocol, RunFolder
from .evaluation.tables import print_tables
from .live import Line, answer_table, ask_around
from .parallel import Reporter, run_parallel

if TYPE_CHECKING:
    from .backbones import Backbone

BACKBONES = ("scenes-blip2", "scenes-llava")
METHODS = ("unedited", "serac", "mscke")
SHOWN_ON = "scenes-llava"
PROTOCOL = "generated"
BATCH = 32


def run_demo(
    out: Path | None = None, limit: int = 500, train: bool = False, overwrite: bool = False
) -> RunFolder:
    """Show one edit, measure ``limit`` edits on both backbones, print the table.

    Args:
        out: run folder; ``runs/demo``, or ``runs/demo-train`` with ``train``.
        limit: test cases per backbone.
        train: train the editors first, instead of using the shipped ones.
        overwrite: start over.

    Raises:
        RunError: the folder holds a run of another configuration, or a worker failed.
    """
    path = out or Path("runs") / ("demo-train" if train else "demo")
    with CONSOLE.status("looking for the scenes (drawn once, some 20 seconds) ..."):
        records = jobs.load_records(jobs.SCENES, limit=limit)
        run = jobs.open_run(
            path,
            records,
            Protocol(PROTOCOL),
            execution={"batch_size": BATCH, "processes": len(BACKBONES), "dtype": "float32"},
            overwrite=overwrite,
        )
    for note in run.notes:
        CONSOLE.print(f"[yellow]note[/] {note}")
    if not _complete(run, len(records.records)):
        folders: dict[str, dict[str, str]] = {}
        if train:
            from .demo_train import train_editors

            folders = train_editors(path / "trained", BACKBONES)
        show_one_edit(path, folders.get(SHOWN_ON, {}))
        CONSOLE.print(f"\n[bold]Now {limit} edits[/], each alone, on {' and '.join(BACKBONES)}:")
        run_parallel(
            measure_backbone,
            {b: (b, str(path), limit, folders.get(b, {})) for b in BACKBONES},
        )
        run.summarise()
    rows = run.rows()
    CONSOLE.print()
    print_tables(CONSOLE, rows, run.environment())
    CONSOLE.print(
        f"\nEvery case: {path}/cases.jsonl   table: {path}/table.md   picture: {path}/example.png",
        markup=False,
        soft_wrap=True,
    )
    return run


def _complete(run: RunFolder, cases: int) -> bool:
    """Whether every row is there in full."""
    if not (run.path / "summary.json").exists():
        return False
    full = {(row["method"], row["backbone"]) for row in run.rows() if row["n"] == cases}
    wanted = {(m, b) for m in METHODS for b in BACKBONES}
    missing = {method for method, _ in wanted - full}
    return not missing or (missing == {"serac"} and not _easyedit_is_here())


def _easyedit_is_here() -> bool:
    from .bridge import inspect_host

    return inspect_host().generation is not None


def measure_backbone(
    name: str, path: str, limit: int, folders: dict[str, str], reporter: Reporter
) -> None:
    """One worker: all methods on one backbone, into the run folder ``path``."""
    from .backbones import load_backbone

    reporter.one_thread()
    records = jobs.load_records(jobs.SCENES, limit=limit)
    protocol = Protocol(PROTOCOL)
    run = jobs.open_run(path, records, protocol)
    backbone = load_backbone(name)
    for method in METHODS:
        makers = _makers(method, backbone, folders)
        try:
            jobs.measure(
                makers,
                records,
                protocol,
                run,
                batch_size=BATCH,
                progress=lambda label: reporter.progress(f"{label} on {name}"),
            )
        except BridgeError as error:
            if method != "serac":
                raise
            reporter.note(f"no SERAC row: it runs EasyEdit's own code. {error.message}")


def _makers(method: str, backbone: Backbone, folders: dict[str, str]) -> dict[str, Any]:
    """How to make the editor; a SERAC trained here takes its other half from MSCKE's."""
    if method == "serac" and "serac" in folders:

        def serac() -> Any:
            trained = registry.METHODS.get("serac")
            return trained.from_pretrained(
                folders["serac"], backbone, counterfactual=folders["mscke"]
            )

        return {"serac": serac}
    return jobs.editor_makers([method], backbone, folders)


def example_record() -> EditRecord:
    """The first colour edit of the test set whose questions name two further things or more."""
    from .scenes.records import ensure_scenes
    from .scenes.world import COLORS, SHAPES

    files = ensure_scenes()
    dataset = FGVEditDataset(files.test, 100, image_root=files.images, check="off", extra=True)
    for record in dataset:
        words = " ".join(question.text for question in record.out_scope)
        others = sum(shape in words for shape in SHAPES)
        if record.edit.answer in COLORS and others >= 2:
            return record
    return dataset[0]


def show_one_edit(path: Path, folders: dict[str, str]) -> None:
    """Edit one scene live with MSCKE; print the answers and draw ``example.png``."""
    from .backbones import load_backbone

    record = example_record()
    with CONSOLE.status(f"loading {SHOWN_ON} ..."):
        backbone = load_backbone(SHOWN_ON)
        editor = jobs.editor_makers(["mscke"], backbone, folders)["mscke"]()
    lines = judged_lines(editor, record)
    CONSOLE.print(f"[bold]One edit[/] of {SHOWN_ON} with MSCKE, on the picture {record.edit.image}")
    CONSOLE.print(answer_table(record.edit, lines))
    try:
        from .picture import draw_example

        draw_example(path / "example.png", record, lines, f"MSCKE on {SHOWN_ON}")
    except ImportError:
        CONSOLE.print("[yellow]note[/] no picture: pip install matplotlib to draw it")


def judged_lines(editor, record: EditRecord) -> list[Line]:
    """The edit, a rephrase, questions in and out of scope, and one without the picture."""
    from dataclasses import replace

    asked = [("the edit", record.edit)]
    asked += [("reworded", q) for q in record.rephrase[:1]]
    asked += [("in scope", q) for q in record.in_scope[:2]]
    asked += [("out of scope", q) for q in record.out_scope[:3]]
    asked += [("text only", q) for q in record.text_loc[:1]]
    if not record.edit.image:
        raise EasyEditMMError("the example record has no picture")
    lines = ask_around(editor, record.edit, [q for _, q in asked])
    return [
        replace(
            line,
            note=kind,
            expected=line.before if kind in ("out of scope", "text only") else question.answer,
        )
        for (kind, question), line in zip(asked, lines, strict=True)
    ]
