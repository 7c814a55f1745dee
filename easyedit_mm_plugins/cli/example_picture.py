"""``example.png``: one scene, its edit, and the answers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from ..core.files import atomic_path
from ..data import EditRecord, open_image
from .before_after import Line

INK, MUTED, GOOD, BAD = "#1f2430", "#6b7280", "#15803d", "#b91c1c"


def draw_example(path: Path, record: EditRecord, lines: Sequence[Line], subtitle: str) -> None:
    """Draw ``path`` as a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    height = 1.6 + 0.42 * len(lines)
    figure = pyplot.figure(figsize=(11.5, height), dpi=130, facecolor="white")
    scene = figure.add_axes((0.015, 0.07, 0.30, 0.74))
    scene.imshow(open_image(record.edit.image), interpolation="nearest")
    scene.set_axis_off()
    edit = f"{fill(record.edit.text, 44)}\n→ {record.edit.answer}"
    figure.text(0.015, 0.965, edit, fontsize=11, weight="bold", color=INK, va="top")
    figure.text(0.015, 0.025, subtitle, fontsize=9, color=MUTED)
    sheet = figure.add_axes((0.335, 0.0, 0.655, 1.0))
    sheet.set_axis_off()
    sheet.set_xlim(0, 1)
    sheet.set_ylim(0, height)
    top = height - 0.45
    columns = (0.0, 0.125, 0.565, 0.71, 0.855)
    for x, text in zip(columns, ("", "question", "before", "after", "answered by"), strict=True):
        sheet.text(x, top, text, fontsize=10, color=MUTED, va="center")
    sheet.plot((0, 1), (top - 0.24,) * 2, color="#d1d5db", linewidth=1)
    for number, line in enumerate(lines):
        y = top - 0.52 - 0.42 * number
        changed = line.after != line.before
        color = {None: INK, True: GOOD, False: BAD}[line.right]
        sheet.text(columns[0], y, line.note, fontsize=9, color=MUTED, va="center")
        question = fill(line.question.text, 46)
        size = 8.5 if "\n" in question else 10
        sheet.text(columns[1], y, question, fontsize=size, color=INK, va="center")
        sheet.text(columns[2], y, _fit(line.before, 13), fontsize=10, color=INK, va="center")
        weight = "bold" if changed else "normal"
        sheet.text(
            columns[3],
            y,
            _fit(line.after, 13),
            fontsize=10,
            color=color,
            va="center",
            weight=weight,
        )
        by = "base" if line.route is None else "the edit"
        score = "" if line.score is None else f" {line.score:.2f}"
        sheet.text(columns[4], y, by + score, fontsize=9, color=MUTED, va="center")
    foot = "green: as it should be (in scope the new answer, elsewhere the old one); red: not so"
    sheet.text(0, 0.22, foot, fontsize=8.5, color=MUTED, va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)


def _fit(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
