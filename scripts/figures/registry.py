"""Every table of measured figures in README.md and docs/: which run makes it, and how it looks.

``SOURCES`` say which commands measure, ``TABLES`` how their rows stand in a document, between
``<!-- table: NAME -->`` and ``<!-- end of table -->``. Rows, methods, base models and metrics come
from the data: a new one needs no line here.

In a command ``{out}`` is the source's own folder, ``{cases}`` the number of cases, ``{backbones}``
every embedded backbone and ``{backbone}`` each of them in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from easyedit_mm_plugins.papers import published
from easyedit_mm_plugins.papers.lifelong import METRICS as LIFELONG
from easyedit_mm_plugins.papers.lifelong import TITLES as AGAIN_TITLES
from easyedit_mm_plugins.papers.tables import TITLES

from . import rows as rows_of
from .tables import Column, Row, Table


@dataclass(frozen=True)
class Source:
    """A measurement.

    Attributes:
        commands: what to run, one after the other; none: the results are shipped.
        results: JSON files below ``{out}``, or in the package's assets.
        rows: makes rows of what these files hold.
        minutes: about how long it takes on one of two cores.
        cases: of the tables.
        timed: it measures time, so nothing should run beside it.
        copies: pictures and pages for the documents, by where they lie below ``{out}``.
        note: what a reader must know of the measurement beside the usual facts.
    """

    commands: Sequence[str]
    results: Sequence[str]
    rows: Callable[[Sequence[Any]], list[rows_of.Row]]
    minutes: int
    cases: int = 0
    timed: bool = False
    copies: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def _reproduce(
    name: str, minutes: int, make: Callable[..., list[rows_of.Row]], **more: Any
) -> Source:
    options = more.pop("options", "")
    command = f"easyedit-mm reproduce {name} --out {{out}}/run --limit {{cases}} {options}"
    return Source((command,), ("run/summary.json",), make, minutes, **more)


def _benchmark(
    script: str, minutes: int, make: Callable[..., list[rows_of.Row]], **more: Any
) -> Source:
    """A script of ``benchmarks/``, for each backbone in turn."""
    options = more.pop("options", "")
    command = f"python benchmarks/{script}.py --json {{out}}/{{backbone}}.json {options}"
    return Source((command,), ("{backbone}.json",), make, minutes, **more)


_COMPARE = "easyedit-mm compare"

SOURCES: dict[str, Source] = {
    "demo": Source(
        ("easyedit-mm demo --out {out}/run --limit {cases}",),
        ("run/summary.json",), rows_of.evaluation, 2, cases=500,
        copies={"run/example.png": "docs/example.png"},
    ),
    "standing": Source(
        (
            f"{_COMPARE} experiment=grid backbone={{backbones}} eval.limit={{cases}} "
            "out={out}/run",
            'easyedit-mm report {out}/run --out {out}/report --title "Standing" --cases 40',
        ),
        ("run/summary.json",), rows_of.evaluation, 45, cases=300,
        copies={f"report/report.{end}": f"docs/standing/report.{end}"
                for end in ("md", "tex", "html")},
    ),
    "mscke-table1": _reproduce("mscke-table1", 25, rows_of.evaluation, cases=500),
    "mscke-table2": _reproduce("mscke-table2", 12, rows_of.mscke_table2, cases=500),
    "mscke-table3": _reproduce(
        "mscke-table3", 15, rows_of.mscke_table3, cases=500, options="{each_backbone}"
    ),
    "mscke-table4": _reproduce("mscke-table4", 12, rows_of.mscke_table4, cases=64, timed=True),
    "mscke-table4-full-size": Source(
        ("easyedit-mm reproduce mscke-table4 --backbone full-size --out {out}/run --limit 8",),
        ("run/summary.json",), rows_of.mscke_table4, 25, timed=True,
        note="random weights, ViT-g, Q-Former and decoder in bfloat16",
    ),
    "mscke-figure4": _reproduce(
        "mscke-figure4", 2, rows_of.mscke_figure4, cases=500,
        copies={"run/figure4.png": "docs/mscke-figure4.png"},
    ),
    "ft-strength": Source(
        ("python benchmarks/ft_strength.py --backbone scenes-blip2 --cases {cases} "
         "--out {out}/run --json {out}/rows_of.json",),
        ("rows_of.json",), rows_of.ft_strength, 6, cases=100,
    ),
    "dualedit-gates": Source(
        ("python benchmarks/dualedit_gates.py --backbone {listed} --cases {cases} "
         "--json {out}/gates.json",),
        ("gates.json",), rows_of.gates, 1, cases=300,
    ),
    "dualedit-table1": _reproduce("dualedit-table1", 12, rows_of.variants, cases=200),
    "dualedit-table2": _reproduce("dualedit-table2", 20, rows_of.evaluation, cases=100),
    "dualedit-table3": _reproduce("dualedit-table3", 15, rows_of.variants, cases=200),
    "dualedit-figure1": _reproduce(
        "dualedit-figure1", 1, lambda results: [], cases=200,
        copies={"run/figure1-scenes-llava.png": "docs/dualedit-figure1.png"},
    ),
    "dualedit-figure2": _reproduce(
        "dualedit-figure2", 4, rows_of.dualedit_figure2, cases=60,
        options="--backbone scenes-llava --backbone scenes-blip2",
        copies={"run/figure2-scenes-llava.png": "docs/dualedit-figure2.png"},
    ),
    "dualedit-figure4": _reproduce(
        "dualedit-figure4", 1, rows_of.dualedit_figure4, cases=200,
        options="--backbone scenes-llava --backbone scenes-blip2",
        copies={"run/figure4-scenes-llava.png": "docs/dualedit-figure4.png"},
    ),
    "dualedit-figure5": _reproduce(
        "dualedit-figure5", 15, rows_of.variants, cases=150,
        copies={"run/figure5-scenes-llava.png": "docs/dualedit-figure5.png"},
    ),
    "dualedit-editors": _benchmark(
        "dualedit_table", 10, rows_of.dualedit_editors, cases=500,
        options="--backbone {backbone} --cases {cases} --variants 200",
    ),
    "dualedit-captions": Source(
        tuple(
            f"{_COMPARE} method=[{methods}] backbone=[scenes-blip2,scenes-llava] data=scenes-eic "
            f"eval=teacher-forced eval.limit={{cases}} out={{out}}/{name} {more}"
            for name, methods, more in (
                ("own", "unedited,dualedit", ""),
                ("prompt-end", "dualedit", "method.dualedit.gate.kind=prompt-end"),
            )
        ),
        ("own/summary.json", "prompt-end/summary.json"), rows_of.evaluation, 6, cases=300,
    ),
    "dualedit-speed": _benchmark(
        "dualedit_speed", 4, rows_of.dualedit_speed, timed=True,
        options="--backbone {backbone} --rounds 14",
    ),
    "lifelong": _reproduce(
        "lifelong", 150, rows_of.lifelong, cases=200,
        copies={"run/lifelong-scenes-llava.png": "docs/lifelong.png"},
    ),
    "memory": _benchmark(
        "memory", 4, rows_of.memory, timed=True, options="--backbone {backbone}"
    ),
    "lora": Source(
        ("python benchmarks/lora.py --limit {cases} --json {out}/lora.json",),
        ("lora.json",), rows_of.lora, 8, cases=500, timed=True,
    ),
    "easyedit-speed": Source(
        ("python benchmarks/easyedit_speed.py --cases {cases} --rounds 2 --json {out}/speed.json",),
        ("speed.json",), rows_of.easyedit_speed, 10, cases=64, timed=True,
    ),
    "backbones": Source((), ("{backbone}/eval.json",), rows_of.backbones, 0),
    "full-size-shapes": Source(
        ("python benchmarks/full_size.py --shapes-only --json {out}/rows.json",),
        ("rows.json",), rows_of.full_size, 1, note="tensors without memory",
    ),
    "full-size-trial": Source(
        ("python benchmarks/full_size.py --device cpu --narrow --cases 2 --json {out}/rows.json",),
        ("rows.json",), rows_of.full_size, 20,
        note="random weights; what runs has 64 dimensions and 3 layers",
    ),
    "full-size": Source(
        ("python benchmarks/full_size.py --device cuda --cases 32 --json {out}/rows.json",),
        ("rows.json",), rows_of.full_size, 60, timed=True, note="random weights",
    ),
}  # fmt: skip

# Tables ---------------------------------------------------------------------------------------

SPECIFICITY = "specificity_hard|specificity"
SIDES = ("specificity_hard_in|specificity_in", "specificity_hard_out|specificity_out")
EVQA = ("reliability", "t_gen", "v_gen", "t_loc", "m_loc", "average")
KINDS = {"edit": "edit", "rephrase": "rephrased", "image_rephrase": "image redrawn"}


def _columns(*metrics: str) -> list[Column]:
    return [Column(metric) for metric in metrics]


def _has(**labels: Any) -> Callable[[Row], bool]:
    return lambda row: all(row.get(key) == value for key, value in labels.items())


def _papers(found: Sequence[Row]) -> list[Row]:
    """Rows of MSCKE's table 1 as the paper prints them, for the methods that were measured."""
    shown = Column(SPECIFICITY).known(found)
    metric = shown.metric if shown else "specificity"
    return [
        {"method": method, "backbone": f"paper, {TITLES[name]}", metric: f"{number.value:.2f}"}
        for name in ("blip2-opt", "minigpt4")
        for method in dict.fromkeys(row["method"] for row in found)
        if method in {number.method for number in published.find("mscke-table1")}
        for number in published.find(
            "mscke-table1", backbone=name, method=method, metric="specificity"
        )
    ]


