"""What ``easyedit-mm demo`` does: it shows one edit, then measures 500.

Everything runs on the embedded scenes benchmark and backbones, on a CPU, in a few minutes. The
picture and the table land in ``runs/demo/``; a stopped demo goes on where it was, and a finished
one only shows its table.
"""

from __future__ import annotations

from pathlib import Path

from ..core.console import CONSOLE
from ..core.errors import EasyEditMMError
from ..data import EditRecord, FGVEditDataset
from ..evaluation import Protocol, RunFolder
from ..evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
from ..evaluation.runner import finished, run_grid
from ..evaluation.tables import print_tables
from .before_after import Line, answer_table, ask_around

BACKBONES = ("scenes-blip2", "scenes-llava")
METHODS = ("unedited", "serac", "mscke")
SHOWN_ON = "scenes-llava"
PROTOCOL = "generated"


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
    plan = Grid(
        list(METHODS),
        [BackboneSpec(name) for name in BACKBONES],
        [DataSpec("scenes", limit=limit)],
        Protocol(PROTOCOL),
    )
    with CONSOLE.status("looking for the scenes (drawn once, some 20 seconds) ..."):
        plan.load()
    if overwrite or not finished(plan, path):
        if train:
            from ..recipes.editors import train_editors

            trained = train_editors(path / "trained", METHODS, BACKBONES)
            plan.specs = {
                backbone: {m: MethodSpec(m, folder=folder) for m, folder in folders.items()}
                for backbone, folders in trained.items()
            }
        path.mkdir(parents=True, exist_ok=True)
        show_one_edit(path, plan.spec("mscke", SHOWN_ON))
        CONSOLE.print(f"\n[bold]Now {limit} edits[/], each alone, on {' and '.join(BACKBONES)}:")
    run = run_grid(plan, path, overwrite=overwrite, every=15.0)
    for note in run.notes:
        CONSOLE.print(f"[yellow]note[/] {note}")
    CONSOLE.print()
    print_tables(CONSOLE, run.rows(), run.environment(), run.status.missing())
    CONSOLE.print(
        f"\nEvery case: {path}/cases.jsonl   table: {path}/table.md   picture: {path}/example.png",
        markup=False,
        soft_wrap=True,
    )
    return run


def example_record() -> EditRecord:
    """The first colour edit of the test set whose questions name two other things or more."""
    from ..scenes.records import ensure_scenes
    from ..scenes.world import COLORS, SHAPES

    files = ensure_scenes()
    dataset = FGVEditDataset(files.test, 100, image_root=files.images, check="off", extra=True)
    for record in dataset:
        words = " ".join(question.text for question in record.out_scope)
        others = sum(shape in words for shape in SHAPES)
        if record.edit.answer in COLORS and others >= 2:
            return record
    return dataset[0]


def show_one_edit(path: Path, spec: MethodSpec) -> None:
    """Make one edit with MSCKE; print the answers and draw ``example.png``."""
    from ..backbones import load_backbone

    record = example_record()
    with CONSOLE.status(f"loading {SHOWN_ON} ..."):
        backbone = load_backbone(SHOWN_ON)
        editor = spec.make(backbone)
    lines = judged_lines(editor, record)
    CONSOLE.print(f"[bold]One edit[/] of {SHOWN_ON} with MSCKE, on the picture {record.edit.image}")
    CONSOLE.print(answer_table(record.edit, lines))
    try:
        from .example_picture import draw_example

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
