"""Images: where a record's image lies, opening it as RGB, and checking many before long work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..core.errors import DataError
from ..core.text import text_problem
from .records import ImageLike

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-3  # of a tensor's values, which may have been normalised and back


def image_path(
    root: str | Path,
    name: str,
    *,
    within: str | Path | None = None,
    allow_outside: bool = False,
) -> Path:
    """The path of the image that a record calls ``name``.

    Paths are compared by their parts, so that links below ``root`` may point elsewhere.

    Args:
        root: folder that ``name`` is relative to.
        within: folder that the image must lie in; by default ``root``.
        allow_outside: also accept absolute paths and ``../`` that lead out of that folder.

    Raises:
        DataError: no file can have that name, or it leads out of the folder.
    """
    problem = "holds a NUL character" if "\0" in name else text_problem(name)
    if problem:
        raise DataError(f"image path {name!r} {problem}", remedy="give the image's path")
    path = Path(root) / name
    if allow_outside or not (os.path.isabs(name) or ".." in Path(name).parts):
        return path
    path, folder = Path(os.path.normpath(path)), Path(root if within is None else within)
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):
        raise DataError(
            f"image path {name!r} leads out of the image folder {folder}",
            remedy="give the folder that holds it (image_root, --images), "
            "or accept such paths (allow_outside, --allow-outside)",
        )
    return path


def open_image(image: ImageLike) -> Image.Image:
    """``image`` as an RGB picture; 16-bit grey values are scaled to 8 bit.

    Raises:
        DataError: the file is missing, cannot be decoded, or holds more pixels than is safe; the
            message names it.
    """
    if isinstance(image, Image.Image):
        if not image.width or not image.height:
            raise DataError(f"an image of {image.width} x {image.height} pixels is empty")
        return to_rgb(image)
    if isinstance(image, (str, Path)):
        try:
            with _opened(image) as opened:
                return to_rgb(opened)
        except FileNotFoundError:
            raise DataError(
                "image not found", file=image, remedy="check the image root, or fetch the images"
            ) from None
        except DataError as error:
            raise DataError(error.message, file=image, remedy=error.remedy) from None
        except Exception as error:
            raise DataError(
                _decoding_problem(error), file=image, remedy="fetch this file again"
            ) from error
    if image is not None and hasattr(image, "detach"):
        array = tensor_values(image).mul(255).round().byte()
        return Image.fromarray(array.permute(1, 2, 0).cpu().numpy(), "RGB")
    raise DataError(f"not an image: {type(image).__name__}", remedy="give a path or a PIL image")


def tensor_values(image: Tensor) -> Tensor:
    """The values of a picture that is a tensor, ``[3, H, W]`` from 0 to 1.

    Raises:
        DataError: it is another tensor.
    """
    values = image.detach().float()
    rgb = image.ndim == 3 and len(image) == 3 and image.numel() and image.is_floating_point()
    if not rgb or not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        raise DataError(
            f"an image is a tensor {list(image.shape)} that is not RGB [3, H, W] within [0, 1]",
            remedy="give a path or a PIL image",
        )
    return values.clamp(0, 1)


def to_rgb(picture: Image.Image) -> Image.Image:
    """``picture`` in RGB, 8 bit a channel.

    Of 16-bit grey values the high byte is kept, as PIL does for 16-bit colours; PIL's own
    conversion would turn all values above 255 white.

    Raises:
        DataError: 32-bit pixels, whose range the file does not tell.
    """
    # PIL gives 16-bit PNG and PGM files as "I;16", older versions as "I" with 16-bit values.
    sixteen = picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM")
    if picture.mode == "F" or (picture.mode == "I" and not sixteen):
        raise DataError(
            f"image has 32-bit pixels of unknown range (mode {picture.mode})",
            remedy="save it with 8 bit a channel",
        )
    if picture.mode.startswith("I"):
        grey = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).astype(np.uint8), "L")
        grey.info = dict(picture.info)  # with EXIF's orientation
        return grey.convert("RGB")
    return picture.convert("RGB")


def _opened(path: str | Path) -> Image.Image:
    """The file opened; of a PNG the checksums are checked, which PIL's decoder passes over."""
    opened = Image.open(path)
    if opened.format == "PNG":
        with opened:
            opened.verify()
        opened = Image.open(path)  # verify() leaves nothing to decode
    return opened


def image_key(image: ImageLike) -> tuple[str, int, int] | int | None:
    """What tells pictures apart: a file's path, time of change and size; another picture's ``id``.

    Only a file's key says something after the picture is gone. ``None`` for no picture.

    Raises:
        DataError: the file does not exist.
    """
    if not isinstance(image, (str, Path)):
        return None if image is None else id(image)
    try:
        stat = os.stat(image)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        open_image(image)  # raises the error that names the file
        raise
    return str(image), stat.st_mtime_ns, stat.st_size


def image_problem(path: str | Path, *, decode: bool = True) -> str | None:
    """What is wrong with the image file at ``path``, or ``None`` if nothing is."""
    try:
        if not Path(path).is_file():
            return "image not found"
        if not decode:
            return None
        with _opened(path) as opened:
            opened.draft("RGB", (64, 64))  # a JPEG is read whole but decoded small
            opened.load()
            if opened.mode != "RGB":
                to_rgb(opened)
    except DataError as error:
        return error.message
    except Exception as error:
        return _decoding_problem(error)
    return None


def check_images(paths: Iterable[str | Path], *, decode: bool = True) -> dict[str, str]:
    """Problems by path, each distinct file looked at once, several at a time."""
    distinct = sorted({str(p) for p in paths})
    with ThreadPoolExecutor(max_workers=4) as pool:
        problems = pool.map(lambda path: image_problem(path, decode=decode), distinct)
    return {path: problem for path, problem in zip(distinct, problems, strict=True) if problem}


def _decoding_problem(error: Exception) -> str:
    """In words, whatever PIL raised: its decoders raise nearly anything on broken bytes."""
    if isinstance(error, Image.DecompressionBombError):
        return f"image is too large to be safe: {error}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"image cannot be read: {error.strerror}"
    return f"image cannot be decoded: {error}"