TABLES: dict[str, Table] = {
    "demo": Table(
        "demo", ("backbone", "method"), heads=("backbone", "method"),
        columns=[
            *_columns("reliability", "generality", "locality", "scope_hard"),
            Column("specificity_hard", interval=True, best=True),
            *_columns("specificity_hard_in", "specificity_hard_out"),
            Column("specificity", interval=True, best=True),
            *_columns("specificity_in", "specificity_out", "generality_target"),
        ],
    ),
    "standing-specificity": Table(
        "standing", ("method",), across="backbone", columns=[Column(SPECIFICITY, best=True)],
        where=_has(dataset="scenes-fgvedit"),
    ),
    "standing-average": Table(
        "standing", ("method",), across="backbone", columns=[Column("average", best=True)],
        where=_has(dataset="scenes-evqa"),
    ),
    "memory": Table(
        "memory", ("backbone", "method"), across="edits",
        columns=[Column("ms", unit=" ms")], heads=("", "edits in memory:"),
    ),
    "mscke-table1": Table(
        "mscke-table1", ("method",), across="backbone",
        columns=[Column(SPECIFICITY, beside=SIDES)], more=_papers,
    ),
    "mscke-table1-others": Table(
        "mscke-table1", ("method",), across="backbone",
        columns=_columns("reliability", "generality", "locality"),
    ),
    "ft-strength": Table(
        "ft-strength", ("method", "factor"), heads=("method", "learning rate times"),
        columns=[
            Column("specificity", interval=True),
            Column("specificity_in", "in scope", decimals=0),
            Column("specificity_out", "out of scope", decimals=0),
            Column("same", "in scope, same answer"),
            Column("other", "in scope, another"),
            Column("locality", decimals=0),
        ],
    ),
    "mscke-table2": Table(
        "mscke-table2", ("classifier",), where=_has(what="classifier"),
        columns=[
            Column(SPECIFICITY, interval=True, best=True),
            *(Column(side) for side in SIDES),
            Column("scope_accuracy", interval=True),
        ],
        names={"text-small": "text alone"},
    ),
    "mscke-table2-differences": Table(
        "mscke-table2", ("first", "second"), heads=("first", "minus"),
        where=lambda row: row.get("what") == "difference" and row["metric"] != "scope_accuracy",
        columns=[Column("difference", "difference in Specificity, case by case", interval=True)],
        names={"text-small": "text alone"},
    ),
    "mscke-table3": Table(
        "mscke-table3", ("moved", "method", "backbone"), heads=("classifier", "method", "backbone"),
        columns=[
            *_columns("reliability", "locality", "generality"),
            Column("transferred", "Specificity, transferred", interval=True),
            Column("retrained", "retrained", interval=True),
            Column("difference", "difference, case by case", interval=True),
        ],
    ),
    **{
        name: Table(
            name, ("backbone", "batch", "situation"), heads=("", "batch", ""),
            columns=[
                Column("classifier", "classifier, ms"),
                Column("base", "base, ms"),
                Column("counterfactual", "counterfactual, ms"),
                Column("share", "classifier of base", unit=" %"),
            ],
            names={"full-size": "BLIP-2 OPT-2.7B's shape"},
        )
        for name in ("mscke-table4", "mscke-table4-full-size")
    },
    "mscke-figure4": Table(
        "mscke-figure4", ("task", "method"),
        columns=[
            Column("scope_accuracy", "both sides", interval=True),
            Column("in_scope", "in scope"),
            Column("out_of_scope", "out of scope"),
        ],
    ),
    "mscke-figure4-counts": Table(
        "mscke-figure4", ("task", "method"),
        where=lambda row: "hard" not in row["task"],
        columns=[
            Column("inside", "in scope: decided in / out"),
            Column("outside", "out of scope: decided in / out"),
        ],
    ),
    "dualedit-gates": Table(
        "dualedit-gates", ("backbone", "gate", "threshold"), heads=("", "gate", "threshold"),
        columns=[
            *(Column(kind, title) for kind, title in KINDS.items()),
            Column("image_loc", "other image"),
            Column("text_loc", "text alone"),
        ],
    ),
    "dualedit-table1": Table(
        "dualedit-table1", ("adapters", "text", "visual"),
        heads=("adapter", "text layer", "visual layer"), columns=_columns(*EVQA),
    ),
    "dualedit-table2-evqa": Table(
        "dualedit-table2", ("method",), across="backbone", where=_has(dataset="scenes-evqa"),
        columns=[Column("average", interval=True, best=True)],
    ),
    "dualedit-table2-eic": Table(
        "dualedit-table2", ("method",), across="backbone", where=_has(dataset="scenes-eic"),
        columns=[Column("average", interval=True, best=True)],
    ),
    "dualedit-table3": Table(
        "dualedit-table3", ("gate", "text", "visual"), heads=("gate", "text", "visual"),
        columns=_columns(*EVQA), where=lambda row: row["adapters"] != "shipped editor",
    ),
    "dualedit-figure2": Table(
        "dualedit-figure2", ("backbone", "tokens"), heads=("", "noise on"),
        columns=[Column(f"layer_{k}", f"layer {k}", decimals=2) for k in range(64)],
    ),
    "dualedit-figure4": Table(
        "dualedit-figure4", ("backbone",), across="tokens",
        columns=[Column("roc_area", decimals=4)],
    ),
    "dualedit-figure5": Table(
        "dualedit-figure5", ("text",), across="visual", heads=("text layer; visual layer",),
        columns=[Column("reliability")],
    ),
    "dualedit-editors": Table(
        "dualedit-editors", ("backbone", "gate"), heads=("", "gate"), columns=_columns(*EVQA)
    ),
    "dualedit-captions": Table(
        "dualedit-captions", ("backbone", "method", "gate"), heads=("", "", "gate"),
        columns=_columns(*EVQA),
    ),
    "dualedit-speed": Table(
        "dualedit-speed", ("backbone",), where=_has(what="training"),
        columns=[
            Column("straightforward", "every sample by itself", decimals=0),
            Column("first", "here, first time", decimals=0),
            Column("first_times", "times as fast"),
            Column("again", "here, from the second epoch on", decimals=0),
            Column("again_times", "times as fast"),
        ],
    ),
    "dualedit-gate-cost": Table(
        "dualedit-speed", ("backbone", "gate"), where=_has(what="gate"),
        columns=[
            Column("batch 1, new picture", "batch 1"),
            Column("batch 32, new picture", "batch 32"),
            Column("batch 1, known picture", "batch 1, known picture"),
            Column("batch 32, known picture", "batch 32, known picture"),
        ],
    ),
    "lifelong": Table(
        "lifelong", ("backbone", "method", "gate"), where=_has(table="lifelong", edits=1000),
        columns=_columns(*LIFELONG["lifelong"]), heads=("", "", "gate"),
    ),
    **{
        f"lifelong-{name}": Table(
            "lifelong", ("backbone", "method", "gate"), across="edits",
            where=_has(table="lifelong"), columns=[Column(metric, "")],
            heads=("", "edits in force:", "gate"),
        )
        for name, metric in (
            ("reliability", "reliability"), ("in", "specificity_hard_in"),
            ("out", "specificity_hard_out"), ("redrawn", "redrawn"), ("other", "other_picture"),
        )
    },
    "lifelong-picture": Table(
        "lifelong", ("backbone", "method", "gate", "edits"), where=_has(table="one picture"),
        columns=_columns(*LIFELONG["one picture"]), heads=("", "", "gate", "edits on a picture"),
    ),
    "lifelong-again": Table(
        "lifelong", ("backbone", "method", "gate"), across="task", heads=("", "", "gate"),
        where=_has(table="edited again"), columns=[Column("reliability", "")], names=AGAIN_TITLES,
    ),
    "lora": Table(
        "lora", ("backbone", "method"), flipped=True,
        columns=[
            *_columns("reliability", "generality", "locality"),
            Column(SPECIFICITY), *(Column(side) for side in SIDES),
            Column("weights_mb", "weights in memory, MB", decimals=2),
            Column("base_mb", "beside the base model's, MB"),
            Column("file_mb", "on disk (fp16), MB", decimals=2),
            Column("peak_mb_1", "most that one question holds, MB", decimals=2),
            Column("peak_mb_32", "most that 32 together hold, MB"),
            Column("ms_1", "ms an in-scope question, alone"),
            Column("ms_32", "ms an in-scope question, 32 together"),
        ],
    ),
    "mscke-mend": Table(
        "mscke-table1", ("backbone", "method"),
        where=lambda row: row["method"] in ("mend", "mscke-mend"),
        columns=[*_columns("reliability", "generality", "locality"),
                 Column(SPECIFICITY, beside=SIDES)],
    ),
    "ike": Table(
        "mscke-table1", ("backbone",), where=_has(method="ike"),
        columns=[*_columns("reliability", "generality", "locality"), Column(SPECIFICITY)],
    ),
    "easyedit-speed": Table(
        "easyedit-speed", ("runner",),
        columns=[
            Column("work_ms", "processor time a case, ms", decimals=0),
            Column("wall_ms", "by the clock, ms", decimals=0),
            Column("times_faster", "times faster"),
        ],
        names={
            "easyedit": "EasyEdit (checkout), `edit_dataset`",
            "teacher-forced": "here, teacher-forced",
            "generated": "here, generated (EasyEdit has no such protocol)",
        },
    ),
    "backbones": Table(
        "backbones", ("backbone",), flipped=True,
        columns=[
            Column("parameters"),
            Column("file_mb", "fp16 file, MB"),
            Column("exact_match_mean", "exact match, mean of the question types"),
            Column("relations"),
            Column("in_context", "under a new fact in the prompt"),
            Column("facts"),
            Column("weakest", "weakest type"),
            Column("captions", 'captions ("a photo of"): all of it', decimals=0),
            Column("caption_words", "captions: words", decimals=0),
            Column("steps"),
            Column("minutes", "minutes on one core that other work shared", decimals=0),
        ],
    ),
    "full-size-shapes": Table(
        "full-size-shapes", ("backbone",), heads=("shape",),
        columns=[
            Column("parameters"), Column("decoder_layers", "decoder layers"),
            Column("bf16_gb", "weights in bfloat16, GB"),
        ],
    ),
    "full-size-trial": Table(
        "full-size-trial", ("method",), across="backbone", where=_has(what="run"),
        columns=[Column("outcome", "")], heads=("method",),
    ),
    "full-size": Table(
        "full-size", ("backbone", "method"), where=_has(what="run", outcome="runs"),
        columns=[
            Column("edit_s", "s an edit", decimals=3), Column("case_s", "s a case", decimals=3),
            Column("peak_gb", "peak memory, GB"),
            Column("editor_mb", "trained editor, MB", decimals=0),
            Column("scope_share", "scope classifier of a forward pass", unit=" %"),
        ],
        heads=("", "method"),
    ),
    "full-size-training": Table(
        "full-size", ("backbone", "method"),
        where=lambda row: row.get("what") == "run" and "step_s" in row,
        columns=[
            Column("batch_size", "records a step"),
            Column("step_s", "s a step", decimals=3),
            Column("step_again_s", "s a step, records seen before", decimals=3),
            Column("steps", "steps"),
            Column("hours", "hours"),
            Column("hours_again", "hours, all records seen before"),
        ],
        heads=("", "method"),
    ),
    "full-size-easyedit": Table(
        "full-size", ("backbone",), where=_has(what="easyedit"),
        columns=[
            Column("theirs_case_s", "EasyEdit (HEAD), `edit_dataset`, s a case", decimals=3),
            Column("here_case_s", "here, s a case", decimals=3),
            Column("times_faster", "times faster"),
        ],
    ),
}  # fmt: skip
