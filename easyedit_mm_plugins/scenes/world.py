"""The scenes world: small images of 2 to 4 entities with exactly known content.

A :class:`Scene` is a graph of entities on a 2 x 2 grid; shapes, colours and places are unique
within a scene, so each of them names at most one entity. Everything is a pure function of seeds.
"""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from .drawing import RADII, RGB, SIDE, ground, mask
from .graph import (
    ATTRIBUTES,
    COLORS,
    PLACES,
    SHAPES,
    SIZES,
    VALUES,
    Entity,
    Scene,
    counterfactual,
    counterfactual_values,
    in_order,
)

__all__ = [
    "ATTRIBUTES",
    "COLORS",
    "PLACES",
    "SHAPES",
    "SIZES",
    "VALUES",
    "Entity",
    "Scene",
    "counterfactual",
    "counterfactual_values",
    "draw",
    "make_scene",
    "render",
    "sample_scene",
]


def make_scene(entities: list[Entity] | tuple[Entity, ...]) -> Scene:
    """Put entities into canonical order."""
    return Scene(in_order(entities))


def sample_scene(rng: random.Random, split: str | None = None, max_entities: int = 4) -> Scene:
    """Draw a scene of 2 to ``max_entities`` entities; of one split if ``split`` is given."""
    while True:
        n = rng.randint(2, max_entities)
        columns = (rng.sample(v, n) for v in (SHAPES, COLORS, PLACES))
        scene = make_scene(
            [Entity(s, c, rng.choice(SIZES), p) for s, c, p in zip(*columns, strict=True)]
        )
        if split is None or scene.split == split:
            return scene


def render(scene: Scene, seed: int) -> Image.Image:
    """Draw a scene as RGB 64 x 64.

    Another ``seed`` gives the same scene drawn again: other jitter, background and noise.
    """
    return Image.fromarray(draw(scene, seed)[0])


def draw(scene: Scene, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [64, 64, 3], and int8 [64, 64]: index of the entity at a pixel, -1 if none."""
    rng = np.random.default_rng(seed)
    canvas = ground(rng)
    owner = np.full((SIDE, SIDE), -1, dtype=np.int8)
    for index, entity in enumerate(scene.entities):
        row, column = divmod(PLACES.index(entity.place), 2)
        dx, dy = rng.uniform(-4, 4, 2)
        radius = rng.uniform(*RADII[entity.size])
        alpha = mask(entity.shape, 16 + 32 * column + dx, 16 + 32 * row + dy, radius)
        color = np.asarray(RGB[entity.color]) + rng.uniform(-10, 10, 3)
        canvas += alpha[..., None] * (color - canvas)
        owner[alpha > 0.5] = index
    canvas += rng.normal(0, 6, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), owner
