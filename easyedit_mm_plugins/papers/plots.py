"""Figures as PNG and their data as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..core.console import CONSOLE
from ..core.files import atomic_path, write_text


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A CSV file, whole or not at all; floats with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    write_text(path, text.getvalue())


def draw(
    path: Path,
    paint: Callable[[Any, Any], None],
    *,
    size: tuple[float, float],
    rows: int = 1,
    columns: int = 1,
) -> Path | None:
    """A PNG with ``rows`` times ``columns`` axes; ``None`` where matplotlib is missing.

    Args:
        paint: called with the figure and its axes, row by row in one sequence.
    """
    try:
        import matplotlib
    except ImportError:
        CONSOLE.print("[yellow]note[/] no picture: matplotlib is not installed")
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        rows, columns, figsize=size, dpi=130, squeeze=False, layout="constrained"
    )
    paint(figure, axes.flatten())
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)
    return path
