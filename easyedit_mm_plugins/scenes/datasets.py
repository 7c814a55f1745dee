"""The embedded data sets: records of the scenes below ``data/scenes``, drawn if absent."""

from __future__ import annotations

from ..data.fgvedit import FGVEditDataset
from .captions import caption_records
from .records import ensure_scenes


def questions(split: str, limit: int | None = None, extra: bool = False) -> FGVEditDataset:
    """Questions about scenes; ``split`` is "train" or "test"."""
    files = ensure_scenes()
    path = files.test if split == "test" else files.train
    return FGVEditDataset(path, limit, image_root=files.images, check="exists", extra=extra)


def captions(split: str, limit: int | None = None, extra: bool = False) -> FGVEditDataset:
    """Caption edits of the same scenes."""
    found = questions(split, limit, extra)
    found.records = caption_records(found.records, split)
    return found
