"""The report as Markdown: the papers' layout first, then every figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.tables import PROTOCOL_TEXT
from .compare import SAMPLES
from .layout import (
    Cell,
    all_columns,
    cells,
    compared_share,
    heading,
    main_columns,
    methods_of,
    number,
    p_text,
    run_line,
    tables,
    tests_against_best,
)
from .sources import Board, Report


def write_markdown(report: Report, title: str) -> str:
    """The whole report; every section names the runs that its figures come from."""
    parts = [f"# {escape(title)}", _runs(report)]
    for boards in tables(report):
        parts += [f"## {_where(boards[0])}", _paper_layout(boards), _from_runs(boards)]
        for board in boards:
            parts.append(f"### {escape(board.backbone)}, {_where(board)}")
            parts += [_details(board), *_published(board), *_tests(board), *_cost(board)]
    parts += _missing(report)
    parts += ["## How to read it", _legend(report)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """``text`` for a table cell, with Markdown's and HTML's marks escaped."""
    text = " ".join(str(text).split())
    for mark in "\\`*_{}[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text


def code(text: str) -> str:
    """``text`` as code in a table cell, without the marks that would end the code or the cell."""
    return f"`{' '.join(str(text).split()).replace('`', ' ').replace('|', '/')}`"


def _where(board: Board) -> str:
    return f"{escape(board.dataset or 'records')} ({escape(board.protocol)})"


def _shown(cell: Cell, *, interval: bool = False) -> str:
    text = number(cell.value)
    if cell.rank is not None:
        text = f"**{text}**" if cell.rank == 1 else f"<u>{text}</u>"
    if interval and cell.interval:
        text += f" <sub>{number(cell.interval[0])} to {number(cell.interval[1])}</sub>"
    return text


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _paper_layout(boards: Sequence[Board]) -> str:
    """Methods down, backbones and metrics across, as MSCKE's table 1 and DualEdit's table 2."""
    head, columns = ["method"], []
    for board in boards:
        for metric in main_columns(board):
            head.append(f"{escape(board.backbone)} {heading(metric, short=True)}")
            columns.append((board, metric))
    values = [dict(zip([e.label for e in b.entries], cells(b), strict=True)) for b in boards]
    by_board = dict(zip([id(b) for b in boards], values, strict=True))
    rows = []
    for _, label in methods_of(boards):
        found = [by_board[id(board)].get(label, {}).get(metric) for board, metric in columns]
        rows.append([escape(label), *(_shown(cell) if cell else "-" for cell in found)])
    return _table(head, rows)


def _from_runs(boards: Sequence[Board]) -> str:
    entries = [entry for board in boards for entry in board.entries]
    paths = dict.fromkeys(code(entry.source.path.as_posix()) for entry in entries)
    return f"From {', '.join(paths)}."


def _details(board: Board) -> str:
    metrics = all_columns(board)
    head = ["method", *(heading(metric) for metric in metrics), "cases", "run"]
    rows = [
        [
            escape(entry.label),
            *(_shown(values[metric], interval=True) for metric in metrics),
            str(entry.row["n"]),
            escape(entry.source.name),
        ]
        for entry, values in zip(board.entries, cells(board), strict=True)
    ]
    return _table(head, rows)


def _published(board: Board) -> list[str]:
    """Our figures beside the paper's, where backbone and data are the paper's."""
    found = [
        (entry, metric, cell)
        for entry, values in zip(board.entries, cells(board), strict=True)
        for metric, cell in values.items()
        if cell.published is not None
    ]
    if not found:
        return []
    rows = []
    for entry, metric, cell in found:
        origin = cell.published.table.replace("-", ", ")  # type: ignore[union-attr]
        paper = f"{cell.published.value:.2f}"  # type: ignore[union-attr]
        difference = number(cell.difference, signed=True)
        rows.append(
            [escape(entry.label), heading(metric), number(cell.value), paper, difference, origin]
        )
    share = "; ".join(dict.fromkeys(filter(None, (compared_share(e) for e, _, _ in found))))
    head = ["method", "metric", "here", "paper", "here - paper", "table"]
    note = (
        f"Measured here on {share}, protocol {escape(board.protocol)}; the papers read answers "
        "under teacher forcing."
    )
    return [_table(head, rows), note]


def _tests(board: Board) -> list[str]:
    tests = tests_against_best(board)
    if not any(tests):
        return []
    metrics = main_columns(board)
    rows = []
    for entry, values, found in zip(board.entries, cells(board), tests, strict=True):
        if found:
            texts = []
            for metric in metrics:
                test = found.get(metric)
                if test is None:
                    texts.append("best" if values[metric].rank == 1 else "-")
                elif test.test.difference == 0 and test.p == 1:
                    texts.append("tied")
                else:
                    change = number(test.test.difference, signed=True)
                    texts.append(f"{change} (p {p_text(test.p)})")
            rows.append([escape(entry.label), *texts])
    head = ["against the best", *(heading(metric) for metric in metrics)]
    return [_table(head, rows)]


def _cost(board: Board) -> list[str]:
    rows = []
    for entry in board.entries:
        memory = entry.row.get("memory_mb")
        rows.append(
            [
                escape(entry.label),
                f"{entry.row['seconds'] / entry.row['n']:.3f}",
                "-" if memory is None else f"{memory:,.0f}",
            ]
        )
    return [_table(["method", "s per case", "peak memory, MB"], rows)]


def _runs(report: Report) -> str:
    rows = []
    for line in run_line(report):
        cases = ", ".join(f"{n} of {name}" for name, n in line["cases"].items())
        path, commit = code(line["path"]), code(line["commit"])
        started, hardware = escape(line["started"]), escape(line["hardware"])
        rows.append([escape(line["name"]), path, started, escape(cases), hardware, commit])
    return _table(["run", "folder", "started (UTC)", "cases", "on", "commit"], rows)


def _missing(report: Report) -> list[str]:
    parts = []
    if report.missing:
        rows = [
            [
                escape(row[key])
                for key in ("method", "backbone", "dataset", "status", "reason", "run")
            ]
            for row in report.missing
        ]
        head = ["method", "backbone", "data", "", "why", "run"]
        parts += ["## Not completely measured", _table(head, rows)]
    if report.notes:
        parts += ["## Notes on the runs", "\n".join(f"- {escape(note)}" for note in report.notes)]
    return parts


def _legend(report: Report) -> str:
    source = report.sources[0]
    samples = source.protocol.get("bootstrap", 1000)
    lines = [
        "Percent, mean over cases. **Best** and <u>second best</u> of each column by the value "
        "shown; the unedited model is no competitor. Small print: 95 % percentile bootstrap "
        f"interval over cases, {samples} resamples.",
        "Against the best: difference to the best method of the column in points, and p of a "
        f"two-sided paired sign-flip permutation test over the common cases ({SAMPLES:,} flips), "
        "Holm-corrected over the column.",
        "Seconds per case: making the edit and answering the case's questions, the unedited "
        "model's answers not counted; the processes of a run share the machine. Peak memory: of "
        "the process (on a GPU: allocated there), base model included.",
    ]
    for name in dict.fromkeys(board.protocol for board in report.boards):
        lines.append(f"Protocol {escape(name)}: {PROTOCOL_TEXT.get(name, 'unknown here')}.")
    return "\n".join(f"- {line}" for line in lines)
