"""Inspect many image files, in several processes."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ...core.errors import DataError
from ...core.files import file_digest
from ..images import to_rgb

HUGE_PIXELS = 40_000_000
_FEW = 300  # below this number, starting processes takes longer than the inspection


@dataclass(frozen=True)
class PictureReport:
    """The result of inspecting one image file.

    Attributes:
        problem: why the image cannot be used, or None.
        oddities: "grey", "cmyk", "palette", "alpha", "16 bit", "animated", "exif-rotated", "huge".
        digest: SHA-256 of the file if asked for, to find equal images under different names.
    """

    path: str
    problem: str | None = None
    size: tuple[int, int] | None = None
    oddities: tuple[str, ...] = field(default_factory=tuple)
    digest: str | None = None


def look(path: str, with_digest: bool = False) -> PictureReport:
    """Decode one file whole and note its oddities. Raises nothing."""
    try:
        if not os.stat(path).st_size:
            return PictureReport(path, "image file is empty")
        digest = file_digest(path) if with_digest else None
    except FileNotFoundError:
        return PictureReport(path, "image not found")
    except OSError as error:
        return PictureReport(path, f"image cannot be read: {error.strerror or error}")
    except ValueError as error:  # a NUL character, or half of a surrogate pair
        return PictureReport(path, f"image cannot be read: {error}")
    try:
        with warnings.catch_warnings(), Image.open(path) as picture:
            warnings.simplefilter("ignore")
            size = picture.size
            odd = _oddities(picture)
            if size[0] * size[1] <= 4 * HUGE_PIXELS:  # of a larger image only the header is read
                picture.load()
                if picture.mode != "RGB":
                    to_rgb(picture)
    except DataError as error:
        return PictureReport(path, error.message, digest=digest)
    except Image.DecompressionBombError as error:
        return PictureReport(path, f"image is too large to be safe: {error}", digest=digest)
    except Exception as error:  # PIL's decoders raise many types on broken bytes
        return PictureReport(path, f"image cannot be decoded: {error}", digest=digest)
    return PictureReport(path, None, size, odd, digest)


def _oddities(picture: Image.Image) -> tuple[str, ...]:
    mode = picture.mode
    odd = {
        "L": ["grey"],
        "1": ["grey"],
        "LA": ["grey", "alpha"],
        "CMYK": ["cmyk"],
        "YCCK": ["cmyk"],
        "P": ["palette"],
        "PA": ["palette", "alpha"],
        "RGBA": ["alpha"],
    }.get(mode, ["16 bit"] if mode.startswith(("I", "F")) else [])
    if picture.info.get("transparency") is not None and "alpha" not in odd:
        odd = [*odd, "alpha"]
    if getattr(picture, "n_frames", 1) > 1:
        odd = [*odd, "animated"]
    if picture.getexif().get(0x0112, 1) not in (0, 1):
        odd = [*odd, "exif-rotated"]
    if picture.size[0] * picture.size[1] > HUGE_PIXELS:
        odd = [*odd, "huge"]
    return tuple(odd)


def look_at_all(
    paths: Iterable[str | Path],
    workers: int | None = None,
    *,
    digests: Iterable[str | Path] = (),
) -> list[PictureReport]:
    """A report for each distinct path, in sorted order.

    Args:
        workers: processes; by default one per core, and none at all for few files.
        digests: the paths whose content is hashed.
    """
    distinct = sorted({str(p) for p in paths})
    wanted = {str(p) for p in digests}
    flags = [path in wanted for path in distinct]
    workers = workers if workers is not None else (os.cpu_count() or 1)
    if workers <= 1 or len(distinct) < _FEW:
        return list(map(look, distinct, flags))
    # Forking a process with threads is not safe; a fresh one imports this module and PIL only.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(look, distinct, flags, chunksize=64))
