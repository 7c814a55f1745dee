"""What an evaluation produces: one result per question, per case, and one row per method."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from ..data import EditRecord, ImageLike, Question, Records
from .field_types import check_fields
from .metrics import SUITES, Judged, Suite, summarise
from .scope_metrics import with_scopes

BASE = "base"  # the route of an answer that the unedited model gave


@dataclass
class QuestionResult:
    """One question of a case, as it stands in ``cases.jsonl``.

    ``correct`` is what the question's metric counts, in [0, 1]; ``is_target``, ``is_before`` and
    ``is_edit`` are the three agreements that all metrics are made of (:class:`metrics.Judged`).
    ``route`` is ``"base"`` or the case whose edit answered; ``hard``, ``sort`` and ``routed`` are
    as in :class:`metrics.Judged`.
    """

    kind: str
    text: str
    image: str | None
    target: str
    before: str
    after: str
    correct: float
    is_target: float
    is_before: float
    is_edit: float
    route: str
    score: float | None = None
    hard: bool | None = None
    sort: str = ""
    routed: bool | None = None

    def judged(self) -> Judged:
        """The agreements alone."""
        return Judged(
            self.kind,
            self.is_target,
            self.is_before,
            self.is_edit,
            self.hard,
            self.sort,
            self.routed,
        )


@dataclass
class CaseResult:
    """One evaluated case: what was measured, every question, and every metric in percent.

    ``seconds`` and ``memory_mb`` (:class:`memory.PeakMemory`) are those of editing and of asking
    the edited model. Cases that were evaluated together share the seconds equally. Asking the
    unedited model is not counted.
    """

    case: str
    method: str
    backbone: str
    dataset: str
    protocol: str
    suite: str
    edit: dict[str, Any]
    metrics: dict[str, float | None]
    questions: list[QuestionResult]
    seconds: float = 0.0
    memory_mb: float | None = None

    @property
    def row_key(self) -> tuple[str, str, str, str]:
        """Method, backbone, dataset and protocol: the table row it belongs to."""
        return (self.method, self.backbone, self.dataset, self.protocol)

    def to_json(self) -> dict[str, Any]:
        """The object that becomes one line of ``cases.jsonl``."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> CaseResult:
        """Inverse of :meth:`to_json`.

        Raises:
            TypeError, ValueError: another shape, or a value out of its range; the message names
                the field.
        """
        fields = check_fields(value, _CASE_FIELDS, optional=("seconds", "memory_mb"))
        questions = []
        for number, found in enumerate(fields["questions"], start=1):
            try:
                check_fields(found, _QUESTION_FIELDS, optional=("score", "hard", "sort", "routed"))
                _check_range(found, ("correct", "is_target", "is_before", "is_edit"), 1)
            except (TypeError, ValueError) as error:
                raise type(error)(f"question {number}: {error}") from None
            questions.append(QuestionResult(**found))
        check_fields(fields["edit"], _EDIT_FIELDS, optional=("image",))
        _check_range(fields["metrics"], fields["metrics"], 100)
        if fields["suite"] not in SUITES:
            raise ValueError(f"unknown metric suite {fields['suite']!r}")
        return cls(**{**fields, "questions": questions})


_CASE_FIELDS = {**get_type_hints(CaseResult), "questions": list[Any]}
_QUESTION_FIELDS = get_type_hints(QuestionResult)
_EDIT_FIELDS = {"text": str, "image": str | None, "target": str}


def _check_range(values: Mapping[str, Any], names: Iterable[str], highest: float) -> None:
    for name in names:
        if values[name] is not None and not 0 <= values[name] <= highest:
            raise ValueError(f"field {name} is {values[name]}, not between 0 and {highest}")


