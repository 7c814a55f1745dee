"""Images.

Oracle: a picture in any of PIL's modes, saved in any format without loss, gives the pixels that its
mode says (16 bit: the high byte). Damaged files are refused or give the pixels of the undamaged
one; only of JPEG, BMP, TIFF and GIF, which hold no checksum, what PIL reads from them is taken.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from easyedit_mm_plugins.data import open_image
from easyedit_mm_plugins.data.images import image_problem

from .attack import Attack, Different, Draw, Kind
from .mutations import damaged, texts

_NOISE = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
_GREY16 = np.random.default_rng(1).integers(0, 65536, (9, 7), dtype=np.uint16)


def _pictures() -> dict[str, tuple[bytes, np.ndarray | None]]:
    """By name a file's bytes and the RGB pixels that it holds; ``None``: to be refused."""
    red, grey = _NOISE[..., :3], np.repeat(_NOISE[..., :1], 3, -1)
    bits = np.where(grey > 127, 255, 0).astype(np.uint8)
    palette = Image.fromarray(_NOISE[..., 0] % 4, "P")
    palette.putpalette([1, 2, 3, 200, 100, 50, 255, 255, 255, 0, 0, 9])
    colors = np.array(palette.getpalette()[:12], np.uint8).reshape(4, 3)[_NOISE[..., 0] % 4]
    ink = _NOISE[..., :3].astype(int)
    cmyk = np.dstack([_NOISE[..., :3], np.zeros((9, 7), np.uint8)])
    made = {
        "RGB": (Image.fromarray(red), red, ("png", "bmp", "tiff", "webp", "jpeg")),
        "RGBA": (Image.fromarray(_NOISE, "RGBA"), red, ("png", "tiff")),
        "L": (Image.fromarray(_NOISE[..., 0]), grey, ("png", "bmp", "tiff", "gif", "jpeg")),
        "LA": (Image.fromarray(_NOISE[..., :2], "LA"), grey, ("png",)),
        "1": (Image.fromarray(bits[..., 0]).convert("1"), bits, ("png", "tiff", "bmp")),
        "P": (palette, colors, ("png", "gif", "bmp")),
        "I;16": (Image.fromarray(_GREY16), np.repeat((_GREY16 >> 8)[..., None], 3, -1),
                 ("png", "tiff")),
        "CMYK": (Image.fromarray(cmyk, "CMYK"), 255 - ink, ("tiff",)),
        "F": (Image.fromarray(_NOISE[..., 0].astype(np.float32)), None, ("tiff",)),
        "I": (Image.fromarray(_GREY16.astype(np.int32) * 7), None, ("tiff",)),
    }  # fmt: skip
    found = {}
    for mode, (image, pixels, formats) in made.items():
        for name in formats:
            file = io.BytesIO()
            image.save(file, name, **({"lossless": True} if name == "webp" else {}))
            if name == "jpeg":
                pixels = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
            found[f"{mode}.{name}"] = (file.getvalue(), pixels)
    return found


def bomb(side: int) -> bytes:
    """A small PNG that says it holds ``side`` x ``side`` pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(n, d) for n, d in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    )


_FILES = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"text\n", bytes(1000),
          bomb(60_000), bomb(13_000), bomb(10**9), b"%PDF-1.4\n", b"<svg/>",
          b"RIFF\0\0\0\0WEBPVP8 ",
          b"P6 100000 100000 255\n", b"P6 2 2 255\n123456789012",
          b"%!PS-Adobe-3.0 EPSF-3.0\n")  # fmt: skip
# A checksum tells that these are damaged; PIL's own words are taken for the others.
_PROTECTED = ("png",)


def start(folder: Path) -> Attack:
    pictures = _pictures()

    def attack(draw: Draw) -> None:
        name = draw(st.sampled_from([*pictures]))
        data, pixels = pictures[name]
        how = draw(st.sampled_from(("whole", "damaged", "damaged", "damaged", "other", "name")))
        suffix = draw(st.sampled_from((name, "x.png", "x.jpg", "x", "x.txt", "é.png")))
        path = folder / suffix
        path.unlink(missing_ok=True)
        if how == "name":
            path, pixels = folder / draw(texts), None
        elif how == "other":
            data, pixels = draw(st.sampled_from(_FILES)), None
            path.write_bytes(data)
        else:
            data = damaged(draw, data) if how == "damaged" else data
            path.write_bytes(data)
        problem = image_problem(path)
        given = str(path) if draw(st.booleans()) else path
        found = np.asarray(open_image(given))  # an error where there was no problem is one of ours
        if problem:
            raise Different(f"image_problem says {problem!r} and open_image reads it")
        if how in ("name", "other") or (
            how == "damaged" and name.rsplit(".")[-1] not in _PROTECTED
        ):
            pixels = _as_pil_reads(path)
        if pixels is None or found.shape != pixels.shape or not np.array_equal(found, pixels):
            raise Different(f"other pixels than {name} has")

    return attack


def _as_pil_reads(path: Path) -> np.ndarray | None:
    with Image.open(path) as opened:
        if opened.mode in ("F", "I"):
            return None
        if opened.mode.startswith("I;16"):
            return np.repeat((np.asarray(opened).astype(int) >> 8)[..., None], 3, -1)
        return np.asarray(opened.convert("RGB"))


KIND = Kind("images", (3000, 400), start)
