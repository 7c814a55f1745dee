"""The scenes world: small pictures of 2 to 4 things with exactly known content.

A :class:`Scene` is a graph of things on a 2 x 2 grid. Places are unique in a scene; a shape or a
colour may repeat, so each of them names a thing only where one thing has it. No two things of a
scene have both in common. Everything is a pure function of seeds.

Shapes of arrays: H and W are the picture's height and width in pixels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .. import graph
from ..drawing import RADII, RGB, SIDE, ground, mask
from ..graph import (
    ATTRIBUTES,
    COLORS,
    PLACES,
    RELATIONS,
    SHAPES,
    SIZES,
    VALUES,
    counterfactual,
    counterfactual_values,
    in_order,
)

__all__ = [
    "ATTRIBUTES",
    "COLORS",
    "NOVEL_PAIRS",
    "PICTURE_SIZES",
    "PLACES",
    "RELATIONS",
    "SHAPES",
    "SIDE",
    "SIZES",
    "VALUES",
    "Drawing",
    "Entity",
    "Scene",
    "counterfactual",
    "counterfactual_values",
    "distinct",
    "draw",
    "make_scene",
    "render",
    "sample_drawing",
    "sample_scene",
]

PICTURE_SIZES = ((64, 64), (96, 64), (64, 96), (96, 96))  # width, height
# Pairs of shape and colour that no training and no ordinary test picture holds: every colour once.
NOVEL_PAIRS = frozenset(
    {
        ("circle", "purple"),
        ("square", "red"),
        ("triangle", "green"),
        ("diamond", "blue"),
        ("cross", "yellow"),
        ("star", "orange"),
        ("circle", "white"),
        ("square", "black"),
    }
)
_REPEATS = 0.45  # share of the scenes in which colours, and of those in which shapes, may repeat


class Entity(graph.Entity):
    """One thing in a scene."""

    @property
    def novel(self) -> bool:
        """Whether training keeps its pair of shape and colour back."""
        return (self.shape, self.color) in NOVEL_PAIRS


class Scene(graph.Scene):
    """A scene graph: 2 to 4 things in reading order of their places."""

    entities: tuple[Entity, ...]

    @property
    def split(self) -> str:
        """As of any scene; one with a pair of :data:`NOVEL_PAIRS` is never one of training."""
        return "test" if any(e.novel for e in self.entities) else super().split


def make_scene(entities: Sequence[Entity]) -> Scene:
    """Put things into canonical order."""
    return Scene(in_order(entities))


def distinct(entities: Sequence[Entity]) -> bool:
    """Whether no two things share a place, or shape and colour both."""
    looks, places = {(e.shape, e.color) for e in entities}, {e.place for e in entities}
    return len(looks) == len(places) == len(entities)


def sample_scene(rng: random.Random, split: str | None = None, max_entities: int = 4) -> Scene:
    """Draw a scene of 2 to ``max_entities`` things without novel pairs; of one split if given."""
    while True:
        n = rng.randint(2, max_entities)
        shapes = rng.choices(SHAPES, k=n) if rng.random() < _REPEATS else rng.sample(SHAPES, n)
        colors = rng.choices(COLORS, k=n) if rng.random() < _REPEATS else rng.sample(COLORS, n)
        places = rng.sample(PLACES, n)
        entities = [
            Entity(s, c, rng.choice(SIZES), p)
            for s, c, p in zip(shapes, colors, places, strict=True)
        ]
        if not distinct(entities) or any(e.novel for e in entities):
            continue
        scene = make_scene(entities)
        if split is None or scene.split == split:
            return scene


@dataclass(frozen=True)
class Drawing:
    """How a scene is drawn: another ``seed`` gives other jitter, ground and noise.

    Attributes:
        size: width and height in pixels, one of :data:`PICTURE_SIZES`.
        far: wider jitter, more kinds of ground and more tones: a picture that differs more.
    """

    seed: int
    size: tuple[int, int] = (SIDE, SIDE)
    far: bool = False


def sample_drawing(rng: random.Random, far: float = 0.0) -> Drawing:
    """A drawing of a random size; a far one with the probability ``far``."""
    return Drawing(rng.getrandbits(31), rng.choice(PICTURE_SIZES), rng.random() < far)


def render(scene: Scene, drawing: Drawing) -> Image.Image:
    """Draw a scene as an RGB picture."""
    return Image.fromarray(draw(scene, drawing)[0])


def draw(scene: Scene, drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [H, W, 3], and int8 [H, W]: index of the thing at a pixel, -1 if none."""
    rng = np.random.default_rng(drawing.seed)
    width, height = drawing.size
    canvas = ground(rng, drawing.size, drawing.far)
    owner = np.full((height, width), -1, dtype=np.int8)
    for index, entity in enumerate(scene.entities):
        row, column = divmod(PLACES.index(entity.place), 2)
        radius = rng.uniform(*RADII[entity.size])
        reach = 17.0 - radius if drawing.far else 4.0  # far: anywhere in its cell
        dx, dy = rng.uniform(-reach, reach, 2)
        alpha = mask(entity.shape, 16 + 32 * column + dx, 16 + 32 * row + dy, radius, drawing.size)
        spread = 16 if drawing.far else 10
        color = np.asarray(RGB[entity.color]) + rng.uniform(-spread, spread, 3)
        canvas += alpha[..., None] * (color - canvas)
        owner[alpha > 0.5] = index
    canvas += rng.normal(0, 6, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), owner
