"""The schemas of records, and all checks that need no more than one record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..core.optional import need
from ..core.text import text_problem

Kind = Literal["fgvedit", "e-vqa", "e-ic"]
IMAGE_FIELDS = ("image", "image_rephrase", "m_loc", "image_far", "m_loc_near")
KINDS: tuple[Kind, ...] = ("fgvedit", "e-vqa", "e-ic")
# Records in the published files. E-VQA's paper says 6,346 for training; its file has 6,345.
PUBLISHED: dict[tuple[str, str], int] = {
    ("fgvedit", "train_data.json"): 8334,
    ("fgvedit", "test_data.json"): 2778,
    ("e-vqa", "vqa_train.json"): 6345,
    ("e-vqa", "vqa_eval.json"): 2093,
    ("e-ic", "caption_train_edit.json"): 2849,
    ("e-ic", "caption_eval_edit.json"): 1000,
}
_PAIRS = (("fg_gen_q", "fg_gen_a"), ("fg_loc_q", "fg_loc_a"), ("loc", "loc_ans"))


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        level: "error": the record cannot be used; "warning": a person should look at it.
        check: short name of the check that found it.
        record: index in the file; None: the problem concerns the whole file.
    """

    level: Literal["error", "warning"]
    check: str
    message: str
    record: int | None = None
    field: str | None = None
    file: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}


def guess_kind(records: list[Any]) -> Kind:
    """The records' kind: FGVEdit's have visual scopes, E-IC's ask for captions, else E-VQA."""
    first = next((r for r in records if isinstance(r, dict)), {})
    if any(key.startswith("fg_") for key in first):
        return "fgvedit"
    texts = [str(r.get("src", "")) for r in records[:20] if isinstance(r, dict)]
    captions = bool(texts) and all(text.lower().startswith("a photo of") for text in texts)
    return "e-ic" if captions else "e-vqa"


def model_of(kind: Kind) -> Any:
    """The pydantic model of one record.

    Raises:
        ConfigError: pydantic is not installed.
    """
    pydantic = need("pydantic", "verifying records")
    from typing import Annotated

    text = Annotated[
        str, pydantic.StringConstraints(strip_whitespace=True, min_length=1, strict=True)
    ]
    unicode = Annotated[str, pydantic.AfterValidator(_unicode)]
    texts = text | Annotated[list[text], pydantic.Field(min_length=1)]
    flag = pydantic.StrictBool | None
    said: dict[str, Any] = {"hard": (flag, None), "kind": (unicode | None, None)}
    pair: Any = pydantic.create_model("Pair", q=(text, ...), a=(text, ...), **said)
    extra = pydantic.create_model(
        "Extra", **{s: (list[pair], pydantic.Field(default_factory=list)) for s in ("in", "out")}
    )
    required = {"src": text, "alt": text, "image": text, "loc": texts, "loc_ans": texts}
    fields: dict[str, Any] = {name: (kind_, ...) for name, kind_ in required.items()}
    fields["rephrase"] = (texts, ...)
    optional = {"pred": unicode, "fg_extra": extra}
    if kind == "fgvedit":
        optional |= {"image_rephrase": text, "m_loc": text, "m_loc_q": texts, "m_loc_a": texts}
        optional |= {name: texts for pair_ in _PAIRS[:2] for name in pair_}
        optional |= {"image_far": text, "m_loc_near": text}
        optional |= {name: texts for name in ("m_loc_near_q", "m_loc_near_a")}
        optional |= {"fg_gen_kind": text, "fg_loc_kind": text}
        optional |= {"fg_gen_hard": flag, "fg_loc_hard": flag, "pair": unicode | pydantic.StrictInt}
    else:
        for name in ("image_rephrase", "m_loc", "m_loc_q", "m_loc_a"):
            fields[name] = (text, ...)
    fields |= {name: (kind_ | None, None) for name, kind_ in optional.items()}
    # It may be absent, but not null: None is the default, and no value.
    fields["case_id"] = (unicode | pydantic.StrictInt, None)
    return pydantic.create_model(f"{kind} record", **fields)


def _unicode(text: str) -> str:
    problem = text_problem(text)
    if problem:
        raise ValueError(problem)
    return text


def schema_findings(records: list[Any], kind: Kind) -> Iterator[Finding]:
    """Missing, empty and mistyped fields."""
    from pydantic import ValidationError

    model = model_of(kind)
    for index, record in enumerate(records):
        try:
            model.model_validate(record)
        except (ValidationError, RecursionError) as error:
            listed = (
                [(one["loc"], one["msg"]) for one in error.errors()]
                if isinstance(error, ValidationError)
                else [((), "nested too deeply")]
            )
            seen: set[str | None] = set()
            for place, message in listed:
                field = str(place[0]) if place else None
                if field not in seen:  # a union reports every branch
                    seen.add(field)
                    yield Finding("error", "schema", message, index, field)


def as_list(value: Any) -> list[str]:
    """The texts of a field, which may be one text, a list, or absent."""
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, str) and v.strip()]


def fold(text: Any) -> str:
    """``text`` for comparisons: lower case, single spaces, no punctuation mark at the end."""
    return " ".join(str(text).lower().split()).rstrip("?.! ")


def content_findings(record: dict[str, Any], index: int, kind: Kind) -> Iterator[Finding]:
    """Contradictions within one record whose schema is right."""
    for question, answer in _PAIRS:
        asked, answered = as_list(record.get(question)), as_list(record.get(answer))
        if len(asked) != len(answered):
            message = f"{len(answered)} answers for {len(asked)} questions"
            yield Finding("error", "pairs", message, index, answer)
    src, alt = fold(record["src"]), fold(record["alt"])
    if isinstance(record.get("pred"), str) and fold(record["pred"]) == alt:
        yield Finding("warning", "no-change", "the new answer is the old one", index, "alt")
    if kind != "e-ic" and src in {fold(t) for t in as_list(record["rephrase"])}:
        yield Finding("warning", "rephrase", "the rephrase is the question itself", index)
    inside = dict(_pairs(record, "fg_gen", "in"))
    outside = dict(_pairs(record, "fg_loc", "out"))
    if kind == "fgvedit" and not inside and not outside:
        message = "no question in or out of visual scope"
        yield Finding("error", "scopes", message, index, "fg_gen_q")
    for question in sorted(set(inside) & set(outside)):
        message = f"both in and out of scope: {question!r}"
        yield Finding("error", "contradiction", message, index, "fg_loc_q")
    if src in outside:
        message = "the edit's own question is listed as out of scope"
        yield Finding("error", "contradiction", message, index, "fg_loc_q")
    if inside.get(src, alt) != alt:
        message = f"the edit's own question has the answer {inside[src]!r} in scope"
        yield Finding("error", "contradiction", message, index, "fg_gen_a")


def _pairs(record: dict[str, Any], name: str, side: str) -> Iterator[tuple[str, str]]:
    questions, answers = as_list(record.get(f"{name}_q")), as_list(record.get(f"{name}_a"))
    yield from ((fold(q), fold(a)) for q, a in zip(questions, answers, strict=False))
    extra = record.get("fg_extra") or {}
    for item in extra.get(side) or []:
        yield fold(item["q"]), fold(item["a"])
