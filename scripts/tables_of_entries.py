"""Writes ``docs/methods.md``: methods, base models and data sets, from their entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from easyedit_mm_plugins import BACKBONES, DATASETS, METHODS
from easyedit_mm_plugins.methods import shipped_editor

FILE = Path(__file__).parents[1] / "docs/methods.md"
SUITES = {"fgvedit": "FGVEdit's", "evqa": "E-VQA's"}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def methods() -> str:
    """One row a method."""
    embedded = [entry.name for entry in BACKBONES if entry.embedded]
    rows = []
    for entry in METHODS:
        if entry.kind == "attacker":
            continue
        shipped = [name for name in embedded if shipped_editor(entry, name)]
        trained = "all embedded" if shipped == embedded else ", ".join(shipped)
        if not entry.needs_training:
            trained = "nothing to train"
        source = "ours, in no paper" if entry.ours else entry.paper or "-"
        command = "yes" if entry.trainer is not None else "-"
        names = [f"`{entry.name}`", entry.title, source, f"`{entry.easyedit}`"]
        names[-1] = names[-1] if entry.easyedit else "-"
        rows.append([*names, command, trained or "-"])
    columns = ["name", "method", "source", "in EasyEdit", "`train`", "trained editors"]
    return table(columns, rows)


def attackers() -> str:
    """One row an attacker."""
    rows = [[f"`{e.name}`", e.title] for e in METHODS if e.kind == "attacker"]
    return table(["name", "attacker"], rows)


def backbones() -> str:
    """One row a base model."""
    rows = []
    for e in BACKBONES:
        title = "embedded" if e.title == e.name else e.title
        rows.append([f"`{e.name}`", title, e.family, e.weights, e.licence])
    return table(["name", "base model", "family", "weights", "licence"], rows)


def datasets() -> str:
    """One row a data set."""
    rows = [
        [
            f"`{e.name}:PATH`" if e.takes_path else f"`{e.name}`",
            e.title,
            SUITES.get(e.suite, e.suite),
            e.task or "questions",
            e.source,
        ]
        for e in DATASETS
    ]
    return table(["name", "data set", "metrics", "edits", "source"], rows)


def text() -> str:
    """The whole page."""
    return f"""# Methods, base models, data sets

Written from the entries by `python scripts/tables_of_entries.py`; a test compares. How to add one:
[extending.md](extending.md).

## Methods

{methods()}

EasyEdit has IKE, SERAC and MEND itself, and its HEAD LoRA, GRACE and WISE, and keeps its own; here
they run its code as baselines.

## Attackers

No editing methods: they choose routes without looking, and answer in scope as MSCKE does. A
benchmark that one of them passes does not ask for the picture ([data.md](data.md)).

{attackers()}

## Base models

{backbones()}

A folder with a Hugging Face BLIP-2 or LLaVA model works by its path.

## Data sets

{datasets()}

A JSON file in FGVEdit's schema works by its path.
"""


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
