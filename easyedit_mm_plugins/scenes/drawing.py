"""How things and grounds are drawn, in any picture size; lengths are those of a 64 x 64 picture.

Shapes of arrays: H and W are the picture's height and width in pixels.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from .graph import SHAPES

SIDE = 64  # the side that geometry is written for; other pictures stretch it
RGB = {
    "red": (214, 34, 38),
    "green": (28, 152, 48),
    "blue": (32, 66, 214),
    "yellow": (240, 222, 40),
    "purple": (140, 36, 172),
    "orange": (246, 134, 20),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
RADII = {"small": (6.0, 7.2), "large": (10.2, 11.8)}


def ground(
    rng: np.random.Generator, size: tuple[int, int] = (SIDE, SIDE), far: bool = False
) -> np.ndarray:
    """A greyish ground [H, W, 3]; its tone stays away from the things' colours.

    It is blotchy and striped; a far one may also be a slope or chequered, in more tones.
    """
    width, height = size
    across, down = np.arange(width) * SIDE / width, np.arange(height) * SIDE / height
    blotches = rng.normal(0, 14, (8, 8)).repeat(height // 8, 0).repeat(width // 8, 1)
    angle, frequency = rng.uniform(0, math.pi), rng.uniform(0.2, 0.9)
    phase = math.cos(angle) * across[None, :] + math.sin(angle) * down[:, None]
    pattern = rng.uniform(0, 12) * np.sin(frequency * phase)
    low, high = 95.0, 160.0
    if far:
        low, high = 75.0, 185.0
        kind = rng.integers(3)
        if kind == 1:  # a slope from one edge to the other
            pattern = rng.uniform(-0.5, 0.5) * (phase - phase.mean())
        elif kind == 2:  # chequered
            step = rng.uniform(5, 12)
            cells = (across[None, :] // step + down[:, None] // step) % 2
            pattern = rng.uniform(8, 22) * (cells - 0.5)
    tone = rng.uniform(low, high) + rng.uniform(-12, 12, 3)
    return (blotches + pattern)[..., None] + tone


def mask(
    shape: str, x: float, y: float, radius: float, size: tuple[int, int] = (SIDE, SIDE)
) -> np.ndarray:
    """Coverage float [H, W] in [0, 1] of one shape, drawn at twice the size and halved."""
    width, height = size
    across, down = 2 * width / SIDE, 2 * height / SIDE
    image = Image.new("L", (2 * width, 2 * height), 0)
    pen = ImageDraw.Draw(image)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [((x + u * radius) * across, (y + v * radius) * down) for u, v in points]

    if shape == "circle":
        pen.ellipse(at((-1, -1), (1, 1)), fill=255)
    elif shape == "square":
        pen.rectangle(at((-0.86, -0.86), (0.86, 0.86)), fill=255)
    elif shape == "cross":
        pen.rectangle(at((-1, -0.34), (1, 0.34)), fill=255)
        pen.rectangle(at((-0.34, -1), (0.34, 1)), fill=255)
    elif shape == "triangle":
        pen.polygon(at((0, -1), (1, 0.86), (-1, 0.86)), fill=255)
    elif shape == "diamond":
        pen.polygon(at((0, -1), (0.8, 0), (0, 1), (-0.8, 0)), fill=255)
    elif shape == "star":
        turns = [(math.pi * k / 5, 1.12 if k % 2 == 0 else 0.46) for k in range(10)]
        pen.polygon(at(*((r * math.sin(t), -r * math.cos(t)) for t, r in turns)), fill=255)
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return np.asarray(image.reduce(2), dtype=np.float32) / 255
