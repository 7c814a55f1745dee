"""The scenes world: small images of 2 to 4 entities with exactly known content.

A :class:`Scene` is a graph of entities on a 2 x 2 grid; shapes, colours and places are unique
within a scene, so each of them names at most one entity. Everything is a pure function of seeds.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "star")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SIZES = ("small", "large")
PLACES = ("top left", "top right", "bottom left", "bottom right")
VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": COLORS,
    "size": SIZES,
    "place": PLACES,
}
ATTRIBUTES = tuple(VALUES)

_RGB = {
    "red": (214, 34, 38),
    "green": (28, 152, 48),
    "blue": (32, 66, 214),
    "yellow": (240, 222, 40),
    "purple": (140, 36, 172),
    "orange": (246, 134, 20),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
}
_TEST_SHARE = 8  # one graph in eight belongs to the test split


@dataclass(frozen=True)
class Entity:
    """One thing in a scene."""

    shape: str
    color: str
    size: str
    place: str

    def value(self, attribute: str) -> str:
        """The entity's value of ``attribute`` (one of :data:`ATTRIBUTES`)."""
        return getattr(self, attribute)


@dataclass(frozen=True)
class Scene:
    """A scene graph: 2 to 4 entities in reading order of their places."""

    entities: tuple[Entity, ...]

    @cached_property
    def key(self) -> str:
        """A stable name of the graph: equal graphs, equal keys."""
        return ";".join(f"{e.size} {e.color} {e.shape} @ {e.place}" for e in self.entities)

    @property
    def split(self) -> str:
        """``"train"`` or ``"test"``: decided by the graph alone, so the splits are disjoint."""
        digest = hashlib.sha256(self.key.encode()).digest()
        return "test" if digest[0] % _TEST_SHARE == 0 else "train"

    def find(self, attribute: str, value: str) -> Entity | None:
        """The only entity whose ``attribute`` is ``value``; None when none or several are."""
        found = [e for e in self.entities if e.value(attribute) == value]
        return found[0] if len(found) == 1 else None


def make_scene(entities: list[Entity] | tuple[Entity, ...]) -> Scene:
    """Put entities into canonical order."""
    return Scene(tuple(sorted(entities, key=lambda e: PLACES.index(e.place))))


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


def counterfactual_values(scene: Scene, entity: Entity, attribute: str) -> tuple[str, ...]:
    """The values that ``attribute`` of ``entity`` can be edited to: none is in the scene yet.

    Sizes are not unique, so a size only has to differ from the entity's own.
    """
    others = [entity] if attribute == "size" else scene.entities
    taken = {e.value(attribute) for e in others}
    return tuple(v for v in VALUES[attribute] if v not in taken)


def counterfactual(scene: Scene, entity: Entity, attribute: str, value: str) -> Scene:
    """The edited graph, in which ``entity`` has ``value`` as its ``attribute``.

    Raises:
        ValueError: ``entity`` is not in the scene, or ``value`` is taken (for a place: no free
            cell there).
    """
    if entity not in scene.entities:
        raise ValueError(f"{entity} is not in this scene; it holds: {scene.key}")
    allowed = counterfactual_values(scene, entity, attribute)
    if value not in allowed:
        raise ValueError(f"{attribute} {value!r} cannot be a new value here; choose from {allowed}")
    changed = replace(entity, **{attribute: value})
    return make_scene([changed if e == entity else e for e in scene.entities])


def render(scene: Scene, seed: int) -> Image.Image:
    """Draw a scene as RGB 64 x 64.

    Another ``seed`` gives the same scene drawn again: other jitter, background and noise.
    """
    return Image.fromarray(draw(scene, seed)[0])


def draw(scene: Scene, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [64, 64, 3], and int8 [64, 64]: index of the entity at a pixel, -1 if none."""
    rng = np.random.default_rng(seed)
    canvas = _background(rng)
    owner = np.full((IMAGE_SIZE, IMAGE_SIZE), -1, dtype=np.int8)
    for index, entity in enumerate(scene.entities):
        row, column = divmod(PLACES.index(entity.place), 2)
        dx, dy = rng.uniform(-4, 4, 2)
        low, high = (6.0, 7.2) if entity.size == "small" else (10.2, 11.8)
        alpha = _mask(
            entity.shape, 16 + 32 * column + dx, 16 + 32 * row + dy, rng.uniform(low, high)
        )
        color = np.asarray(_RGB[entity.color]) + rng.uniform(-10, 10, 3)
        canvas += alpha[..., None] * (color - canvas)
        owner[alpha > 0.5] = index
    canvas += rng.normal(0, 6, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), owner


def _background(rng: np.random.Generator) -> np.ndarray:
    """A greyish, blotchy, striped ground; its tone stays away from the entities' colours."""
    blotches = rng.normal(0, 14, (8, 8)).repeat(8, 0).repeat(8, 1)
    angle, frequency = rng.uniform(0, math.pi), rng.uniform(0.2, 0.9)
    line = np.arange(IMAGE_SIZE)
    phase = math.cos(angle) * line[None, :] + math.sin(angle) * line[:, None]
    stripes = rng.uniform(0, 12) * np.sin(frequency * phase)
    tone = rng.uniform(95, 160) + rng.uniform(-12, 12, 3)
    return (blotches + stripes)[..., None] + tone


def _mask(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Coverage float [64, 64] in [0, 1] of one shape, drawn at twice the size and halved."""
    image = Image.new("L", (2 * IMAGE_SIZE, 2 * IMAGE_SIZE), 0)
    pen = ImageDraw.Draw(image)
    x, y, r = 2 * x, 2 * y, 2 * radius
    if shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    elif shape == "square":
        s = 0.86 * r
        pen.rectangle((x - s, y - s, x + s, y + s), fill=255)
    elif shape == "cross":
        w = 0.34 * r
        pen.rectangle((x - r, y - w, x + r, y + w), fill=255)
        pen.rectangle((x - w, y - r, x + w, y + r), fill=255)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x + r, y + 0.86 * r), (x - r, y + 0.86 * r)], fill=255)
    elif shape == "diamond":
        pen.polygon([(x, y - r), (x + 0.8 * r, y), (x, y + r), (x - 0.8 * r, y)], fill=255)
    elif shape == "star":
        points = []
        for k in range(10):
            reach = 1.12 * r if k % 2 == 0 else 0.46 * r
            turn = math.pi * k / 5
            points.append((x + reach * math.sin(turn), y - reach * math.cos(turn)))
        pen.polygon(points, fill=255)
    else:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    return np.asarray(image.reduce(2), dtype=np.float32) / 255
