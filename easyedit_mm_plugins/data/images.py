"""Opening images, and checking many of them before long work starts."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..core.errors import DataError
from .records import ImageLike


def open_image(image: ImageLike) -> Image.Image:
    """``image`` as an RGB picture.

    Raises:
        DataError: the file is missing or cannot be decoded; the message names it.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                return opened.convert("RGB")
        except FileNotFoundError:
            raise DataError(
                "image not found", file=image, remedy="check the image root, or fetch the images"
            ) from None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f"image cannot be decoded: {error}", file=image, remedy="fetch this file again"
            ) from error
    if image is not None and hasattr(image, "detach"):  # an RGB tensor [3, H, W] in [0, 1]
        array = image.detach().float().clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(array.permute(1, 2, 0).cpu().numpy(), "RGB")
    raise DataError(f"not an image: {type(image).__name__}", remedy="give a path or a PIL image")


def image_problem(path: str | Path, *, decode: bool = True) -> str | None:
    """What is wrong with the image file at ``path``, or ``None`` if nothing is."""
    if not Path(path).is_file():
        return "image not found"
    if not decode:
        return None
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (64, 64))  # a JPEG is read whole but decoded small
            opened.load()
    except Exception as error:  # PIL's decoders raise nearly anything on broken bytes
        return f"image cannot be decoded: {error}"
    return None


def check_images(paths: Iterable[str | Path], *, decode: bool = True) -> dict[str, str]:
    """Problems by path, each distinct file looked at once, several at a time."""
    distinct = sorted({str(p) for p in paths})
    with ThreadPoolExecutor(max_workers=4) as pool:
        problems = pool.map(lambda path: image_problem(path, decode=decode), distinct)
    return {path: problem for path, problem in zip(distinct, problems, strict=True) if problem}
