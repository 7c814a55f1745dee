"""What was computed from pictures, kept for the next question about the same picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.lru import LRU
from ..data.images import image_key
from ..data.records import ImageLike


class ImageCache(LRU[Any]):
    """One tensor, or other value, a picture, for pictures given by path: a changed file is another
    picture.

    Arguments as for :class:`LRU`.
    """

    def through(self, images: Sequence[ImageLike], encode: Callable[[list[ImageLike]], Any]) -> Any:
        """``encode(images)``, ``[N, ...]`` or a list, asked once for each distinct picture that is
        not kept.

        Raises:
            DataError: a file does not exist.
        """
        keys = [image_key(image) for image in images]
        rows = {key: row for key in dict.fromkeys(keys) if (row := self.get(key)) is not None}
        missing = {k: image for k, image in zip(keys, images, strict=True) if k not in rows}
        if missing:
            fresh = encode(list(missing.values()))
            for key, row in zip(missing, fresh, strict=True):
                if isinstance(key, tuple):  # a file
                    with torch.inference_mode(False):  # usable in every mode afterwards
                        self.put(key, row.clone())  # not a view that holds the whole batch
            if len(missing) == len(images):
                return fresh
            rows.update(zip(missing, fresh, strict=True))
        found = [rows[key] for key in keys]
        return torch.stack(found) if isinstance(found[0], Tensor) else found


def in_bytes(limit: int) -> ImageCache:
    """A cache of at most ``limit`` bytes."""
    return ImageCache(limit, lambda value: value.nbytes)
