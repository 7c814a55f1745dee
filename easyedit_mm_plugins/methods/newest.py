"""The newest edit wins: which edits in force answer in the place of earlier ones.

An edit with an earlier one's question (the same words about the same picture), or with one that a
method takes to mean the same, supersedes it for as long as both are in force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeAlias

from ..core.errors import DataError
from ..data.images import image_key
from ..data.records import ImageLike, Question

# By id of an edit, the later ones that supersede it themselves, oldest first.
Newer: TypeAlias = "Mapping[str, tuple[str, ...]]"


class Superseded(NamedTuple):
    """An edit in force that another one answers for.

    Attributes:
        older, newer: their ids.
        contradicts: their answers differ.
    """

    older: str
    newer: str
    contradicts: bool


def newest(newer: Newer, edit_id: str, visible: Collection[str] | None = None) -> str:
    """The newest edit, among ``visible``, that supersedes ``edit_id``, by whatever steps; or it."""
    if edit_id not in newer:
        return edit_id
    best, found, waiting = edit_id, {edit_id}, [edit_id]
    while waiting:
        for later in newer.get(waiting.pop(), ()):
            if later not in found:
                found.add(later)
                waiting.append(later)
                if (visible is None or later in visible) and age(later) > age(best):
                    best = later
    return best


def age(edit_id: str) -> int:
    """Ids are given in order."""
    return int(edit_id[1:])


class Succession:
    """Keeps account of :data:`Newer` while edits come and go; what it gave out never changes."""

    def __init__(self) -> None:
        self._alike: dict[int, list[str]] = {}  # edits of one question, by its hash
        self._hash: dict[str, int] = {}
        self._older: dict[str, set[str]] = {}  # the links of ``newer`` the other way round
        self.newer: Newer = {}

    def add(self, edits: Mapping[str, Question], means: Iterable[tuple[str, str]] = ()) -> Newer:
        """Account for new edits, by id; ``means`` has further pairs (older, newer)."""
        links = set(means)
        for edit_id, edit in edits.items():
            # A number, not the words: a million edits are kept. Two of a million share one with a
            # probability of 1e-7.
            own = hash((" ".join(edit.text.casefold().split()), _picture(edit.image)))
            alike = self._alike.setdefault(own, [])
            if alike:
                links.add((alike[-1], edit_id))
            alike.append(edit_id)
            self._hash[edit_id] = own
        if links:
            self._link(dict(self.newer), links)
        return self.newer

    def remove(self, ids: Iterable[str]) -> Newer:
        """Account for edits that are gone; what they superseded is itself again."""
        newer: dict[str, tuple[str, ...]] | None = None
        for edit_id in ids:
            own = self._hash.pop(edit_id)
            alike = self._alike[own]
            at = alike.index(edit_id)
            del alike[at]
            if not alike:
                del self._alike[own]
            if edit_id not in self._older and edit_id not in self.newer:
                continue
            newer = dict(self.newer) if newer is None else newer
            for later in newer.pop(edit_id, ()):
                self._older[later].remove(edit_id)
                if not self._older[later]:
                    del self._older[later]
            for older in self._older.pop(edit_id, ()):
                newer[older] = tuple(i for i in newer[older] if i != edit_id)
                if not newer[older]:
                    del newer[older]
            if 0 < at < len(alike):  # one of the same words stood on either side
                self._link(newer, [(alike[at - 1], alike[at])])
        if newer is not None:
            self.newer = newer
        return self.newer

    def _link(self, newer: dict[str, tuple[str, ...]], links: Iterable[tuple[str, str]]) -> None:
        for older, later in links:
            newer[older] = tuple(sorted({*newer.get(older, ()), later}, key=age))
            self._older.setdefault(later, set()).add(older)
        self.newer = newer


def _picture(image: ImageLike) -> object:
    """As :func:`image_key`; not every method opens an edit's file."""
    try:
        return image_key(image)
    except DataError:
        return str(image)
