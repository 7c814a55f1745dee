"""The report's tables for a paper: LaTeX with booktabs, in the layout of the papers' tables."""

from __future__ import annotations

from collections.abc import Sequence

from .compare import SAMPLES
from .layout import (
    Cell,
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

_MARKS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def escape(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return "".join(_MARKS.get(char, char) for char in " ".join(str(text).split()))


def write_latex(report: Report, title: str) -> str:
    """A file to ``\\input``: needs ``\\usepackage{booktabs}``, and graphicx for wide tables."""
    parts = [
        f"% {' '.join(title.split())}",
        "% needs \\usepackage{booktabs,graphicx}; every figure comes from the runs named here:",
    ]
    for line in run_line(report):
        about = (
            f"{line['name']}: {line['path']}, {line['started']} UTC, {line['hardware']}, "
            f"commit {line['commit']}"
        )
        parts.append(f"%   {' '.join(about.split())}")  # one line: the next would be LaTeX
    for boards in tables(report):
        parts.append(_main(boards))
        parts += [_intervals(board) for board in boards]
    return "\n".join(parts) + "\n"


def _main(boards: Sequence[Board]) -> str:
    """Methods down, backbones and metrics across; the paper's number in brackets."""
    groups = [(board, main_columns(board)) for board in boards]
    width = sum(len(metrics) for _, metrics in groups)
    spans, rules, at = [], [], 2
    for board, metrics in groups:
        spans.append(f"\\multicolumn{{{len(metrics)}}}{{c}}{{{escape(board.backbone)}}}")
        rules.append(f"\\cmidrule(lr){{{at}-{at + len(metrics) - 1}}}")
        at += len(metrics)
    heads = [heading(m, short=True) for _, metrics in groups for m in metrics]
    by_board = [dict(zip([e.label for e in b.entries], cells(b), strict=True)) for b in boards]
    lines = []
    for _, label in methods_of(boards):
        row = []
        for (_, metrics), values in zip(groups, by_board, strict=True):
            found = values.get(label, {})
            row += [_shown(found[m]) if m in found else "--" for m in metrics]
        lines.append(f"{escape(label)} & {' & '.join(row)} \\\\")
    caption = (
        f"{_where(boards)}. Percent, mean over cases; best in bold, second best underlined, the "
        "unedited model aside."
    )
    shares = [compared_share(entry) for board in boards for entry in board.entries]
    if any(shares):
        named = "; ".join(dict.fromkeys(escape(share) for share in shares if share))
        caption += f" In brackets the paper's number and the difference to it; here: {named}."
    body = [
        " & ".join(["", *spans]) + " \\\\",
        " ".join(rules),
        " & ".join(["", *heads]) + " \\\\",
        "\\midrule",
        *lines,
    ]
    return _wrap(caption, "l" + "r" * width, body)


def _intervals(board: Board) -> str:
    """One backbone: values with intervals, and p against the best of the column."""
    metrics = main_columns(board)
    lines = []
    for entry, values, tests in zip(
        board.entries, cells(board), tests_against_best(board), strict=True
    ):
        row = []
        for metric in metrics:
            cell = values[metric]
            text = _mark(cell, number(cell.value))
            if cell.interval:
                low, high = (number(bound) for bound in cell.interval)
                text += f" {{\\scriptsize [{low}, {high}]}}"
            if metric in tests:
                p = p_text(tests[metric].p).replace("<", "$<$")
                text += f" {{\\scriptsize p {p}}}"
            row.append(text)
        lines.append(f"{escape(entry.label)} & {' & '.join(row)} \\\\")
    caption = (
        f"{escape(board.backbone)}, {_where([board])}: 95\\,\\% bootstrap intervals over cases; p: "
        f"paired sign-flip permutation test ({SAMPLES:,} flips) against the best of the column, "
        "Holm-corrected."
    )
    head = " & ".join(["", *(heading(m) for m in metrics)]) + " \\\\"
    return _wrap(caption, "l" + "l" * len(metrics), [head, "\\midrule", *lines])


def _where(boards: Sequence[Board]) -> str:
    counts = sorted({entry.row["n"] for board in boards for entry in board.entries})
    cases = " to ".join(str(n) for n in (counts[0], counts[-1])[: len(counts)])
    runs = dict.fromkeys(e.source.name for board in boards for e in board.entries)
    from_runs = ", ".join(f"\\texttt{{{escape(name)}}}" for name in runs)
    place = f"{escape(boards[0].dataset or 'records')}, {cases} cases, {escape(boards[0].protocol)}"
    return f"{place}, from {from_runs}"


def _mark(cell: Cell, text: str) -> str:
    if cell.rank is None:
        return text
    return f"\\textbf{{{text}}}" if cell.rank == 1 else f"\\underline{{{text}}}"


def _shown(cell: Cell) -> str:
    if cell.value is None:
        return "--"
    text = _mark(cell, number(cell.value))
    if cell.published is not None:
        change = number(cell.difference, signed=True).replace("-", "$-$")
        text += f" {{\\scriptsize ({cell.published.value:.2f}, {change})}}"
    return text


def _wrap(caption: str, columns: str, body: Sequence[str]) -> str:
    return "\n".join(
        [
            "",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{caption}}}",
            "\\resizebox{\\linewidth}{!}{%",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            *body,
            "\\bottomrule",
            "\\end{tabular}}",
            "\\end{table}",
        ]
    )