@dataclass
class Row:
    """The mean over cases of one method on one backbone and dataset under one protocol."""

    method: str
    backbone: str
    dataset: str
    protocol: str
    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    seconds: float
    suite: str = "fgvedit"
    settings: dict[str, Any] = field(default_factory=dict)
    memory_mb: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The object under ``rows`` in ``summary.json``."""
        return asdict(self)


def check_row(value: Any) -> None:
    """Check a row as it stands in ``summary.json``, where an experiment may have noted more.

    Raises:
        TypeError, ValueError: another shape; the message names the field.
    """
    optional = ("suite", "settings", "memory_mb")
    fields = check_fields(value, _ROW_FIELDS, optional=optional, others=True)
    for name, bounds in fields["intervals"].items():
        if bounds is not None and len(bounds) != 2:
            raise ValueError(f"the interval of {name} is {bounds!r}, not two numbers")


_ROW_FIELDS = get_type_hints(Row)


def make_row(
    cases: Iterable[CaseResult],
    suite: Suite,
    *,
    seed: int = 0,
    samples: int = 1000,
    settings: dict[str, Any] | None = None,
) -> Row:
    """Summarise finished cases of one row; their order does not matter.

    Raises:
        ValueError: there is no case, or they belong to different rows.
    """
    ordered = sorted(cases, key=lambda case: case.case)
    if len({case.row_key for case in ordered}) != 1:
        raise ValueError("a row is made from one or more cases of one method, backbone and dataset")
    suite = with_scopes(suite, (q.judged() for case in ordered for q in case.questions))
    metrics, intervals = summarise(
        suite, [case.metrics for case in ordered], seed=seed, samples=samples
    )
    return Row(
        *ordered[0].row_key,
        n=len(ordered),
        metrics=metrics,
        intervals=intervals,
        seconds=round(sum(case.seconds for case in ordered), 3),
        suite=suite.name,
        settings=settings or {},
        memory_mb=max((c.memory_mb for c in ordered if c.memory_mb is not None), default=None),
    )


def image_name(image: ImageLike) -> str | None:
    """The name of an image in results: its path, or a digest of its pixels."""
    if image is None or isinstance(image, (str, Path)):
        return None if image is None else str(image)
    return f"pixels:{image_digest(image)}"


def image_digest(image: ImageLike) -> str:
    """A short hash of an image's content (a file's bytes, or pixels); ``"none"`` without one."""
    if image is None:
        return "none"
    if isinstance(image, (str, Path)):
        info = Path(image).stat()
        return _file_digest(str(image), info.st_size, info.st_mtime_ns)
    if hasattr(image, "detach"):
        array = image.detach().cpu().contiguous().float().numpy()
        return _hash(str(array.shape).encode() + array.tobytes())
    return _hash(f"{image.size}{image.mode}".encode() + image.tobytes())


@lru_cache(maxsize=65536)
def _file_digest(path: str, size: int, modified: int) -> str:
    return _hash(Path(path).read_bytes())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _bytes(text: str) -> bytes:
    """``text`` in UTF-8; half a surrogate pair, which UTF-8 cannot hold, as if it could."""
    return text.encode("utf-8", "surrogatepass")


def question_key(question: Question, *, with_answer: bool) -> str:
    """What identifies a question for a model; its answer only counts under teacher forcing."""
    parts = [question.text, image_digest(question.image)]
    parts += [question.answer] if with_answer else []
    return _hash(_bytes("\0".join(parts)))


def records_digest(records: Iterable[EditRecord]) -> str:
    """A hash of all texts, answers and image contents of ``records``, in order."""
    whole = hashlib.sha256()
    for record in records:
        whole.update(_bytes(record.case_id))
        for kind, questions in record.questions().items():
            for question in questions:
                whole.update(f"{kind}\0{question_key(question, with_answer=True)}".encode())
    return whole.hexdigest()[:16]


def records_identity(records: Records) -> dict[str, Any]:
    """Name, number and digest of records: what identifies them in a run's configuration."""
    digest = records_digest(records.records)
    return {"name": records.name, "n": len(records.records), "digest": digest}
