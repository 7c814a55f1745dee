"""Records as one HTML page that needs no server, no network and no further files."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import ImageOps

from ...core.errors import DataError
from ...core.files import write_text
from ...core.shipped import ASSETS
from ..images import image_path, open_image
from ..record_files import read_records
from ..schema import as_list
from .construct.sources import guess_types

_PAGE = ASSETS / "preview"


def write_preview(
    path: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    images: str | Path | None = None,
    rephrase_images: str | Path | None = None,
    allow_outside: bool = False,
    limit: int | None = 200,
    side: int = 256,
    title: str | None = None,
) -> int:
    """Write a page with the records of one or several files; returns how many it shows.

    Args:
        images: image root; images that do not exist are shown as missing, with None all of them.
        rephrase_images: root of ``image_rephrase``, if it is another one.
        allow_outside: also show images that lie outside their root.
        limit: number of records of each file, from its start; None: all (about 10 kB each).
        side: largest width and height of a thumbnail, in pixels.

    Raises:
        DataError: a file cannot be read or holds no records, or a record's image path leads out of
            the image root.
    """
    shown: list[dict[str, Any]] = []
    wanted: dict[str, Path] = {}
    root = Path(images) if images is not None else None
    for file, records in read_records(path).items():
        for index, record in enumerate(records[:limit]):
            if not isinstance(record, dict):
                continue
            item = _item(record, index, file.stem)
            shown.append(item)
            for name in ("image", "image_rephrase", "m_loc"):
                base = rephrase_images if name == "image_rephrase" and rephrase_images else root
                if not item[name] or base is None:
                    continue
                try:
                    found = image_path(base, item[name], allow_outside=allow_outside)
                except DataError as error:
                    raise DataError(
                        error.message, file=file, record=index, field=name, remedy=error.remedy
                    ) from None
                wanted[item[name]] = found
    if not shown:
        raise DataError("holds no record", file=path)
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda p: thumbnail(p, side), wanted.values())
    thumbs = {name: url for name, url in zip(wanted, made, strict=True) if url}
    splits = list(dict.fromkeys(item["split"] for item in shown))
    title = title or f"{' and '.join(splits)}: {len(shown):,} records"
    data = {"title": title, "splits": splits, "records": shown, "thumbs": thumbs}
    write_text(out, render(title, data))
    return len(shown)


def render(title: str, data: dict[str, Any]) -> str:
    """The page as HTML. Its data cannot run code: ``<`` is escaped, and only our script may run."""
    script = (_PAGE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c").replace(">", "\\u003e")
    page = (_PAGE / "page.html").read_text(encoding="utf-8")
    filled = {
        "__SCRIPT_HASH__": f"sha256-{digest}",
        "__TITLE__": html.escape(title),
        "__SCRIPT__": script,
        "__DATA__": text,
    }
    # In one pass, so that marks within the data are not filled in.
    return re.sub("|".join(filled), lambda mark: filled[mark[0]], page)


def thumbnail(path: Path, side: int) -> str | None:
    """A small JPEG as a data URL, upright; None if the image is missing or broken."""
    try:
        picture = open_image(path)
    except DataError:
        return None
    picture = ImageOps.exif_transpose(picture)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _item(record: dict[str, Any], index: int, split: str) -> dict[str, Any]:
    src, alt = _text(record.get("src")), _text(record.get("alt"))
    extra = record.get("fg_extra")
    extra = extra if isinstance(extra, dict) else {}
    item: dict[str, Any] = {
        "id": str(record.get("case_id", index)),
        "split": split,
        "src": src,
        "pred": _text(record.get("pred")),
        "alt": alt,
        "kind": guess_types(src, alt)[1],
        "rephrase": as_list(record.get("rephrase")),
        "loc": _pairs(record, "loc", "loc_ans"),
        "m_loc_pairs": _pairs(record, "m_loc_q", "m_loc_a"),
    }
    for name in ("image", "image_rephrase", "m_loc"):
        item[name] = _text(record.get(name))
    for side, name in (("in", "fg_gen"), ("out", "fg_loc")):
        # The published records do not say which questions are hard.
        hard = bool(record.get(f"{name}_hard"))
        item[side] = [p | {"hard": hard} for p in _pairs(record, f"{name}_q", f"{name}_a")]
        item[side] += [
            {"q": _text(x.get("q")), "a": _text(x.get("a")), "hard": bool(x.get("hard"))}
            for x in _dicts(extra.get(side))
        ]
    return item


def _pairs(record: dict[str, Any], question: str, answer: str) -> list[dict[str, Any]]:
    questions, answers = as_list(record.get(question)), as_list(record.get(answer))
    answers += [""] * (len(questions) - len(answers))
    return [{"q": q, "a": a} for q, a in zip(questions, answers, strict=False)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
