"""Scene graphs: what things there are and where, and what an edit makes of them.

Both editions of the world share this; each says what scenes it draws and how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

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
_TEST_SHARE = 8  # one graph in eight belongs to the test split


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
        """``"train"`` or ``"test"``: decided by the graph alone, so the splits are disjoint."""
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


AnyScene = TypeVar("AnyScene", bound=Scene)


def in_order(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Things in the reading order of their places."""
    return tuple(sorted(entities, key=lambda e: PLACES.index(e.place)))


def counterfactual_values(scene: Scene, entity: Entity, attribute: str) -> tuple[str, ...]:
    """The values that ``attribute`` of ``entity`` can be edited to: none is in the scene yet.

    Sizes repeat freely, so a size only has to differ from the thing's own.
    """
    others = [entity] if attribute == "size" else scene.entities
    taken = {e.value(attribute) for e in others}
    return tuple(v for v in VALUES[attribute] if v not in taken)


def counterfactual(scene: AnyScene, entity: Entity, attribute: str, value: str) -> AnyScene:
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
    return type(scene)(in_order(changed if e == entity else e for e in scene.entities))
