"""The contents of tables: columns in the papers' order, ranks, and the papers' own figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ..backbones.entries import BACKBONES
from ..data.entries import DATASETS
from ..papers.published import Published, content, find
from .compare import Paired, holm, paired_tests
from .sources import UNEDITED, Board, Entry, Report, method_place

# The columns of MSCKE's table 1 and DualEdit's table 2; the suites know more metrics.
PAPER_COLUMNS = {
    "fgvedit": ("reliability", "locality", "generality", "specificity"),
    "evqa": ("reliability", "t_gen", "v_gen", "t_loc", "m_loc", "average"),
}
HEADINGS = {
    "reliability": "Reliability",
    "generality": "Generality",
    "generality_target": "Generality (target)",
    "locality": "Locality",
    "specificity": "Specificity",
    "specificity_in": "Specificity, in scope",
    "specificity_out": "Specificity, out of scope",
    "t_gen": "T-Gen.",
    "v_gen": "V-Gen.",
    "t_loc": "T-Loc.",
    "m_loc": "M-Loc.",
    "average": "Average",
}
SHORT = {"reliability": "Rel.", "generality": "Gen.", "locality": "Loc.", "specificity": "Spec."}
DECIMALS = 1

_MAIN_TABLES = {"fgvedit": "mscke-table1", "e-vqa": "dualedit-table2", "e-ic": "dualedit-table2"}


@dataclass(frozen=True)
class Cell:
    """A value of a table.

    Attributes:
        rank: 1 best, 2 second best of its column, by what is shown (there is no second where two
            share the first place); ``None`` further down, and for the unedited model, which is no
            competitor.
        published: the paper's number, where backbone and data are the paper's.
    """

    value: float | None
    interval: tuple[float, float] | None
    rank: int | None = None
    published: Published | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        if self.value is None or self.published is None:
            return None
        return self.value - self.published.value


def heading(metric: str, *, short: bool = False) -> str:
    """A metric's name for people."""
    full = HEADINGS.get(metric, metric.replace("_", " ").capitalize())
    return SHORT.get(metric, full) if short else full


def main_columns(board: Board) -> list[str]:
    """The metrics of the paper's table."""
    return list(PAPER_COLUMNS.get(board.suite.name, board.suite.columns or board.suite.names))


def all_columns(board: Board) -> list[str]:
    """The paper's metrics first, then the others of the suite."""
    return list(dict.fromkeys([*main_columns(board), *board.suite.names]))


def cells(board: Board) -> list[dict[str, Cell]]:
    """For each entry of ``board`` a cell per metric."""
    table: list[dict[str, Cell]] = [{} for _ in board.entries]
    for metric in all_columns(board):
        values = [entry.row["metrics"].get(metric) for entry in board.entries]
        shown = [
            None if value is None or entry.method == UNEDITED else round(value, DECIMALS)
            for value, entry in zip(values, board.entries, strict=True)
        ]
        rivals = [value for value in shown if value is not None]
        for at, entry in enumerate(board.entries):
            bounds = (entry.row.get("intervals") or {}).get(metric)
            own = shown[at]
            rank = None if own is None else 1 + sum(value > own for value in rivals)
            table[at][metric] = Cell(
                values[at],
                tuple(bounds) if bounds else None,
                rank if rank is not None and rank <= 2 and len(rivals) > 1 else None,
                published_for(entry, metric),
            )
    return table


def paper_place(entry: Entry) -> tuple[str, str] | None:
    """The paper's names of the backbone and data set of ``entry``; ``None`` if it used others.

    The backbone must have the name and the size of the paper's, the data set the name of the
    released file and no more cases than that file.
    """
    name = entry.row["backbone"]
    model = BACKBONES.get(name) if name in BACKBONES else None
    backbone, size = (model.paper, model.parameters) if model else (None, 0.0)
    released = (d.paper for d in DATASETS if entry.row["dataset"] in d.released)
    dataset = next(released, None)
    facts = entry.source.run.backbones.get(entry.row["backbone"]) or {}
    if backbone is None or dataset is None or (facts.get("parameters") or 0) < size:
        return None
    if (entry.wanted or entry.row["n"]) > content()["datasets"][dataset]["cases"]:
        return None
    return backbone, dataset


