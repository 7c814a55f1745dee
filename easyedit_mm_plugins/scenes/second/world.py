"""The scenes world: small pictures of 2 to 4 things with exactly known content.

A :class:`Scene` is a graph of things on a 2 x 2 grid. Places are unique in a scene; a shape or a
colour may repeat, so each of them names a thing only where one thing has it. No two things of a
scene have both in common. Everything is a pure function of seeds.

Shapes of arrays: H and W are the picture's height and width in pixels.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64  # the side that geometry is written for; other pictures stretch it
PICTURE_SIZES = ((64, 64), (96, 64), (64, 96), (96, 96))  # width, height
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
RELATIONS = ("left of", "right of", "above", "below")

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
_REPEATS = 0.45  # share of the scenes in which colours, and of those in which shapes, may repeat


@dataclass(frozen=True)
class Entity:
    """One thing in a scene."""

    shape: str
    color: str
    size: str
    place: str

    def value(self, attribute: str) -> str:
        """The thing's value of ``attribute`` (one of :data:`ATTRIBUTES`)."""
        return getattr(self, attribute)

    @property
    def novel(self) -> bool:
        """Whether training keeps its pair of shape and colour back."""
        return (self.shape, self.color) in NOVEL_PAIRS


@dataclass(frozen=True)
class Scene:
    """A scene graph: 2 to 4 things in reading order of their places."""

    entities: tuple[Entity, ...]

    @cached_property
    def key(self) -> str:
        """A stable name of the graph: equal graphs, equal keys."""
        return ";".join(f"{e.size} {e.color} {e.shape} @ {e.place}" for e in self.entities)

    @property
    def split(self) -> str:
        """``"train"`` or ``"test"``: decided by the graph alone, so the splits are disjoint.

        A scene with a pair of :data:`NOVEL_PAIRS` is never one of training.
        """
        if any(e.novel for e in self.entities):
            return "test"
        digest = hashlib.sha256(self.key.encode()).digest()
        return "test" if digest[0] % _TEST_SHARE == 0 else "train"

    def find(self, attribute: str, value: str) -> Entity | None:
        """The only thing whose ``attribute`` is ``value``; None when none or several are."""
        found = [e for e in self.entities if e.value(attribute) == value]
        return found[0] if len(found) == 1 else None

    def related(self, relation: str, anchor: Entity) -> Entity | None:
        """The thing that stands next to ``anchor``, e.g. ``"left of"`` it; None: there is none."""
        row, column = divmod(PLACES.index(anchor.place), 2)
        needs, wanted = {
            "left of": (column == 1, (row, 0)),
            "right of": (column == 0, (row, 1)),
            "above": (row == 1, (0, column)),
            "below": (row == 0, (1, column)),
        }[relation]
        place = PLACES[2 * wanted[0] + wanted[1]]
        return self.find("place", place) if needs else None


def make_scene(entities: list[Entity] | tuple[Entity, ...]) -> Scene:
    """Put things into canonical order."""
    return Scene(tuple(sorted(entities, key=lambda e: PLACES.index(e.place))))


def distinct(entities: list[Entity] | tuple[Entity, ...]) -> bool:
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


def counterfactual_values(scene: Scene, entity: Entity, attribute: str) -> tuple[str, ...]:
    """The values that ``attribute`` of ``entity`` can be edited to: none is in the scene yet.

    Sizes repeat freely, so a size only has to differ from the thing's own.
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
    canvas = _ground(rng, drawing)
    owner = np.full((height, width), -1, dtype=np.int8)
    for index, entity in enumerate(scene.entities):
        row, column = divmod(PLACES.index(entity.place), 2)
        low, high = (6.0, 7.2) if entity.size == "small" else (10.2, 11.8)
        radius = rng.uniform(low, high)
        reach = 17.0 - radius if drawing.far else 4.0  # far: anywhere in its cell
        dx, dy = rng.uniform(-reach, reach, 2)
        alpha = _mask(entity.shape, 16 + 32 * column + dx, 16 + 32 * row + dy, radius, drawing.size)
        spread = 16 if drawing.far else 10
        color = np.asarray(_RGB[entity.color]) + rng.uniform(-spread, spread, 3)
        canvas += alpha[..., None] * (color - canvas)
        owner[alpha > 0.5] = index
    canvas += rng.normal(0, 6, canvas.shape)
    return np.clip(canvas, 0, 255).astype(np.uint8), owner


def _ground(rng: np.random.Generator, drawing: Drawing) -> np.ndarray:
    """A greyish ground [H, W, 3]; its tone stays away from the things' colours.

    Near drawings are blotchy and striped; far ones may also be a slope or a chequered ground.
    """
    width, height = drawing.size
    across, down = np.arange(width) * SIDE / width, np.arange(height) * SIDE / height
    blotches = rng.normal(0, 14, (8, 8)).repeat(height // 8, 0).repeat(width // 8, 1)
    angle, frequency = rng.uniform(0, math.pi), rng.uniform(0.2, 0.9)
    phase = math.cos(angle) * across[None, :] + math.sin(angle) * down[:, None]
    pattern = rng.uniform(0, 12) * np.sin(frequency * phase)
    low, high = 95.0, 160.0
    if drawing.far:
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


def _mask(shape: str, x: float, y: float, radius: float, size: tuple[int, int]) -> np.ndarray:
    """Coverage float [H, W] in [0, 1] of one shape, drawn at twice the size and halved.

    ``x``, ``y`` and ``radius`` are in the units of a 64 x 64 picture.
    """
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
