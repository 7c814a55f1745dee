"""Edits from a CSV file, one a line.

Columns: ``picture``, ``question``, ``answer`` (the new one), ``reworded``, ``in_question``,
``in_answer``, ``out_question``, ``out_answer``, ``text_question``, ``text_answer``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from easyedit_mm_plugins.core.errors import DataError
from easyedit_mm_plugins.data import DatasetEntry, EditRecord, Question

COLUMNS = (
    "picture question answer reworded in_question in_answer out_question out_answer "
    "text_question text_answer"
).split()


class CSVEdits:
    """A sequence of records.

    Args:
        path: the file.
        size: keep the first ``size`` records only.
        image_root: folder that pictures are relative to; by default the file's own.
        skip_bad: leave bad lines out, listed in ``skipped``, instead of raising.

    Raises:
        DataError: naming file, line and column.
    """

    def __init__(
        self,
        path: str | Path,
        size: int | None = None,
        *,
        image_root: str | Path | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.path = Path(path)
        self.root = Path(image_root) if image_root else self.path.parent
        self.records: list[EditRecord] = []
        self.skipped: list[str] = []
        with self.path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                if len(self.records) == size:
                    break
                try:
                    self.records.append(self._record(number, row))
                except DataError as error:
                    if not skip_bad:
                        raise
                    self.skipped.append(str(error))

    def _record(self, number: int, row: dict[str, str]) -> EditRecord:
        for column in COLUMNS:
            if not (row.get(column) or "").strip():
                raise DataError(
                    "is empty", file=self.path, record=f"line {number + 2}", field=column
                )
        picture = self.root / row["picture"]
        if not picture.is_file():
            raise DataError(
                f"image not found: {picture}",
                file=self.path,
                record=f"line {number + 2}",
                field="picture",
            )
        edit = Question(row["question"], picture, row["answer"])
        return EditRecord(
            case_id=f"line-{number + 2}",
            edit=edit,
            rephrase=(Question(row["reworded"], picture, row["answer"]),),
            in_scope=(Question(row["in_question"], picture, row["in_answer"]),),
            out_scope=(Question(row["out_question"], picture, row["out_answer"]),),
            text_loc=(Question(row["text_question"], None, row["text_answer"]),),
        )

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[EditRecord]:
        return iter(self.records)


ENTRY = DatasetEntry(
    name="csv-edits", title="edits in a CSV file", reader=CSVEdits, suite="fgvedit"
)
