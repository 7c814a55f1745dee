"""What was computed of pictures that were seen before, kept within a limit of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...data import ImageLike, open_image

ROOM = 256 * 2**20  # bytes


class SeenPictures:
    """Tensors by picture, for pictures given by path: a changed file is another picture.

    Args:
        room: bytes; when they are used up, what was not asked for longest goes.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room, self._used = room, 0
        self._known: OrderedDict[tuple, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._used = 0

    def through(
        self, images: Sequence[ImageLike], encode: Callable[[Sequence[ImageLike]], Tensor]
    ) -> Tensor:
        """``encode(images)``, asked only for those that are not known; ``[N, ...]``.

        Raises:
            DataError: a file does not exist.
        """
        keys = [_key(image) for image in images]
        found = {k: self._known[k] for k in keys if k in self._known}
        missing = [i for i, k in enumerate(keys) if k is None or k not in found]
        for k in found:
            self._known.move_to_end(k)
        if len(missing) == len(images):
            fresh = encode(images)
            self._keep(keys, fresh)
            return fresh
        rows: list[Tensor | None] = [found.get(k) if k is not None else None for k in keys]
        if missing:
            fresh = encode([images[i] for i in missing])
            self._keep([keys[i] for i in missing], fresh)
            for i, row in zip(missing, fresh, strict=True):
                rows[i] = row
        return torch.stack(rows)  # type: ignore[arg-type]

    def _keep(self, keys: Sequence[tuple | None], fresh: Tensor) -> None:
        for key, row in zip(keys, fresh, strict=True):
            if key is not None and key not in self._known:
                with torch.inference_mode(False):  # usable in every mode afterwards
                    self._known[key] = row.clone()  # not a view that holds the whole batch
                self._used += row.nbytes
        while self._used > self.room:
            _, gone = self._known.popitem(last=False)
            self._used -= gone.nbytes


def _key(image: ImageLike) -> tuple | None:
    if not isinstance(image, (str, Path)):
        return None
    try:
        stat = Path(image).stat()
    except OSError:
        open_image(image)  # raises the error that names the file
        raise
    return (str(image), stat.st_mtime_ns, stat.st_size)
