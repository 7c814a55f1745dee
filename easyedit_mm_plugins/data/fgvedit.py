"""FGVEdit records from disk, in the schema of the released files.

One record has ``src`` (the edit's question), ``alt`` (the new answer), ``rephrase``, ``image``,
``fg_gen_q``/``fg_gen_a`` (in visual scope: question and its right answer after the edit),
``fg_loc_q``/``fg_loc_a`` (out of visual scope, same image) and ``loc``/``loc_ans`` (text only).
``src``, ``alt`` and the images are one string each, the others a string or a list. Optional:
``image_rephrase``, ``m_loc``, ``m_loc_q``, ``m_loc_a`` (as in E-VQA), ``case_id`` (text or a whole
number; by default the record's position), and ``fg_extra`` with further scope questions as
``{"in": [{"q": ..., "a": ...}], "out": [...]}``, which training may use and evaluation does not
unless asked to. Each of these may say whether it is ``"hard"`` (its text alone does not tell the
scope) and of which ``"kind"`` (a text of the data set's own, such as "relation"). ``fg_gen_q`` and
``fg_loc_q`` are hard unless ``fg_gen_hard`` or ``fg_loc_hard`` is false; ``fg_gen_kind`` and
``fg_loc_kind`` say of which kind they are. ``pair`` (text) names the two records that have the same
texts and swapped scopes. ``image_far`` is a picture of the same things that differs more than
``image_rephrase``, ``m_loc_near`` (with ``m_loc_near_q``, ``m_loc_near_a``) one in which a single
thing differs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ..core.errors import DataError
from ..core.text import text_problem
from .images import check_images, image_path
from .record_files import read_list
from .records import EditRecord, Question

LOG = logging.getLogger(__name__)

_PAIRS = (("fg_gen_q", "fg_gen_a"), ("fg_loc_q", "fg_loc_a"))
_IMAGES = ("image", "image_rephrase", "m_loc", "image_far", "m_loc_near")


class FGVEditDataset:
    """A sequence of :class:`EditRecord`; images stay paths until they are needed.

    Args:
        data_dir: the JSON file (EasyEdit's datasets call this argument so).
        size: keep the first ``size`` records only.
        config: EasyEdit hparams; its ``coco_image`` is the image root if ``image_root`` is absent.
        image_root: folder that the records' image paths are relative to; by default ``config``'s,
            else the JSON file's own folder (or its ``images`` folder, if there is one).
        allow_outside: accept image paths that lead out of the image root, absolute or by ``../``.
            Without an image root they must stay in the JSON file's own folder.
        skip_bad: leave bad records out, listed in ``skipped``, instead of raising.
        check: ``"decode"`` opens every image once, ``"exists"`` only looks for the files,
            ``"off"`` trusts them.
        extra: also take the questions of ``fg_extra`` into ``in_scope`` and ``out_scope``.

    Raises:
        DataError: naming file, record and field of the first problem, and how many there are.
    """

    needs_scope = True  # E-VQA's records have no visual scopes
    _roots: Mapping[str, Path] = MappingProxyType({})  # image fields outside image_root

    def __init__(
        self,
        data_dir: str | Path,
        size: int | None = None,
        config: Any = None,
        *,
        image_root: str | Path | None = None,
        allow_outside: bool = False,
        skip_bad: bool = False,
        check: Literal["decode", "exists", "off"] = "decode",
        extra: bool = False,
    ) -> None:
        self.path = Path(data_dir)
        raw = read_list(self.path)
        if size is not None:
            raw = raw[:size]
        root = image_root or getattr(config, "coco_image", None)
        self.image_root = Path(root or self._default_root())
        self.allow_outside = allow_outside
        self._within = self.image_root if root else self.path.parent
        problems: list[DataError] = []
        kept: list[tuple[int, EditRecord]] = []
        seen: set[str] = set()
        for index, item in enumerate(raw):
            try:
                record = self._parse(index, item, extra)
                if record.case_id in seen:
                    raise self._error(f"case_id {record.case_id!r} appears twice", index)
                seen.add(record.case_id)
                kept.append((index, record))
            except DataError as error:
                problems.append(error)
        if check != "off":
            kept, bad = self._check_images(kept, raw, decode=check == "decode")
            problems += bad
        if problems and not skip_bad:
            first = problems[0]
            more = f" (and {len(problems) - 1} more bad records)" if len(problems) > 1 else ""
            raise DataError(
                str(first.message) + more,
                file=first.file,
                record=first.record,
                field=first.field,
                remedy=f"{first.remedy or 'mend the record'}, or leave bad records out (skip_bad)",
            )
        self.records = [record for _, record in kept]
        self.skipped = [str(problem) for problem in problems]
        if problems:
            LOG.warning("%s: %d bad records left out of %d", self.path, len(problems), len(raw))
        if not self.records:
            raise DataError("has no usable record", file=self.path, remedy="check the file")

    def _default_root(self) -> Path:
        images = self.path.parent / "images"
        return images if images.is_dir() else self.path.parent

    def _error(
        self, message: str, index: int, field: str | None = None, remedy: str | None = None
    ) -> DataError:
        error = DataError(message, file=self.path, record=index, field=field, remedy=remedy)
        error.message = message  # without the place, which is added when it is raised again
        return error

    def _texts(self, item: dict[str, Any], index: int, field: str) -> list[str]:
        value = item.get(field)
        if value is None:
            raise self._error("is missing", index, field, "add the field")
        values: list[Any] = value if isinstance(value, list) else [value]
        if not values:
            raise self._error("is empty", index, field, "give it a text")
        for text in values:
            if not isinstance(text, str):
                raise self._error(f"is a {type(text).__name__}, not text", index, field)
            if not text.strip():
                raise self._error("is empty", index, field, "give it a text")
            self._check_text(text, index, field)
        return [text.strip() for text in values]

    def _text(self, item: dict[str, Any], index: int, field: str) -> str:
        texts = self._texts(item, index, field)
        if len(texts) > 1:
            message = f"is a list of {len(texts)} texts, must be one"
            raise self._error(message, index, field, "keep one, or make a record for each")
        return texts[0]

    def _check_text(self, text: str, index: int, field: str) -> None:
        problem = text_problem(text)
        if problem:
            raise self._error(problem, index, field, "write the text again as UTF-8")

    def _case_id(self, item: dict[str, Any], index: int) -> str:
        return self._name(item.get("case_id", index), index, "case_id")

    def _name(self, name: Any, index: int, field: str) -> str:
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            message = f"is a {type(name).__name__}, not text or a whole number"
            raise self._error(message, index, field, "name the case, or remove the field")
        self._check_text(str(name), index, field)
        return str(name)

    def _image(self, item: dict[str, Any], index: int, field: str) -> Path:
        root = self._roots.get(field)
        try:
            return image_path(
                root or self.image_root,
                self._text(item, index, field),
                within=root or self._within,
                allow_outside=self.allow_outside,
            )
        except DataError as error:
            raise self._error(error.message, index, field, error.remedy) from None

    def _pairs(
        self, item: dict[str, Any], index: int, question: str, answer: str, image: Path | None
    ) -> tuple[Question, ...]:
        questions = self._texts(item, index, question)
        answers = self._texts(item, index, answer)
        if len(questions) != len(answers):
            message = f"has {len(answers)} answers for {len(questions)} questions"
            raise self._error(message, index, answer)
        return tuple(Question(q, image, a) for q, a in zip(questions, answers, strict=True))

    def _extra(self, item: dict, index: int, side: str, image: Path) -> tuple[Question, ...]:
        extra = item.get("fg_extra")
        extra = {} if extra is None else extra
        pairs = extra.get(side, []) if isinstance(extra, dict) else None
        if not isinstance(pairs, list) or not all(
            isinstance(p, dict) and all(isinstance(p.get(x), str) and p[x].strip() for x in "qa")
            for p in pairs
        ):
            message = 'must look like {"in": [{"q": ..., "a": ...}], "out": [...]}'
            raise self._error(message, index, "fg_extra")
        for text in (pair[x] for pair in pairs for x in "qa"):
            self._check_text(text, index, "fg_extra")
        for key, kind, wanted in (("hard", bool, "true or false"), ("kind", str, "a text")):
            for value in (pair.get(key) for pair in pairs):
                if value is not None and not isinstance(value, kind):
                    message = f"has {key} {value!r:.40}, must be {wanted}"
                    raise self._error(message, index, "fg_extra", f"mend {key}, or remove it")
        for sort in (pair.get("kind") or "" for pair in pairs):
            self._check_text(sort, index, "fg_extra")
        return tuple(
            Question(p["q"], image, p["a"], bool(p.get("hard")), (p.get("kind") or "").strip())
            for p in pairs
        )

    def _parse(self, index: int, item: Any, extra: bool) -> EditRecord:
        if not isinstance(item, dict):
            raise self._error(f"is a {type(item).__name__}, not an object", index)
        src, alt = self._text(item, index, "src"), self._text(item, index, "alt")
        rephrase = self._texts(item, index, "rephrase")
        image = self._image(item, index, "image")
        scopes: list[tuple[Question, ...]] = []
        for (q, a), side in zip(_PAIRS, ("in", "out"), strict=True):
            # A record may lack questions on one side (MSCKE section 4.3), never on both.
            found = self._pairs(item, index, q, a, image) if _given(item, q, a) else ()
            hard = self._hard(item, index, q.replace("_q", "_hard"))
            sort = self._kind(item, index, q.replace("_q", "_kind"))
            found = tuple(replace(one, hard=hard, sort=sort) for one in found)
            further = self._extra(item, index, side, image)
            scopes.append(found + further if extra else found)
        if self.needs_scope and not scopes[0] and not scopes[1]:
            raise self._error(
                "and fg_loc_q are both missing", index, "fg_gen_q", "give the record one of the two"
            )
        again: dict[str, tuple[Question, ...]] = {}
        for field in ("image_rephrase", "image_far"):
            if _given(item, field):
                again[field] = (Question(src, self._image(item, index, field), alt),)
        for kind, field in (("image_loc", "m_loc"), ("image_near", "m_loc_near")):
            fields = (f"{field}_q", f"{field}_a")
            if _given(item, field, *fields):
                path = self._image(item, index, field)
                again[kind] = self._pairs(item, index, *fields, path)
        return EditRecord(
            case_id=self._case_id(item, index),
            edit=Question(src, image, alt),
            rephrase=tuple(Question(r, image, alt) for r in rephrase),
            in_scope=scopes[0],
            out_scope=scopes[1],
            text_loc=self._pairs(item, index, "loc", "loc_ans", None),
            **again,
            pair=self._name(item["pair"], index, "pair") if _given(item, "pair") else None,
        )

    def _kind(self, item: dict[str, Any], index: int, field: str) -> str:
        return self._text(item, index, field) if _given(item, field) else ""

    def _hard(self, item: dict[str, Any], index: int, field: str) -> bool:
        value = item.get(field)
        if value is not None and not isinstance(value, bool):
            message = f"is {value!r:.40}, must be true or false"
            raise self._error(message, index, field, "mend the field, or remove it")
        return value is not False

    def _check_images(
        self, kept: list[tuple[int, EditRecord]], raw: list[Any], *, decode: bool
    ) -> tuple[list[tuple[int, EditRecord]], list[DataError]]:
        paths = {
            (index, field): self._image(raw[index], index, field)
            for index, _ in kept
            for field in _IMAGES
            if _given(raw[index], field)
        }
        wrong = check_images(paths.values(), decode=decode)
        problems = {
            index: self._error(
                f"{wrong[str(path)]}: {path}", index, field, "check the image root, fetch the image"
            )
            for (index, field), path in reversed(paths.items())
            if str(path) in wrong
        }
        good = [(index, record) for index, record in kept if index not in problems]
        return good, [problems[index] for index in sorted(problems)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> EditRecord:
        return self.records[index]

    def __iter__(self) -> Iterator[EditRecord]:
        return iter(self.records)

    @staticmethod
    def collate_fn(batch: Sequence[EditRecord]) -> list[EditRecord]:
        """A batch is the list of its records; tensors are made where the model is."""
        return list(batch)


def _given(item: dict[str, Any], *fields: str) -> bool:
    """Whether the record has one of ``fields``: half of what belongs together is an error."""
    return any(item.get(field) not in (None, "", []) for field in fields)