def published_for(entry: Entry, metric: str) -> Published | None:
    """The number in the paper's main table for the same method, backbone and data, if any."""
    place = paper_place(entry)
    if place is None or metric not in {number.metric for number in find(_MAIN_TABLES[place[1]])}:
        return None
    known = {number.method for number in find(_MAIN_TABLES[place[1]])}
    if entry.method not in known:
        return None
    found = find(
        _MAIN_TABLES[place[1]],
        backbone=place[0],
        dataset=place[1],
        method=entry.method,
        metric=metric,
    )
    return found[0] if found else None


def compared_share(entry: Entry) -> str | None:
    """A note below a table: which part of the published test set ``entry`` was measured on."""
    place = paper_place(entry)
    if place is None:
        return None
    dataset = content()["datasets"][place[1]]
    n, whole = entry.row["n"], dataset["cases"]
    part = f"all {whole:,}" if n == whole else f"{n:,} of {whole:,}"
    return f"{part} cases of {dataset['title']}"


@dataclass(frozen=True)
class AgainstBest:
    """One method compared with the best of a column; ``p`` is Holm-corrected over the column."""

    best: int
    test: Paired
    p: float


def all_tests(board: Board) -> dict[tuple[int, int], dict[str, Paired]]:
    """Every pair of entries, the earlier minus the later; the same for all forms of the report."""
    if board.tests is None:
        cases = [
            {name: case.metrics for name, case in entry.cases.items()} for entry in board.entries
        ]
        pairs = list(combinations(range(len(board.entries)), 2))
        board.tests = paired_tests(board.suite, cases, pairs)
    return board.tests


def tests_against_best(board: Board) -> list[dict[str, AgainstBest]]:
    """Every method but the unedited model, compared with the best one of each main column.

    Where several share the first place, the first of them counts as the best.
    """
    found: list[dict[str, AgainstBest]] = [{} for _ in board.entries]
    table = cells(board)
    rivals = [i for i, entry in enumerate(board.entries) if entry.method != UNEDITED]
    best = {}
    for metric in main_columns(board):
        leaders = [i for i in rivals if table[i][metric].rank == 1]
        if leaders:
            best[metric] = max(leaders, key=lambda i: (table[i][metric].value or 0.0, -i))
    tests = all_tests(board)
    for metric, leader in best.items():
        known = {}
        for i in rivals:
            test = tests.get((min(i, leader), max(i, leader)), {}).get(metric)
            if test is not None:
                known[i] = test if i < leader else test.swapped()
        corrected = holm([test.p for test in known.values()])
        for (i, test), p in zip(known.items(), corrected, strict=True):
            found[i][metric] = AgainstBest(leader, test, p)
    return found


def tables(report: Report) -> list[list[Board]]:
    """Boards that share a table in the papers' layout: same data set, metrics and protocol."""
    grouped: dict[tuple[str, str, str], list[Board]] = {}
    for board in report.boards:
        grouped.setdefault((board.dataset, board.suite.name, board.protocol), []).append(board)
    return list(grouped.values())


def methods_of(boards: Sequence[Board]) -> list[tuple[str, str]]:
    """Method and label of every row of a table over ``boards``, in order."""
    keys = dict.fromkeys((e.method, e.label) for board in boards for e in board.entries)
    return sorted(keys, key=lambda key: method_place(key[0]))


def number(value: float | None, *, signed: bool = False) -> str:
    """A value in percent as tables show it; a dash for what was not measured."""
    if value is None:
        return "-"
    shown = round(value, DECIMALS) + 0.0  # no "-0.0"
    return f"{shown:+.{DECIMALS}f}" if signed else f"{shown:.{DECIMALS}f}"


def p_text(p: float) -> str:
    """A p-value in few characters."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def run_line(report: Report) -> list[dict[str, Any]]:
    """Where the figures of each run come from: folder, date, hardware, commit, seed, cases."""
    from ..core.environment import hardware_line

    lines = []
    for source in report.sources:
        env = source.environment
        commit = str(env.get("git_commit") or "")
        lines.append(
            {
                "name": source.name,
                "path": source.path.as_posix(),
                "started": str(env.get("started", ""))[:16].replace("T", " "),
                "hardware": hardware_line(env) if env else "unknown",
                "commit": (commit[:12] + ("-dirty" if commit.endswith("-dirty") else ""))
                if commit
                else "unknown",
                "seed": env.get("seed"),
                "cases": {name: d.get("n") for name, d in source.datasets.items()},
            }
        )
    return lines
