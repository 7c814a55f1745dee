"""A table of measured figures: from rows to Markdown, and into a document."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.report.layout import HEADINGS, heading
from easyedit_mm_plugins.report.markdown import code, escape
from easyedit_mm_plugins.report.sources import UNEDITED, method_title

Row = Mapping[str, Any]
_MARKED = re.compile(r"<!-- table: ([\w-]+) -->\n.*?<!-- end of table -->", re.S)
_ENV = ("torch", "transformers")


@dataclass(frozen=True)
class Column:
    """A column, or with labels ``across`` one for each of them.

    Attributes:
        metric: its key in the rows. ``a|b``: the first that some row has.
        title: its heading; by default the report's.
        interval: show the 95 % interval that the row holds.
        beside: metrics, ``|`` between alternatives, that follow in brackets.
        best: print the best value in bold; the unedited model and attackers do not compete.
        unit: stands behind every value.
    """

    metric: str
    title: str | None = None
    interval: bool = False
    beside: Sequence[str] = ()
    best: bool = False
    decimals: int = 1
    unit: str = ""

    def known(self, rows: Sequence[Row]) -> Column | None:
        """This column with one name for each metric; ``None`` where no row has it."""
        metric = _first(self.metric, rows)
        if metric is None:
            return None
        beside = tuple(name for text in self.beside if (name := _first(text, rows)))
        return replace(self, metric=metric, beside=beside)

    @property
    def heading(self) -> str:
        """What stands above it."""
        return heading(self.metric) if self.title is None else self.title

    def text(self, row: Row | None, *, best: bool = False) -> str:
        """The cell of ``row``."""
        value = None if row is None else row.get(self.metric)
        if row is None or value is None:
            return ""
        text = _number(value, self.decimals) + self.unit
        text = f"**{text}**" if best else text
        bounds = (row.get("intervals") or {}).get(self.metric) if self.interval else None
        beside = [_number(row[name], self.decimals) for name in self.beside if name in row]
        if bounds:
            beside.append(" to ".join(_number(bound, self.decimals) for bound in bounds))
        return f"{text} ({', '.join(beside)})" if beside else text


@dataclass(frozen=True)
class Table:
    """How a document shows the rows of a source.

    Attributes:
        source: name of the source, and of its file in ``docs/figures``.
        down: labels that tell lines apart; one that repeats is printed once.
        across: label whose values become columns.
        columns: of each line; none: every metric that the rows have.
        where: only rows for which this holds.
        more: rows that stand elsewhere, such as a paper's numbers.
        names: what a label's value is called; without: its title if it is a method.
        heads: headings of the labels, empty by default.
        flipped: lines as columns.
    """

    source: str
    down: Sequence[str]
    columns: Sequence[Column] = ()
    across: str | None = None
    where: Callable[[Row], bool] = lambda row: True
    more: Callable[[Sequence[Row]], Sequence[Row]] = lambda rows: ()
    names: Mapping[Any, str] = field(default_factory=dict)
    heads: Sequence[str] = ()
    flipped: bool = False

    def markdown(self, rows: Sequence[Row]) -> str:
        """The table.

        Raises:
            ConfigError: nothing is left to show, or two rows claim one cell.
        """
        rows = [row for row in rows if self.where(row)]
        wanted = self.columns or [Column(name) for name in _metrics(rows)]
        columns = [found for column in wanted if (found := column.known(rows))]
        if not rows or not columns:
            raise ConfigError(f"no row of {self.source} has a figure for this table")
        rows = [*rows, *self.more(rows)]
        placed: dict[tuple, Row] = {}
        for row in rows:
            place = (*(row.get(key) for key in self.down), row.get(self.across or ""))
            if placed.setdefault(place, row) is not row:
                raise ConfigError(f"two rows of {self.source} are {place}")
        lines = list(dict.fromkeys(place[:-1] for place in placed))
        firsts = list(dict.fromkeys(line[0] for line in lines))
        lines.sort(key=lambda line: firsts.index(line[0]))  # lines of one label stand together
        groups = list(dict.fromkeys(place[-1] for place in placed))
        pairs = [(column, group) for column in columns for group in groups]
        pairs = [
            (column, group)
            for column, group in pairs
            if any(placed.get((*line, group), {}).get(column.metric) is not None for line in lines)
        ]
        heads = self._heads(pairs, columns)
        body, before = [], (None,) * len(self.down)
        for line in lines:
            cells = [
                column.text(
                    placed.get((*line, group)),
                    best=column.best and _is_best(column, group, line, placed),
                )
                for column, group in pairs
            ]
            if not any(cells):
                continue
            labels = [self.name(key, v) for key, v in zip(self.down, line, strict=True)]
            if not self.flipped:
                labels = _unrepeated(labels, line, before)
            before = line
            body.append([*labels, *cells])
        count = len(self.down)
        if self.flipped:
            labels = [", ".join(filter(None, line[:count])) for line in body]
            turned = [list(line) for line in zip(*(b[count:] for b in body), strict=True)]
            body = [[name, *line] for name, line in zip(heads[count:], turned, strict=True)]
            heads, count = ["", *labels], 1
        rule = ["---"] * count + ["---:"] * (len(heads) - count)
        return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *body])

    def name(self, key: str, value: Any) -> str:
        """A label as the table shows it."""
        if value is None:
            return ""
        if value in self.names:
            return self.names[value]
        if key == "backbone":
            return code(value) if " " not in str(value) else escape(value)
        if key == "method":
            return escape(method_title(str(value)))
        return _number(value, 1) if not isinstance(value, str) else escape(value)

    def _heads(self, pairs: Sequence[tuple[Column, Any]], columns: Sequence[Column]) -> list[str]:
        first = [*self.heads, *[""] * (len(self.down) - len(self.heads))]
        if self.across is None:
            return [*first, *(column.heading for column, _ in pairs)]
        names = [(c.heading, self.name(self.across, group)) for c, group in pairs]
        alone = len(columns) == 1
        return [*first, *(group if alone else f"{title}: {group}" for title, group in names)]


def caption(figures: Mapping[str, Any]) -> str:
    """What the figures of a file are: cases, protocol, machine, day, commit and command."""
    about = figures["measured"]
    versions = [f"{name} {about[name]}" for name in _ENV if about.get(name)]
    counts = sorted({row["n"] for row in figures["rows"] if row.get("n")})
    cases = " to ".join(f"{n:,}" for n in (counts[0], counts[-1])[: len(counts)]) if counts else ""
    facts = [
        f"{cases} cases" if cases else "",
        f"protocol `{about['protocol']}`" if about.get("protocol") else "",
        f"seed {about['seed']}" if about.get("seed") is not None else "",
        about.get("dtype") or "",
        about.get("hardware") or "",
        f"Python {about['python']}" if about.get("python") else "",
        *versions,
    ]
    told = "; ".join([", ".join(filter(None, facts)), *filter(None, [about.get("note")])])
    made = f"`make standing ARGS={figures['name']}`"
    when = f"{about['date']} at `{about['commit']}`"
    if figures["source"] == "transcribed":
        return (
            f"*First edition of the exam: entered by hand, measured {when}, to be made again by "
            f"{made}. {told[:1].upper()}{told[1:]}.*"
        )
    return f"*{told[:1].upper()}{told[1:]}; measured {when} by {made}.*"


def tables_in(text: str) -> list[str]:
    """The names of the tables that a document has a place for."""
    return [found[1] for found in _MARKED.finditer(text)]


def fill(text: str, made: Callable[[str], str]) -> str:
    """A document with every marked table written anew."""

    def block(found: re.Match[str]) -> str:
        name = found[1]
        return f"<!-- table: {name} -->\n{made(name)}\n<!-- end of table -->"

    return _MARKED.sub(block, text)


def _unrepeated(labels: Sequence[str], line: tuple, before: tuple) -> list[str]:
    """Labels but those that the line before has as well, the last one always."""
    same = 0
    while same < len(line) - 1 and line[same] == before[same]:
        same += 1
    return [*[""] * same, *labels[same:]]


def _first(text: str, rows: Sequence[Row]) -> str | None:
    for name in text.split("|"):
        if any(row.get(name) is not None for row in rows):
            return name
    return None


def _metrics(rows: Sequence[Row]) -> list[str]:
    """Every metric of the rows: those that the report knows in its order, then the others."""
    found = dict.fromkeys(k for row in rows for k, value in row.items() if _is_metric(value))
    known = [name for name in HEADINGS if name in found]
    return [*known, *(name for name in found if name not in known)]


def _is_metric(value: Any) -> bool:
    return isinstance(value, float)  # whole numbers are labels and counts


def _number(value: Any, decimals: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # no "-0.0"


def _competes(method: Any) -> bool:
    """Whether a row can be the best: not the unedited model, which changes nothing, nor an
    attacker, which shows how far an exam can be passed."""
    known = method is not None and method in METHODS
    return method != UNEDITED and not (known and METHODS.get(method).kind == "attacker")


def _is_best(column: Column, group: Any, line: tuple, placed: Mapping[tuple, Row]) -> bool:
    """Whether no other line of this column, under the same first label, shows a higher value."""
    shown = {}
    for place, row in placed.items():
        same = len(line) == 1 or place[0] == line[0]
        rival = _competes(row.get("method")) and row.get(column.metric) is not None
        if same and rival and place[-1] == group:
            shown[place] = round(row[column.metric], column.decimals)
    own = shown.get((*line, group))
    return own is not None and len(shown) > 1 and own == max(shown.values())
