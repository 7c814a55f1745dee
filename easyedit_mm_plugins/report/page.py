"""The report as one HTML page that needs no server, no network and no other file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.shipped import ASSETS
from ..core.version import __version__
from ..evaluation.tables import PROTOCOL_TEXT
from .browse import Pictures, browse, run_folders
from .compare import SAMPLES
from .layout import (
    DECIMALS,
    Cell,
    all_columns,
    all_tests,
    cells,
    compared_share,
    heading,
    main_columns,
    methods_of,
    run_line,
    tables,
)
from .scores import score_histogram
from .sources import UNEDITED, Board, Entry, Report

_ASSETS = ASSETS / "report"
_SCRIPTS = ("core.js", "charts.js", "tables.js", "cases.js", "main.js")


def write_page(
    report: Report, title: str, *, limit: int | None = 300, images: str | Path | None = None
) -> str:
    """The page.

    Args:
        limit: so many cases of each data set can be looked at; charts and tables count all.
        images: folder that image paths of the runs are relative to.
    """
    return render(title, page_data(report, title, limit=limit, images=images))


def page_data(
    report: Report, title: str, *, limit: int | None, images: str | Path | None
) -> dict[str, Any]:
    """Everything that the page shows, as a JSON object."""
    grouped = tables(report)
    places = {id(board): at for at, board in enumerate(report.boards)}
    methods = methods_of(report.boards)
    numbers = {label: at for at, (_, label) in enumerate(methods)}
    pictures = Pictures(run_folders(report.sources), images)
    found = browse(report, grouped, pictures, limit)
    metrics = dict.fromkeys(m for board in report.boards for m in all_columns(board))
    sources = {m.name: m.source for b in report.boards for m in b.suite.metrics}
    sources |= {d.name: d.source for b in report.boards for d in b.suite.derived}
    samples = {source.protocol.get("bootstrap", 1000) for source in report.sources}
    return {
        "title": title,
        "version": __version__,
        "decimals": DECIMALS,
        "flips": SAMPLES,
        "bootstrap": max(samples),
        "protocols": {b.protocol: PROTOCOL_TEXT.get(b.protocol, "") for b in report.boards},
        "runs": run_line(report),
        "metrics": {
            name: {
                "name": heading(name),
                "short": heading(name, short=True),
                "source": sources.get(name, ""),
            }
            for name in metrics
        },
        "methods": [{"name": label, "base": method == UNEDITED} for method, label in methods],
        "tables": [
            {
                "dataset": boards[0].dataset or "records",
                "protocol": boards[0].protocol,
                "boards": [places[id(board)] for board in boards],
            }
            for boards in grouped
        ],
        "boards": [_board(board, numbers) for board in report.boards],
        "missing": report.missing,
        "notes": [*report.notes, *_picture_notes(pictures)],
        "pictures": pictures.urls,
        **found,
    }


def render(title: str, data: dict[str, Any]) -> str:
    """The page with ``data`` in it. ``<`` in the data is escaped; only our own script may run."""
    script = "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    filled = {
        "__SCRIPT_HASH__": f"sha256-{digest}",
        "__TITLE__": html.escape(title),
        "__STYLE__": (_ASSETS / "page.css").read_text(encoding="utf-8"),
        "__SCRIPT__": script,
        "__DATA__": text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
    }
    page = (_ASSETS / "page.html").read_text(encoding="utf-8")
    # In one pass: what is filled in may contain marks, and they stay what they are.
    return re.sub("|".join(filled), lambda mark: filled[mark[0]], page)


def _board(board: Board, numbers: dict[str, int]) -> dict[str, Any]:
    return {
        "backbone": board.backbone,
        "main": main_columns(board),
        "metrics": all_columns(board),
        "n": len(board.cases),
        "entries": [
            _entry(entry, values, numbers[entry.label])
            for entry, values in zip(board.entries, cells(board), strict=True)
        ],
        "tests": [
            [
                *pair,
                {
                    metric: [_short(t.difference), *map(_short, t.interval), round(t.p, 5), t.n]
                    for metric, t in found.items()
                },
            ]
            for pair, found in all_tests(board).items()
        ],
    }


def _entry(entry: Entry, values: dict[str, Cell], method: int) -> dict[str, Any]:
    row = entry.row
    return {
        "method": method,
        "run": entry.source.name,
        "n": row["n"],
        "wanted": entry.wanted,
        "values": {metric: _value(cell) for metric, cell in values.items()},
        "published": {
            metric: [cell.published.value, cell.published.table]
            for metric, cell in values.items()
            if cell.published is not None
        },
        "share": compared_share(entry),
        "seconds": round(row["seconds"] / row["n"], 5),
        "memory": row.get("memory_mb"),
        "settings": _settings(row.get("settings") or {}),
        "scores": score_histogram(entry),
    }


def _value(cell: Cell) -> list[float | int | None] | None:
    """Value, interval and rank."""
    if cell.value is None:
        return None
    low, high = cell.interval or (None, None)
    return [_short(cell.value), _short(low), _short(high), cell.rank]


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _settings(settings: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """Nested settings as a flat list of name and text."""
    found: list[list[str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            found += _settings(value, f"{name} ")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append([name, text])
    return found


def _picture_notes(pictures: Pictures) -> Sequence[str]:
    notes = []
    if pictures.missing:
        notes.append(
            f"{pictures.missing} pictures were not found where the report was made (--images says "
            "which folder their paths are relative to)"
        )
    if pictures.left_out:
        notes.append(f"{pictures.left_out} pictures were left out to keep this page small")
    return notes
