"""Records of the FGVEdit and E-VQA readers.

Oracle: a record that is accepted holds the file's own texts, images and id, as :func:`content`
reads them from the JSON by itself; nothing in a field that it uses is left out or made up. With
``skip_bad`` every record of the file is either kept, so, or listed as left out.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from easyedit_mm_plugins.data.evqa import EVQADataset
from easyedit_mm_plugins.data.fgvedit import FGVEditDataset

from ..conftest import picture
from .attack import Attack, Different, Draw, Kind
from .mutations import changed, damaged, texts, to_json, values

_PICTURES = ("a.png", "b.png", "sub/c.png")
_NAMES = (*_PICTURES, "link.png", "broken.png", "empty.png", "gone.png", "loop.png", "sub",
          "./a.png",
          "sub/../a.png", "../outside.png", "sub/../../outside.png", "x" * 300 + ".png", "a.png\0",
          "a.png/", "/etc/hostname")  # fmt: skip


def start(folder: Path) -> Attack:
    root = folder / "root"
    for number, name in enumerate(_PICTURES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number, 8).save(root / name)
    picture(9, 8).save(folder / "outside.png")
    (root / "link.png").symlink_to("a.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:60])
    (root / "empty.png").touch()
    file = folder / "cases.json"
    hostile = values | st.sampled_from(_NAMES) | st.lists(texts, max_size=3)

    def attack(draw: Draw) -> None:
        scopes, extra, skip = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
        records = changed(draw, [_record(i, scopes) for i in range(3)], hostile)
        data = to_json(records).encode()
        if draw(st.integers(0, 4)) == 0:
            data = damaged(draw, to_json([_record(i, scopes) for i in range(3)]).encode())
        file.write_bytes(data)
        reader = FGVEditDataset if scopes else EVQADataset
        found = reader(file, image_root=root, skip_bad=skip, extra=extra)
        raw = json.loads(data, parse_int=lambda d: int(d) if len(d) < 4300 else math.inf)
        _compare(found, raw, root, scopes, extra, skip)

    return attack


def _compare(found: Any, raw: Any, root: Path, scopes: bool, extra: bool, skip: bool) -> None:
    if len(found) + len(found.skipped) != len(raw) or (found.skipped and not skip):
        raise Different(f"{len(found)} of {len(raw)} records, {len(found.skipped)} left out")
    expected = []
    for index, item in enumerate(raw):
        try:
            expected.append(content(item, index, root, extra))
        except (AssertionError, KeyError, TypeError, AttributeError):
            expected.append(None)
    kept = iter(e for e in expected if e is not None)
    for record in found:
        own = {
            "id": record.case_id,
            **{k: [_plain(q) for q in qs] for k, qs in record.questions().items()},
        }
        if not any(own == one for one in kept):  # in the file's order
            same = [e for e in expected if e and e["id"] == own["id"]] or [{}]
            wrong = sorted(k for k in own if own[k] != same[0].get(k))
            raise Different(f"what is read as {', '.join(wrong)} does not stand in the file")
        if scopes and not own["in_scope"] and not own["out_scope"]:
            raise Different("a record without scopes")
    if len({r.case_id for r in found}) != len(found):
        raise Different("two records of one id")


def content(item: Any, index: int, root: Path, extra: bool) -> dict[str, Any]:
    """What a record says; an exception where it says nothing that can be used."""

    def several(field: str) -> list[str]:
        found = item[field] if isinstance(item[field], list) else [item[field]]
        assert found and all(isinstance(t, str) and t.strip() for t in found)
        for text in found:
            assert not any("\ud800" <= c <= "\udfff" for c in text)
        return [text.strip() for text in found]

    def one(field: str) -> str:
        (text,) = several(field) if len(several(field)) == 1 else (None,)
        assert text is not None
        return text

    def image(field: str) -> str:
        path = os.path.normpath(root / one(field))
        assert path.startswith(f"{root}/") and "\0" not in path
        return path

    def pairs(question: str, answer: str, shown: str | None) -> list[tuple]:
        if not any(given(f) for f in (question, answer)):
            return []
        asked, said = several(question), several(answer)
        assert len(asked) == len(said)
        return [(q, shown, a) for q, a in zip(asked, said, strict=True)]

    def given(field: str) -> bool:
        return item.get(field) not in (None, "", [])

    case_id = item.get("case_id", index)
    assert isinstance(case_id, (str, int)) and not isinstance(case_id, bool)
    src, alt, shown = one("src"), one("alt"), image("image")
    inside, outside = pairs("fg_gen_q", "fg_gen_a", shown), pairs("fg_loc_q", "fg_loc_a", shown)
    if extra and item.get("fg_extra") is not None:
        inside += [(p["q"], shown, p["a"]) for p in item["fg_extra"].get("in", [])]
        outside += [(p["q"], shown, p["a"]) for p in item["fg_extra"].get("out", [])]

    def elsewhere(field: str) -> list[tuple]:
        fields = (f"{field}_q", f"{field}_a")
        there = any(given(f) for f in (field, *fields))
        return pairs(*fields, image(field)) if there else []

    def again(field: str) -> list[tuple]:
        return [(src, image(field), alt)] if given(field) else []

    return {
        "id": str(case_id),
        "edit": [(src, shown, alt)],
        "rephrase": [(text, shown, alt) for text in several("rephrase")],
        "in_scope": inside,
        "out_scope": outside,
        "text_loc": pairs("loc", "loc_ans", None),
        "image_rephrase": again("image_rephrase"),
        "image_far": again("image_far"),
        "image_loc": elsewhere("m_loc"),
        "image_near": elsewhere("m_loc_near"),
    }


def _plain(question: Any) -> tuple:
    shown = None if question.image is None else os.path.normpath(question.image)
    return question.text, shown, question.answer


def _record(i: int, scopes: bool) -> dict[str, Any]:
    record = {
        "case_id": [f"c{i}", i, f"{i}"][i],
        "src": f"what color is thing {i}?",
        "alt": "green",
        "pred": "red",
        "rephrase": [f"thing {i} is what color?"] if i else f"which color has thing {i}?",
        "image": "a.png",
        "loc": "what is the capital of france?",
        "loc_ans": "paris",
        "image_rephrase": "b.png",
        "m_loc": "sub/c.png",
        "m_loc_q": "how many stars?",
        "m_loc_a": "two",
        "image_far": "b.png",
        "m_loc_near": "sub/c.png",
        "m_loc_near_q": "how many circles?",
        "m_loc_near_a": "one",
    }
    if scopes:
        record |= {"fg_gen_q": ["is it green?", "is it red?"], "fg_gen_a": ["yes", "no"]}
        record |= {"fg_loc_q": "where is it?", "fg_loc_a": "left"}
        record["fg_extra"] = {
            "in": [{"q": "green?", "a": "yes"}],
            "out": [{"q": "big?", "a": "no"}],
        }
    return record


KIND = Kind("records", (5000, 500), start)
