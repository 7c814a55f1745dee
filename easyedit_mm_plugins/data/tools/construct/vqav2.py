"""The official VQAv2 files as a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from ....core.files import read_json
from .sources import QA, ImageGroup, Source, as_paths, guess_types, text_of


class VQAv2Source(Source):
    """The official VQAv2 files and COCO 2014 images.

    Args:
        questions: one or several ``v2_OpenEnded_mscoco_*_questions.json``.
        annotations: the ``v2_mscoco_*_annotations.json`` of the same parts, in any order.
        images: the folder that holds ``train2014/`` and ``val2014/``.
    """

    name = "vqav2"

    def __init__(
        self,
        questions: str | Path | list[str | Path],
        annotations: str | Path | list[str | Path],
        images: str | Path,
    ) -> None:
        self.questions, self.annotations = as_paths(questions), as_paths(annotations)
        self.image_root = Path(images)

    def describe(self) -> dict[str, Any]:
        files = [path.name for path in (*self.questions, *self.annotations)]
        return {"source": self.name, "files": files}

    def groups(self) -> Iterator[ImageGroup]:
        answers = self._annotations()
        found: dict[tuple[str, int], list[QA]] = {}
        for path in self.questions:
            content = _object(path)
            subtype = content.get("data_subtype")
            if not isinstance(subtype, str) or not subtype.replace("_", "").isalnum():
                raise DataError("is missing or odd", file=path, field="data_subtype")
            for number, item in enumerate(_list(content, "questions", path)):
                question = text_of(item, "question", path, number)
                qid = _whole(item, "question_id", path, number)
                image = _whole(item, "image_id", path, number)
                if qid not in answers:
                    continue
                if answers[qid].get("image_id", image) != image:
                    raise DataError(
                        "has another image_id in the annotations",
                        file=path,
                        record=number,
                        field="image_id",
                        remedy="give the questions and annotations of the same release",
                    )
                pair = self._pair(qid, question, answers[qid])
                found.setdefault((subtype, image), []).append(pair)
        if not found:
            raise DataError(
                "no question has an annotation",
                file=self.questions[0],
                remedy="give the questions and annotations of the same part (train or val)",
            )
        for (subtype, image), pairs in found.items():
            name = f"COCO_{subtype}_{image:012d}"
            yield ImageGroup(name, f"{subtype}/{name}.jpg", tuple(pairs))

    def _annotations(self) -> dict[int, dict[str, Any]]:
        found = {}
        for path in self.annotations:
            for number, item in enumerate(_list(_object(path), "annotations", path)):
                text_of(item, "multiple_choice_answer", path, number)
                found[_whole(item, "question_id", path, number)] = item | {"_where": (path, number)}
        return found

    def _pair(self, qid: int, question: str, item: dict[str, Any]) -> QA:
        file, number = item["_where"]
        answer = text_of(item, "multiple_choice_answer", file, number)
        kinds = guess_types(question, answer)
        given = item.get("answers") or []
        if not isinstance(given, list):
            raise DataError("is not a list", file=file, record=number, field="answers")
        accepted = dict.fromkeys(
            " ".join(a["answer"].split())
            for a in given
            if isinstance(a, dict) and isinstance(a.get("answer"), str) and a["answer"].strip()
        )
        question_type, answer_type = (
            value if isinstance(value := item.get(field), str) and value.strip() else kind
            for field, kind in zip(("question_type", "answer_type"), kinds, strict=True)
        )
        return QA(str(qid), question, answer, question_type, answer_type, tuple(accepted))


def _object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(
            f"holds a {type(content).__name__}, not an object",
            file=path,
            remedy="give the official VQAv2 file",
        )
    return content


def _list(content: dict[str, Any], field: str, path: Path) -> list[Any]:
    value = content.get(field)
    if not isinstance(value, list):
        raise DataError(
            "is missing or no list", file=path, field=field, remedy="give the official VQAv2 file"
        )
    return value


def _whole(item: dict[str, Any], field: str, path: Path, record: object) -> int:
    value = item.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError("is not a whole number", file=path, record=record, field=field)
    return value
