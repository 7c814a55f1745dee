"""Edits on disk: one file, so that it holds the old edits or the new ones, whenever one is killed.

``edits.safetensors`` has the edits' texts in its header, and as tensors their pictures (as bytes,
so that the file can be moved anywhere) and whatever the method keeps of them. A checksum covers
all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..core.errors import CheckpointError, DataError
from ..data.images import image_key, open_image
from ..data.records import ImageLike, Question
from ..data.several import Several
from .checkpoint import read_noted, save_tensors

FILE, FORMAT = "edits.safetensors", 1
ANEW = "add the edits again and save them"
_PICTURE, _KEPT = "picture.", "kept."


@dataclass(frozen=True)
class SavedEdits:
    """What :func:`read_edits` found.

    Attributes:
        path: the file.
        edits: by id, in order.
        count: how many ids have been given so far.
        tensors: what the method kept.
    """

    path: Path
    edits: dict[str, Question]
    count: int
    tensors: dict[str, Tensor]

    def keys(self, width: int) -> Tensor:
        """The edits' keys ``[N, width]``.

        Raises:
            CheckpointError: there are none, or they have another shape.
        """
        found = self.tensors.get("keys")
        if found is None or found.shape != (len(self.edits), width):
            raise self.damaged(f"it needs keys [{len(self.edits)}, {width}]")
        return found

    def damaged(self, what: object) -> CheckpointError:
        """The error to raise for content that cannot be used."""
        return CheckpointError(f"{self.path} is damaged: {what}", remedy=ANEW)


def write_edits(
    folder: str | Path,
    edits: Mapping[str, Question],
    count: int,
    made_by: str,
    tensors: Mapping[str, Tensor],
) -> None:
    """Write ``edits`` into ``folder`` (made if absent), whole or not at all.

    Args:
        count: how many ids have been given so far.
        made_by: what ``tensors`` depend on, e.g. a fingerprint; only it reads them again.

    Raises:
        DataError: an edit's picture cannot be read, or it has several.
    """
    parts = {_KEPT + name: tensor.detach().cpu() for name, tensor in tensors.items()}
    places: dict[Any, int] = {}
    entries = []
    for edit_id, edit in edits.items():
        key = image_key(edit.image)
        if key is not None and key not in places:
            data = bytearray(_encoded(edit.image))
            parts[f"{_PICTURE}{len(places)}"] = torch.frombuffer(data, dtype=torch.uint8)
            places[key] = len(places)
        entries.append([edit_id, edit.text, edit.answer, places.get(key)])
    book = json.dumps({"format": FORMAT, "made_by": made_by, "count": count, "edits": entries})
    notes = {"book": book, "sha256": _checksum(book, parts)}
    save_tensors(Path(folder) / FILE, parts, notes=notes)


def read_edits(folder: str | Path, made_by: str) -> SavedEdits:
    """The edits that :func:`write_edits` wrote.

    Raises:
        CheckpointError: the file is missing or damaged, or something else made it.
    """
    path = Path(folder) / FILE
    parts, notes = read_noted(path)
    try:
        if notes["sha256"] != _checksum(notes["book"], parts):
            raise ValueError("its content is not what was written")
        book = json.loads(notes["book"])
        if book["format"] != FORMAT:
            raise ValueError(f"format {book['format']}, this version reads {FORMAT}")
        pictures = {name: _decoded(t) for name, t in parts.items() if name.startswith(_PICTURE)}
        edits = _edits(book["edits"], book["count"], pictures)
        kept = {n.removeprefix(_KEPT): t for n, t in parts.items() if n.startswith(_KEPT)}
        for name, tensor in kept.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{name} holds values that are not finite")
        maker = book["made_by"]
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(f"{path} is damaged: {what}", remedy=ANEW) from error
    if maker != made_by:
        raise CheckpointError(
            f"{path} was made by {maker}, this is {made_by}",
            remedy="load the editor that made it, or add the edits again",
        )
    return SavedEdits(path, edits, book["count"], kept)


def _edits(
    entries: list[list[Any]], count: int, pictures: Mapping[str, ImageLike]
) -> dict[str, Question]:
    edits: dict[str, Question] = {}
    last = 0
    for edit_id, text, answer, picture in entries:
        if not all(isinstance(value, str) and value.strip() for value in (edit_id, text, answer)):
            raise ValueError(f"edit {edit_id!r} has an id, question or answer that is no text")
        number = int(edit_id[1:]) if re.fullmatch("e[1-9][0-9]*", edit_id) else 0
        if isinstance(count, bool) or not last < number <= count:
            raise ValueError(f"edit id {edit_id!r} does not follow e{last} within {count} edits")
        image = None if picture is None else pictures[f"{_PICTURE}{picture}"]
        edits[edit_id], last = Question(text, image, answer), number
    return edits


def _encoded(image: ImageLike) -> bytes:
    """A picture's file, or as PNG what is no file."""
    if isinstance(image, Several):
        raise DataError(
            f"an edit is about {len(image.images)} images; only edits about one can be saved",
            field="image",
            remedy="keep such edits in memory, or edit each image by itself",
        )
    if isinstance(image, (str, Path)):
        return Path(image).read_bytes()
    buffer = io.BytesIO()
    open_image(image).save(buffer, format="PNG")
    return buffer.getvalue()


def _decoded(data: Tensor) -> Image.Image:
    """The picture in a file's bytes; its pixels are decoded when they are needed."""
    return Image.open(io.BytesIO(data.numpy().tobytes()))


def _checksum(book: str, parts: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(book.encode())
    for name in sorted(parts):
        tensor = parts[name].contiguous()
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
