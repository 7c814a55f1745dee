"""Statistics and plots for a data card."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...core.files import atomic_path
from ...core.optional import need
from ..record_files import read_records
from ..schema import as_list, fold
from .blind import by_texts
from .construct.sources import guess_types

TOP = 15
_QUESTIONS = {
    "edit": ("src", None),
    "rephrase": ("rephrase", None),
    "in scope": ("fg_gen_q", "in"),
    "out of scope": ("fg_loc_q", "out"),
    "text locality": ("loc", None),
    "other image": ("m_loc_q", None),
}


def describe(path: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """The statistics of each file.

    Returns:
        file stem -> ``records``, ``images``, ``questions`` (kind -> count), ``question words``
        (kind -> mean, median, longest), ``answer types``, ``question types`` and ``new answers``
        (most frequent first, at most :data:`TOP`), ``distinct new answers``, ``scopes`` (records
        by what they have), ``in-scope answers changed`` (share with the edit's answer), ``edits
        per image``, ``blind`` (how far attackers by texts alone get, see ``blind.py``; ``None``
        where nothing can be learned).

    Raises:
        DataError: a file cannot be read.
    """
    contents = read_records(path)
    return {
        file.stem: _one([r for r in rows if isinstance(r, dict)]) | {"blind": _blind(file)}
        for file, rows in contents.items()
    }


def _blind(file: Path) -> dict[str, Any] | None:
    found = by_texts(file)
    return None if found is None else found.to_json()


def _one(records: list[dict[str, Any]]) -> dict[str, Any]:
    texts = {kind: list(_texts(records, *where)) for kind, where in _QUESTIONS.items()}
    types = [guess_types(str(r.get("src", "")), str(r.get("alt", ""))) for r in records]
    answers = Counter(fold(r.get("alt", "")) for r in records)
    images = Counter(str(r.get("image", "")) for r in records)
    return {
        "records": len(records),
        "images": len(images),
        "edits per image": round(len(records) / max(1, len(images)), 2),
        "questions": {kind: len(found) for kind, found in texts.items() if found},
        "question words": {kind: _lengths(found) for kind, found in texts.items() if found},
        "answer types": dict(Counter(kind for _, kind in types).most_common()),
        "question types": dict(Counter(name for name, _ in types).most_common(TOP)),
        "distinct new answers": len(answers),
        "new answers": dict(answers.most_common(TOP)),
        "scopes": dict(Counter(_scopes(r) for r in records).most_common()),
        "in-scope answers equal to the edit's": _same_answer(records),
    }


def _texts(records: Iterable[dict[str, Any]], field: str, side: str | None) -> Iterable[str]:
    for record in records:
        yield from as_list(record.get(field))
        if side is not None:
            yield from (q for q, _, _ in _extra(record, side))


def _extra(record: dict[str, Any], side: str) -> list[tuple[str, str, bool]]:
    extra = record.get("fg_extra")
    items = extra.get(side) if isinstance(extra, dict) else None
    return [
        (str(x.get("q", "")), str(x.get("a", "")), bool(x.get("hard")))
        for x in (items if isinstance(items, list) else [])
        if isinstance(x, dict)
    ]


def _lengths(texts: list[str]) -> dict[str, float]:
    words = [len(t.split()) for t in texts]
    return {
        "mean": round(statistics.fmean(words), 1),
        "median": statistics.median(words),
        "longest": max(words),
    }


def _scopes(record: dict[str, Any]) -> str:
    parts = []
    for side, name in (("in", "fg_gen"), ("out", "fg_loc")):
        if not as_list(record.get(f"{name}_q")):
            continue
        hard = record.get(f"{name}_hard")
        parts.append(side if hard is None else f"{'hard' if hard else 'easy'} {side}")
    return " + ".join(parts) or "none"


def _same_answer(records: list[dict[str, Any]]) -> float | None:
    same = [
        fold(answer) == fold(r.get("alt"))
        for r in records
        for answer in [*as_list(r.get("fg_gen_a")), *(a for _, a, _ in _extra(r, "in"))]
    ]
    return round(sum(same) / len(same), 4) if same else None


def markdown(stats: dict[str, Any]) -> str:
    """The statistics as Markdown tables, one column per file."""
    names = list(stats)
    lines = []
    plain = [
        "records",
        "images",
        "edits per image",
        "distinct new answers",
        "in-scope answers equal to the edit's",
    ]
    lines += _table("", names, {key: [stats[n].get(key) for n in names] for key in plain})
    for key in ("questions", "answer types", "scopes", "question types", "new answers"):
        rows = dict.fromkeys(row for n in names for row in stats[n][key])
        lines += _table(key, names, {row: [stats[n][key].get(row) for n in names] for row in rows})
    lengths = dict.fromkeys(row for n in names for row in stats[n]["question words"])
    cells = {
        row: [
            "{mean} / {longest}".format(**w) if (w := stats[n]["question words"].get(row)) else None
            for n in names
        ]
        for row in lengths
    }
    lines += _table("words per question, mean / longest", names, cells)
    lines += _blind_table(stats, names)
    return "\n".join(lines).strip() + "\n"


def _blind_table(stats: dict[str, Any], names: list[str]) -> list[str]:
    """How far attackers by texts alone get, and the verdict on each file."""
    known = [name for name in names if stats[name].get("blind")]
    cells = {
        name: {
            f"{f['sort']} questions: {f['shown']}": "{:.1f} ({:.1f} to {:.1f})".format(
                f["accuracy"], *f["interval"]
            )
            for f in stats[name]["blind"]["attackers"]
        }
        for name in known
    }
    rows = {
        row: [cells.get(name, {}).get(row) for name in names]
        for row in dict.fromkeys(row for name in known for row in cells[name])
    }
    if not rows:
        return []
    title = "told without the picture, routing accuracy in % (95 % interval)"
    verdicts = [f"- {name}: {stats[name]['blind']['verdict']}." for name in known]
    return [*_table(title, names, rows), "", *verdicts]


def _table(title: str, names: list[str], rows: dict[str, list[Any]]) -> list[str]:
    def cell(value: Any) -> str:
        text = "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        return text.replace("|", "\\|").replace("<", "&lt;")

    head = f"| {cell(title)} | " + " | ".join(map(cell, names)) + " |"
    rule = "|---|" + "---:|" * len(names)
    body = [f"| {cell(key)} | " + " | ".join(map(cell, row)) + " |" for key, row in rows.items()]
    return ["", head, rule, *body]


def plots(stats: dict[str, Any], folder: str | Path) -> list[Path]:
    """Bar charts as PNG: question types, answer types, new answers, scopes, words per question.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    need("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = []
    for key in ("question types", "answer types", "new answers", "scopes", "question words"):
        rows = list(dict.fromkeys(row for s in stats.values() for row in s[key]))[: 2 * TOP]
        if not rows:
            continue
        figure = Figure(figsize=(7, 1.2 + 0.28 * len(rows) * max(1, len(stats) / 2)))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        height = 0.8 / len(stats)
        for i, (name, one) in enumerate(stats.items()):
            values = [one[key].get(row, 0) for row in rows]
            values = [v["mean"] if isinstance(v, dict) else v for v in values]
            if key != "question words":  # counts: shares, so that splits can be compared
                values = [100 * v / max(1, one["records"]) for v in values]
            axes.barh([y + i * height for y in range(len(rows))], values, height, label=name)
        axes.set_yticks([y + 0.4 - height / 2 for y in range(len(rows))], rows)
        axes.invert_yaxis()
        axes.set_xlabel("mean number of words" if key == "question words" else "% of records")
        axes.set_title(key)
        axes.spines[["top", "right"]].set_visible(False)
        if len(stats) > 1:
            axes.legend(frameon=False)
        figure.tight_layout()
        path = Path(folder) / f"{key.replace(' ', '_')}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)
        made.append(path)
    return made
